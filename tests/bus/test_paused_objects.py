# SPDX-License-Identifier: MIT
"""One object left alone for a while, of each source, over the bus: the others are kept, it is shown, and the
end comes by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbus_next")

from tests.bus.served import BASE, NOBODY, Served

LONG = str(600 * 10**6)
ROUTE = "route 198.51.100.0/24 via 10.0.0.1"
RULES = """\
[netfilter]
ruleset = '''
table inet one {
  chain input {
    type filter hook input priority 0; policy accept;
    counter
  }
}
table inet two {
  chain input {
    type filter hook input priority 5; policy accept;
    counter
  }
}
'''
[sysctl]
"net.ipv4.conf.veth0.rp_filter" = 1
"net.ipv4.conf.veth0.arp_ignore" = 1
"""


def inside(served: Served, *command: str) -> str:
    """A command in the namespace."""
    words = ["ip", "netns", "exec", served.scope, *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(served: Served, condition: str = "pending") -> dict[str, dict[str, Any]]:
    """Details by kind and name."""
    rows, _ = served.call("ListObjects", "suu", condition, "0", "1000")
    return {
        f"{row[0]} {row[1]}": {key: value["data"] for key, value in row[4].items()} | {"since": row[3]}
        for row in rows
    }


def test_a_paused_route_is_left_alone_and_all_else_is_kept(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        assert served.call("PauseObject", "st", "198.51.100.0/24", LONG) == [ROUTE]
        ((source, name, until),) = served.get("PausedObjects")
        assert (source, name) == ("rtnl", ROUTE)
        assert served.get("Paused") is False
        assert objects(served, "done")[ROUTE]["paused-until"] == until
        served.ip("route", "del", "198.51.100.0/24")
        served.ip("address", "del", "10.0.0.5/24", "dev", "veth0")
        converged, _ = served.call("Reconcile")
        assert not converged
        assert "10.0.0.5/24" in served.ip("address", "show", "dev", "veth0")
        assert served.ip("route", "show", "198.51.100.0/24") == ""
        assert served.get("State") == "degraded"
        shown = objects(served)[ROUTE]
        assert shown["text"].startswith("has drifted; paused until ")
        assert shown["paused-until"] == until
        served.ip("route", "add", "198.51.100.0/24", "via", "10.0.0.9", "dev", "veth0")
        served.call("Reconcile")
        assert "10.0.0.9" in served.ip("route", "show", "198.51.100.0/24")
        assert served.call("ResumeObject", "s", "198.51.100.0/24") == [ROUTE]
        assert served.call("Reconcile")[0]
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")
        assert served.get("PausedObjects") == []
        served.daemon.line(r"route 198\.51\.100\.0/24 via 10\.0\.0\.1 is paused until ")


def test_it_ends_by_itself(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        served.call("PauseObject", "st", ROUTE, "1500000")
        served.ip("route", "del", "198.51.100.0/24")
        served.daemon.line(r"route .* is pending: has drifted; paused until|restored route")
        served.daemon.line(r"rtnl: converged")
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")
        assert served.get("PausedObjects") == []


def test_what_stands_on_a_paused_link_waits_for_it(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        assert served.call("PauseObject", "st", "link veth0", LONG) == ["link veth0"]
        served.ip("link", "del", "veth0")
        assert not served.call("Reconcile")[0]
        assert "veth0" not in served.ip("link")
        found = objects(served)
        assert found["link veth0"]["text"].startswith("has drifted; paused until ")
        # Said by a look at both, or by one at the address alone.
        waits = ("needs link veth0: has drifted; paused", "needs its link, which went away")
        assert found["address 10.0.0.5/24 dev veth0"]["text"].startswith(waits)
        assert "gateway" in found[ROUTE]["text"]
        served.call("ResumeObject", "s", "veth0")
        assert served.call("Reconcile")[0]
        assert "10.0.0.5/24" in served.ip("address", "show", "dev", "veth0")
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")


def test_a_paused_link_taken_down_keeps_its_routes_waiting(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        served.call("PauseObject", "st", "link veth0", LONG)
        served.ip("link", "set", "veth0", "down")
        assert not served.call("Reconcile")[0]
        assert "state DOWN" in served.ip("link", "show", "veth0")
        assert ROUTE in objects(served)
        served.call("Resume")
        assert served.call("Reconcile")[0]
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")


def test_a_reload_does_not_end_it_and_resume_ends_all(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        served.call("PauseObject", "st", ROUTE, LONG)
        served.ip("route", "del", "198.51.100.0/24")
        served.file.write_text(
            BASE.replace("via", "metric = 0\nvia") + '[[route]]\nto = "203.0.113.0/24"\nvia = "10.0.0.1"\n'
        )
        served.call("Reload")
        assert "10.0.0.1" in served.ip("route", "show", "203.0.113.0/24")
        assert served.ip("route", "show", "198.51.100.0/24") == ""
        served.call("Resume")
        assert served.get("PausedObjects") == []
        assert served.call("Reconcile")[0]
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")


def test_an_undeclared_object_that_is_paused_stays_until_the_end(
    bus: Any, netns: str, tmp_path: Path
) -> None:
    with Served(bus.address, netns, tmp_path) as served:
        served.call("PauseObject", "st", ROUTE, LONG)
        served.file.write_text(BASE.partition("[[route]]")[0])
        served.call("Reload")
        assert "10.0.0.1" in served.ip("route", "show", "198.51.100.0/24")
        served.call("ResumeObject", "s", ROUTE)
        assert served.call("Reconcile")[0]
        assert served.ip("route", "show", "198.51.100.0/24") == ""


def test_a_table_is_left_alone_with_all_that_is_in_it(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path, BASE + RULES) as served:
        # Whatever of a table is named: it is changed as one, and so it is left alone as one.
        assert served.call("PauseObject", "st", "chain inet one input", LONG) == ["table inet one"]
        inside(served, "nft", "flush", "ruleset")
        assert not served.call("Reconcile")[0]
        tables = inside(served, "nft", "list", "tables")
        assert "inet two" in tables
        assert "inet one" not in tables
        assert any(name.startswith("table inet one") for name in objects(served))
        ((source, name, _),) = served.get("PausedObjects")
        assert (source, name) == ("netfilter", "table inet one")
        served.call("ResumeObject", "s", "table inet one")
        assert served.call("Reconcile")[0]
        assert "inet one" in inside(served, "nft", "list", "tables")


def test_a_paused_sysctl_keeps_what_a_hand_wrote(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(bus.address, netns, tmp_path, BASE + RULES) as served:
        key = "net.ipv4.conf.veth0.rp_filter"
        assert served.call("PauseObject", "st", key, LONG) == [f"sysctl {key}"]
        inside(served, "sysctl", "-qw", f"{key}=2", "net.ipv4.conf.veth0.arp_ignore=2")
        assert not served.call("Reconcile")[0]
        assert inside(served, "sysctl", "-n", key, "net.ipv4.conf.veth0.arp_ignore").split() == ["2", "1"]
        served.call("ResumeObject", "s", key)
        assert served.call("Reconcile")[0]
        assert inside(served, "sysctl", "-n", key).split() == ["1"]


def test_what_can_not_be_meant_is_refused_by_name(bus: Any, netns: str, tmp_path: Path) -> None:
    with Served(
        bus.address, netns, tmp_path, BASE + '[[route]]\nto = "203.0.113.0/24"\nvia = "10.0.0.1"\n'
    ) as served:
        assert "org.linxd1.Error.NoSuchObject" in served.refused("PauseObject", "", "link eth7", LONG)
        said = served.refused("PauseObject", "", "route", LONG)
        assert "org.freedesktop.DBus.Error.InvalidArgs" in said
        assert "203.0.113.0/24" in said
        assert "org.freedesktop.DBus.Error.InvalidArgs" in served.refused("PauseObject", "", ROUTE, "0")
        assert "org.linxd1.Error.NoSuchObject" in served.refused("ResumeObject", "", ROUTE)
        assert "AccessDenied" in served.refused("PauseObject", "", ROUTE, LONG, uid=NOBODY)
        assert "AccessDenied" in served.refused("ResumeObject", "", ROUTE, uid=NOBODY)
        assert served.get("PausedObjects") == []
