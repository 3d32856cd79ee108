# SPDX-License-Identifier: MIT
"""Beside NetworkManager, which removes what others put on a link when it sets that up or leaves it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.system import pages
from tests.system.bed import MASKED, Machine
from tests.system.boxes import eventually
from tests.system.follow import Journal, Lines

DROP_IN = "/etc/NetworkManager/conf.d/linxd.conf"
QUIET = "[main]\nno-auto-default=*\n[keyfile]\nunmanaged-devices=interface-name:far*\n"
"""It takes up links that have a profile, and has been told something already."""
BRIDGE = '[link.up0]\nkind = "bridge"\naddresses = ["10.7.0.1/24"]\n'
PORT = """
[link.port{0}]
addresses = ["10.{1}.0.9/24"]
[[route]]
to = "10.9.{0}.0/24"
via = "10.{1}.0.1"
dev = "port{0}"
"""
PORTS = {"port0": 6, "port1": 5}


def port(number: int) -> str:
    """What is declared on a link of which NetworkManager has a profile."""
    return PORT.format(number, PORTS[f"port{number}"])


@pytest.fixture
def manager(machine: Machine) -> Iterator[Machine]:
    """NetworkManager runs, and has set up two links as its profiles say."""
    machine.do("systemctl", "unmask", *MASKED)
    machine.write("/etc/NetworkManager/conf.d/10-quiet.conf", QUIET)
    for name in PORTS:
        end = name.replace("port", "far")
        machine.do("ip", "link", "add", name, "type", "veth", "peer", "name", end)
        machine.do("ip", "link", "set", end, "up")
    begin(machine, "start")
    for name, net in PORTS.items():
        profile(machine, name, f"10.{net}.0.2/24")
        machine.do("nmcli", "connection", "up", name)
    yield machine
    machine.run("linxctl", "release", "host")
    machine.run("systemctl", "stop", "linxd.service", "NetworkManager.service")
    machine.do("sh", "-c", "rm -rf /etc/NetworkManager/conf.d/* /etc/NetworkManager/system-connections/*")
    machine.do("rm", "-rf", "/var/lib/NetworkManager", "/run/NetworkManager", "/etc/linxd/host.toml")
    machine.do("systemctl", "mask", *MASKED)
    # Within a minute it is started more often than a user would do it.
    machine.run("systemctl", "reset-failed", "linxd.service")
    for link in (*PORTS, "up0"):
        machine.run("ip", "link", "delete", link)


def begin(machine: Machine, verb: str) -> None:
    """Start it, and wait until it answers: it has its name before that."""
    machine.do("systemctl", verb, "NetworkManager.service")
    machine.do("nm-online", "--wait-for-startup", "--quiet")


def profile(machine: Machine, link: str, address: str) -> None:
    """Have NetworkManager know what to make of a link."""
    machine.do(
        "nmcli", "connection", "add", "type", "ethernet", "con-name", link, "ifname", link,
        "autoconnect", "no", "ipv4.method", "manual", "ipv4.addresses", address, "ipv6.method", "disabled",
    )  # fmt: skip


def warning(journal: Journal) -> list[str]:
    """The next warning that names it: the links, and the lines of the file."""
    entry = journal.of("linxd.service", "^host: NetworkManager manages ")
    assert entry["PRIORITY"] == "4"
    text, *lines = str(entry["MESSAGE"]).splitlines()
    found = re.fullmatch(
        r"host: NetworkManager manages (.+), and removes what others put on a link "
        f"when it sets that up or leaves it, unless {DROP_IN} says",
        text,
    )
    assert found, text
    return [found[1], *(line.strip() for line in lines)]


def states(machine: Machine) -> dict[str, str]:
    """What it says of each link."""
    lines = machine.do("nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines()
    return dict(line.split(":", 1) for line in lines)


def unmanaged(machine: Machine, *links: str) -> None:
    """Fails unless it leaves these alone."""
    assert {link: states(machine)[link] for link in links} == dict.fromkeys(links, "unmanaged")


def shown(machine: Machine, link: str) -> None:
    """Fails unless it does no more than show that others have set this up."""
    assert states(machine)[link] == "connected (externally)"


def has(machine: Machine, number: int) -> None:
    """Fails unless all that is declared on a port is there."""
    net = PORTS[f"port{number}"]
    shown = machine.do("ip", "address", "show", "dev", f"port{number}")
    assert f"10.{net}.0.9/24" in shown
    route = f"10.9.{number}.0/24 via 10.{net}.0.1 proto 76"
    assert route in machine.do("ip", "route", "show", "dev", f"port{number}")


def test_links_that_it_manages_are_said_with_the_file_that_ends_it(manager: Machine) -> None:
    """What it only shows, as our bridge, is not among them; nor, afterwards, what the file names."""
    manager.write("/etc/linxd/host.toml", BRIDGE + port(0))
    with Journal(manager) as journal:
        manager.do("systemctl", "start", "linxd.service")
        names, *lines = warning(journal)
        assert names == "port0"
        assert lines == ["[keyfile]", "unmanaged-devices+=interface-name:port0;interface-name:up0"]
        shown(manager, "up0")

        # It drops what its profile put there, and ours on the way: we put that back.
        manager.write(DROP_IN, "\n".join(lines) + "\n")
        manager.do("nmcli", "general", "reload")
        eventually(lambda: unmanaged(manager, "port0", "up0", "far0", "far1"))
        eventually(lambda: has(manager, 0))

        manager.write("/etc/linxd/host.toml", BRIDGE + port(0) + port(1))
        manager.do("systemctl", "reload", "linxd.service")
        names, *lines = warning(journal)
        assert names == "port1"
        assert lines[1].split("=")[1].split(";") == [
            "interface-name:port0",
            "interface-name:port1",
            "interface-name:up0",
        ]
        begin(manager, "restart")
        manager.do("systemctl", "restart", "linxd.service")
        assert warning(journal)[0] == "port1"
        unmanaged(manager, "port0", "up0", "far0", "far1")


def test_what_it_takes_up_later_is_said_then(manager: Machine) -> None:
    manager.do("nmcli", "connection", "down", "port1")
    manager.do("ip", "address", "add", "10.5.0.8/24", "dev", "port1")
    eventually(lambda: shown(manager, "port1"))
    # No more than that it is up: an address of ours that comes back while it is being removed ends 1.52.
    manager.write("/etc/linxd/host.toml", port(0) + "[link.port1]\nup = true\n")
    with Journal(manager) as journal:
        manager.do("systemctl", "start", "linxd.service")
        assert warning(journal)[0] == "port0"
        manager.do("nmcli", "connection", "up", "port1")
        assert warning(journal)[0] == "port0, port1"


@pytest.mark.parametrize("told", [False, True])
def test_told_so_it_leaves_alone_what_is_declared(manager: Machine, told: bool) -> None:
    """And untold it does not, which linxd heals: else there would be nothing to warn of."""
    manager.write("/etc/linxd/host.toml", port(0))
    if told:
        manager.write(DROP_IN, "[keyfile]\nunmanaged-devices+=interface-name:port0\n")
        manager.do("nmcli", "general", "reload")
        eventually(lambda: unmanaged(manager, "port0"))
    manager.do("systemctl", "start", "linxd.service")
    eventually(lambda: has(manager, 0))
    poke = ("ip", "address", "add", "dev", "far1")
    with Lines(manager, "ip", "monitor", "address") as addresses:
        addresses.heard(lambda number: manager.do(*poke, f"10.4.{number}.1/32"))
        done = manager.run("nmcli", "connection", "up", "port0")
        # Untold it may end of what we put back while it is being removed (1.52), and is started again.
        assert done.returncode or not told, done.stderr
        manager.do(*poke, "10.4.255.1/32")
        before = addresses.until(r"10\.4\.255\.1/32")
    removed = [line for line in before if line.startswith("Deleted") and "10.6.0.9/24" in line]
    assert bool(removed) is not told
    eventually(lambda: has(manager, 0))


def test_one_that_does_not_answer_holds_up_nothing(manager: Machine) -> None:
    manager.write("/etc/linxd/host.toml", port(0))
    manager.do("systemctl", "kill", "--signal=STOP", "NetworkManager.service")
    try:
        with Journal(manager) as journal:
            manager.do("systemctl", "start", "linxd.service")
            manager.do("systemctl", "reload", "linxd.service")
            has(manager, 0)
            journal.of("linxd.service", "^host: reloaded: converged")
            manager.do("systemctl", "kill", "--signal=CONT", "NetworkManager.service")
            assert warning(journal)[0] == "port0"
    finally:
        manager.run("systemctl", "kill", "--signal=CONT", "NetworkManager.service")


def test_the_page_says_it_in_the_same_words(manager: Machine) -> None:
    page = pages.ROOT / "docs/howto/coexistence.md"
    [written] = [
        step
        for step in pages.steps(page.read_text())
        if isinstance(step, pages.File) and step.path == DROP_IN
    ]
    manager.write(DROP_IN, written.text.replace("interface-name:br0", "interface-name:port0"))
    manager.do("nmcli", "general", "reload")
    eventually(lambda: unmanaged(manager, "port0", "far0", "far1"))
    assert states(manager)["port1"] == "connected"
