# SPDX-License-Identifier: MIT
"""Beside systemd-networkd, which removes what others made unless it is told not to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.system import pages
from tests.system.bed import Machine
from tests.system.boxes import eventually
from tests.system.follow import Journal, Lines

LINK = '[link.up0]\nkind = "bridge"\naddresses = ["10.7.0.1/24"]\n'
ROUTE = '[[route]]\nto = "198.51.100.0/24"\nvia = "10.7.0.9"\ndev = "up0"\n'
RULE = '[[rule]]\nfrom = "10.7.0.0/24"\ntable = 100\npriority = 1000\n'
NETWORK = "[Match]\nName=own0\n[Network]\nAddress=10.8.0.1/24\nConfigureWithoutCarrier=yes\n"
NETDEV = "[NetDev]\nName=own0\nKind=bridge\n"
DROP_IN = "/etc/systemd/networkd.conf.d/linxd.conf"
UNITS = ("linxd.service", "systemd-networkd.service", "systemd-networkd.socket")


@pytest.fixture
def networkd(machine: Machine) -> Iterator[Machine]:
    """networkd runs, with a bridge of its own."""
    machine.write("/etc/systemd/network/own0.netdev", NETDEV)
    machine.write("/etc/systemd/network/own0.network", NETWORK)
    machine.do("systemctl", "start", "systemd-networkd.service")
    # So often within a minute no user starts it.
    machine.do("systemctl", "reset-failed", "systemd-networkd.service")
    yield machine
    machine.run("linxctl", "release", "host")
    machine.run("systemctl", "stop", *UNITS)
    machine.do("rm", "-rf", "/etc/systemd/network", DROP_IN, "/etc/linxd/host.toml")
    for link in ("own0", "up0"):
        machine.run("ip", "link", "delete", link)


def warnings(machine: Machine, declared: str, *, verb: str = "restart") -> list[str]:
    """What the host's daemon, started with this or told to reload it, warns of before that is done."""
    machine.write("/etc/linxd/host.toml", declared)
    done = {"restart": "Started ", "reload": "host: reloaded: "}[verb]
    with Journal(machine) as journal:
        machine.do("systemctl", verb, "linxd.service")
        seen: list[str] = []

        def ready(entry: dict[str, Any]) -> bool:
            if entry.get("_SYSTEMD_UNIT") == "linxd.service" and entry.get("PRIORITY") == "4":
                seen.append(str(entry["MESSAGE"]))
            about = "linxd.service" in (entry.get("UNIT"), entry.get("_SYSTEMD_UNIT"))
            return about and str(entry["MESSAGE"]).startswith(done)

        journal.entry(ready)
    return [line for line in seen if "networkd" in line]


def configured(machine: Machine) -> None:
    """Fails unless networkd has done with its bridge."""
    assert "10.8.0.1/24" in machine.do("ip", "address", "show", "dev", "own0")
    assert "(configured)" in machine.do("networkctl", "status", "own0")


def kept(machine: Machine) -> None:
    """Fails unless the declared rule is there."""
    assert "1000:" in machine.do("ip", "rule")


def test_what_it_removes_is_said_at_the_start_with_the_file_that_ends_it(networkd: Machine) -> None:
    assert warnings(networkd, LINK) == []
    [both] = warnings(networkd, LINK + ROUTE + RULE)
    assert both.splitlines() == [
        f"host: systemd-networkd removes routes and rules that it did not make, unless {DROP_IN} says",
        "  [Network]",
        "  ManageForeignRoutes=no",
        "  ManageForeignRoutingPolicyRules=no",
    ]
    [routes] = warnings(networkd, LINK + ROUTE)
    assert routes.splitlines()[1:] == ["  [Network]", "  ManageForeignRoutes=no"]

    page = pages.ROOT / "docs/howto/coexistence.md"
    [written] = [
        step
        for step in pages.steps(page.read_text())
        if isinstance(step, pages.File) and step.path == DROP_IN
    ]
    assert [line.strip() for line in both.splitlines()[1:]] == written.text.splitlines()[1:]
    networkd.write(DROP_IN, written.text)
    assert warnings(networkd, LINK + ROUTE + RULE) == []


def test_what_a_reload_first_declares_is_said_then(networkd: Machine) -> None:
    assert warnings(networkd, LINK) == []
    [routes] = warnings(networkd, LINK + ROUTE, verb="reload")
    assert routes.splitlines()[1:] == ["  [Network]", "  ManageForeignRoutes=no"]
    assert warnings(networkd, LINK + ROUTE, verb="reload") == []
    [both] = warnings(networkd, LINK + ROUTE + RULE, verb="reload")
    assert "removes routes and rules" in both
    networkd.write(DROP_IN, "\n".join(line.strip() for line in both.splitlines()[1:]))
    assert warnings(networkd, LINK + ROUTE + RULE, verb="reload") == []


def test_where_it_does_not_run_nothing_is_said(machine: Machine, networkd: Machine) -> None:
    machine.do("systemctl", "stop", *UNITS[1:])
    assert warnings(machine, LINK + ROUTE + RULE) == []


@pytest.mark.parametrize("drop_in", ["", "[Network]\nManageForeignRoutingPolicyRules=no\n"])
def test_told_so_it_leaves_alone_what_is_declared(networkd: Machine, drop_in: str) -> None:
    """And untold it does not, which linxd heals: else there would be nothing to warn of."""
    if drop_in:
        networkd.write(DROP_IN, drop_in)
    warnings(networkd, LINK + RULE)
    rule = ("ip", "rule", "add", "table", "7", "priority")
    with Lines(networkd, "ip", "monitor", "rule") as rules:
        rules.heard(lambda number: networkd.do(*rule, f"{2000 + number}"))
        networkd.do("systemctl", "restart", "systemd-networkd.service")
        networkd.do("networkctl", "reconfigure", "own0")
        eventually(lambda: configured(networkd))
        networkd.do(*rule, "9999")
        before = rules.until("^9999:")
    networkd.do("ip", "rule", "delete", "priority", "9999")
    removed = [line for line in before if line.startswith("Deleted 1000:")]
    assert bool(removed) is not bool(drop_in)
    eventually(lambda: kept(networkd))
