# SPDX-License-Identifier: MIT
"""A scope's unit from start to end, under a real systemd: what a user types, and what he finds then."""

from __future__ import annotations

import time

import pytest

from tests.system.bed import Machine
from tests.system.follow import Journal, Lines, seconds

DECLARED = """
[link.lo]
addresses = ["192.0.2.1/32"]

[[route]]
to = "198.51.100.0/24"
dev = "lo"

[sysctl]
"net.ipv4.ip_forward" = 1

[netfilter]
ruleset = '''
table inet guard {
  chain input { type filter hook input priority 0; policy accept; tcp dport 22 counter accept; }
}
'''
"""


def unit(scope: str) -> str:
    return f"linx-reconcile@{scope}.service"


def declare(machine: Machine, scope: str, text: str = DECLARED, *, netns: str = "") -> None:
    where = f'[scope]\nnetns = "{netns}"\n' if netns else ""
    machine.write(f"/etc/linxd/netns/{scope}.toml", where + text)


def show(machine: Machine, scope: str, name: str) -> str:
    return machine.do("systemctl", "show", "-P", name, unit(scope)).strip()


def start(machine: Machine, scope: str) -> None:
    machine.do("systemctl", "start", unit(scope))


def drop_in(machine: Machine, name: str, text: str) -> None:
    machine.write(f"/run/systemd/system/{name}.d/test.conf", text)
    machine.do("systemctl", "daemon-reload")


def addresses(machine: Machine, scope: str) -> str:
    return machine.do("ip", "-n", scope, "-o", "address", "show", "dev", "lo")


def add_address(machine: Machine, scope: str, address: str) -> None:
    """Something foreign, to be heard of."""
    machine.do("ip", "-n", scope, "address", "add", f"{address}/32", "dev", "lo")


def nothing_is_left(machine: Machine, scope: str) -> None:
    """Neither a process nor a socket nor a link of a scope that has ended."""
    units = machine.do("systemctl", "list-units", "--all", "--plain", "--no-legend", f"linx-*@{scope}.*")
    active = [line for line in units.splitlines() if " active " in line]
    assert active == []
    assert machine.run("pgrep", "-f", f"scope {scope}$").stdout == ""
    assert machine.run("readlink", f"/run/linxd-netns/{scope}").stdout == ""
    assert machine.run("ls", f"/run/linxd-state/{scope}/control").returncode != 0
    assert machine.do("ls", "/run/linxd-state/.lock") == ""


def test_started_it_is_as_declared_and_stopped_it_stays_so(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    assert show(machine, scope, "ActiveState") == "active"
    assert show(machine, scope, "StatusText").startswith("converged: ")
    assert "192.0.2.1/32" in addresses(machine, scope)
    assert "198.51.100.0/24" in machine.do("ip", "-n", scope, "route")
    assert machine.do("ip", "netns", "exec", scope, "cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert "tcp dport 22" in machine.do("ip", "netns", "exec", scope, "nft", "list", "ruleset")
    machine.do("systemctl", "stop", unit(scope))
    assert show(machine, scope, "ActiveState") == "inactive"
    assert show(machine, scope, "Result") == "success"
    assert "192.0.2.1/32" in addresses(machine, scope)
    assert "tcp dport 22" in machine.do("ip", "netns", "exec", scope, "nft", "list", "ruleset")
    nothing_is_left(machine, scope)


def test_a_restart_while_converged_is_silent(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    inside = ("ip", "netns", "exec", scope)
    with (
        Lines(machine, *inside, "ip", "monitor", "all") as links,
        Lines(machine, *inside, "nft", "monitor") as rules,
    ):
        links.heard(lambda number: add_address(machine, scope, f"203.0.113.{number}"))
        rules.heard(lambda number: machine.do(*inside, "nft", "add", "table", "ip", f"heard{number}"))
        # Of each, what was still to be said of the beginning; then the restart and what is heard of it.
        add_address(machine, scope, "198.18.0.1")
        machine.do(*inside, "nft", "add", "table", "ip", "before")
        links.until(r"local 198\.18\.0\.1 ")
        rules.until("add table ip before")
        rules.until("new generation")
        machine.do("systemctl", "restart", unit(scope))
        add_address(machine, scope, "198.18.0.2")
        machine.do(*inside, "nft", "add", "table", "ip", "after")
        assert links.until(r"198\.18\.0\.2") == []
        assert rules.until("add table ip after") == []


def test_a_reload_returns_when_what_was_read_is_in_force(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    declare(machine, scope, DECLARED.replace("192.0.2.1", "192.0.2.2"))
    machine.do("systemctl", "reload", unit(scope))
    assert "192.0.2.2/32" in addresses(machine, scope)
    assert "192.0.2.1/32" not in addresses(machine, scope)
    assert show(machine, scope, "ActiveState") == "active"


def test_a_broken_file_fails_the_reload_and_changes_nothing(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    declare(machine, scope, DECLARED.replace("addresses", "adresses"))
    with Journal(machine) as journal:
        done = machine.run("systemctl", "reload", unit(scope))
        assert done.returncode != 0
        assert "journalctl" in done.stderr
        said = journal.of(unit(scope), "reload failed")["MESSAGE"]
        assert f"/etc/linxd/netns/{scope}.toml:3" in said
        assert 'did you mean "addresses"?' in said
        assert show(machine, scope, "ActiveState") == "active"
        assert "192.0.2.1/32" in addresses(machine, scope)
        # The old declaration is not only left alone, it is kept.
        machine.do("ip", "-n", scope, "address", "delete", "192.0.2.1/32", "dev", "lo")
        journal.of(unit(scope), r"restored (1 )?address")
    assert "192.0.2.1/32" in addresses(machine, scope)
    declare(machine, scope)
    machine.do("systemctl", "reload", unit(scope))


def test_a_broken_file_at_start_is_a_failure_that_is_not_repeated(machine: Machine, scope: str) -> None:
    declare(machine, scope, "[link.lo]\nadresses = []\n")
    done = machine.run("systemctl", "start", unit(scope))
    assert done.returncode != 0
    assert show(machine, scope, "ExecMainStatus") == "78"
    assert show(machine, scope, "ActiveState") == "failed"
    assert show(machine, scope, "NRestarts") == "0"
    said = machine.do("journalctl", "-u", unit(scope), "-o", "cat", "--no-pager")
    assert 'did you mean "addresses"?' in said
    assert "192.0.2.1" not in addresses(machine, scope)


def test_without_a_file_it_says_where_it_looked(machine: Machine, scope: str) -> None:
    done = machine.run("systemctl", "start", unit(scope))
    assert done.returncode != 0
    assert show(machine, scope, "ExecMainStatus") == "78"
    said = machine.do("journalctl", "-u", unit(scope), "-o", "cat", "--no-pager")
    assert f"/etc/linxd/netns/{scope}.toml" in said


def test_a_namespace_that_is_not_there_is_waited_for(machine: Machine, scope: str) -> None:
    machine.do("ip", "netns", "delete", scope)
    declare(machine, scope)
    helper = f"linx-netns@{scope}.service"
    with Journal(machine) as journal:
        machine.do("systemctl", "start", "--no-block", unit(scope))
        journal.of(unit(scope), f"waits for /run/netns/{scope}")
        assert machine.do("systemctl", "show", "-P", "StatusText", helper).startswith("waits for ")
        machine.do("ip", "netns", "add", scope)
        journal.of(unit(scope), "^Started ")
    assert "192.0.2.1/32" in addresses(machine, scope)


def test_a_namespace_that_does_not_come_is_waited_for_no_longer_than_said(
    machine: Machine, scope: str
) -> None:
    machine.do("ip", "netns", "delete", scope)
    declare(machine, scope)
    drop_in(
        machine,
        f"linx-netns@{scope}.service",
        "[Service]\nExecStart=\nExecStart=/usr/lib/linxd/netns-link %i --wait 0.1\n",
    )
    done = machine.run("systemctl", "start", unit(scope))
    assert done.returncode != 0
    assert show(machine, scope, "ActiveState") == "inactive"
    # As root, for whom the log of a unit includes what privileged helpers say of it.
    said = machine.do("journalctl", "-u", unit(scope), "-o", "cat", "--no-pager")
    assert f"/run/netns/{scope} is not there" in said
    nothing_is_left(machine, scope)


def test_the_end_of_the_namespace_is_the_end_of_the_unit(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    machine.do("ip", "link", "add", f"{scope}-host", "type", "veth", "peer", "name", "eth0", "netns", scope)
    start(machine, scope)
    with Journal(machine) as journal:
        machine.do("ip", "netns", "delete", scope)
        deleted = time.monotonic()
        ended = journal.of(unit(scope), "Deactivated successfully")
        assert seconds(ended) - deleted < 2
    assert show(machine, scope, "ActiveState") == "inactive"
    assert show(machine, scope, "Result") == "success"
    assert machine.run("ip", "link", "show", f"{scope}-host").returncode != 0
    nothing_is_left(machine, scope)


def test_the_hosts_end_of_a_link_is_made_and_healed_and_goes_with_the_namespace(
    machine: Machine, scope: str
) -> None:
    bridge, end = f"br-{scope}", f"{scope}-eth0"
    peer = f'peer = {{ name = "{end}", scope = "host", master = "{bridge}" }}'
    declare(machine, scope, f'[link.eth0]\nkind = "veth"\n{peer}\naddresses = ["10.0.0.5/24"]\n')
    machine.do("ip", "link", "add", bridge, "type", "bridge")
    try:
        start(machine, scope)
        assert f"master {bridge}" in machine.do("ip", "link", "show", end)
        with Journal(machine) as journal:
            machine.do("ip", "link", "delete", end)
            journal.of(unit(scope), "restored 1 link and 1 address")
            assert f"master {bridge}" in machine.do("ip", "link", "show", end)
            machine.do("ip", "netns", "delete", scope)
            journal.of(unit(scope), "Deactivated successfully")
        assert machine.run("ip", "link", "show", end).returncode != 0
        nothing_is_left(machine, scope)
    finally:
        machine.do("ip", "link", "delete", bridge)


def test_a_namespace_under_the_same_name_is_taken_up_at_once(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    before = show(machine, scope, "MainPID")
    with Journal(machine) as journal:
        machine.do("sh", "-c", f"ip netns delete {scope}; ip netns add {scope}")
        journal.of(unit(scope), "was replaced by another one")
        journal.of(unit(scope), "^Started ")
    assert show(machine, scope, "ActiveState") == "active"
    assert show(machine, scope, "MainPID") != before
    assert "192.0.2.1/32" in addresses(machine, scope)


@pytest.mark.parametrize("way", ["SIGSTOP", "a pass that hangs"])
def test_what_hangs_is_killed_and_the_next_one_puts_things_right(
    machine: Machine, scope: str, way: str
) -> None:
    declare(machine, scope, DECLARED.replace("[link.lo]", '[scope]\nresync = "1s"\n[link.lo]'))
    machine.write("/usr/local/lib/linxd-hangs.py", HANGS)
    drop_in(
        machine,
        unit(scope),
        "[Service]\nWatchdogSec=1s\nExecStart=\n"
        "ExecStart=/usr/bin/python3 /usr/local/lib/linxd-hangs.py --scope %i\n",
    )
    start(machine, scope)
    before = show(machine, scope, "MainPID")
    with Journal(machine) as journal:
        if way == "SIGSTOP":
            machine.do("kill", "-STOP", before)
        else:
            machine.do("touch", f"/run/linxd-state/{scope}/hang")
        machine.do("ip", "-n", scope, "address", "delete", "192.0.2.1/32", "dev", "lo")
        journal.of(unit(scope), "Watchdog timeout")
        machine.do("rm", "-f", f"/run/linxd-state/{scope}/hang")
        journal.of(unit(scope), "Failed with result 'watchdog'")
        journal.of(unit(scope), "^Started ")
    assert show(machine, scope, "MainPID") not in (before, "0")
    assert "192.0.2.1/32" in addresses(machine, scope)


HANGS = """
import asyncio, os, sys
from linxd.cli.daemon import main
from linxd.sources.rtnl.source import RtnlSource

passes = RtnlSource.reconcile

async def reconcile(self, work):
    if os.path.exists(f"/run/linxd-state/{sys.argv[2]}/hang"):
        await asyncio.Event().wait()
    return await passes(self, work)

RtnlSource.reconcile = reconcile
sys.exit(main(sys.argv[1:]))
"""


def test_killed_it_comes_back_and_writes_nothing(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    with (
        Lines(machine, "ip", "-n", scope, "monitor", "link", "address", "route") as monitor,
        Journal(machine) as journal,
    ):
        monitor.heard(lambda number: add_address(machine, scope, f"203.0.113.{number}"))
        add_address(machine, scope, "198.18.0.1")
        monitor.until(r"local 198\.18\.0\.1 ")
        machine.do("kill", "-KILL", show(machine, scope, "MainPID"))
        journal.of(unit(scope), "^Started ")
        add_address(machine, scope, "198.18.0.2")
        assert monitor.until(r"198\.18\.0\.2") == []
    assert show(machine, scope, "StatusText").startswith("converged: ")


def test_without_a_bus_it_runs_on(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    machine.do("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        start(machine, scope)
        with Journal(machine) as journal:
            machine.do("ip", "-n", scope, "address", "delete", "192.0.2.1/32", "dev", "lo")
            journal.of(unit(scope), "restored address")
        machine.do("systemctl", "reload", unit(scope))
        machine.do("systemctl", "stop", unit(scope))
        assert show(machine, scope, "Result") == "success"
    finally:
        machine.do("systemctl", "start", "dbus.socket")


def test_what_runs_needs_none_of_its_files(machine: Machine, scope: str) -> None:
    """As during an upgrade: everything was read before the unit was ready."""
    declare(machine, scope)
    start(machine, scope)
    modules = "/usr/lib/python3/dist-packages/linxd"
    machine.do("mv", modules, f"{modules}.away")
    try:
        with Journal(machine) as journal:
            machine.do("ip", "-n", scope, "address", "delete", "192.0.2.1/32", "dev", "lo")
            journal.of(unit(scope), "restored address")
            declare(machine, scope, DECLARED.replace("192.0.2.1", "192.0.2.2") + NEIGHBOUR)
            machine.do("kill", "-HUP", show(machine, scope, "MainPID"))
            journal.of(unit(scope), "reloaded: ")
        assert "192.0.2.2/32" in addresses(machine, scope)
        machine.do("systemctl", "stop", unit(scope))
        assert show(machine, scope, "Result") == "success"
    finally:
        machine.do("mv", f"{modules}.away", modules)


NEIGHBOUR = """
[link.veth9]
kind = "veth"
peer = { name = "veth8" }

[[neighbour]]
address = "10.0.0.9"
dev = "veth9"
lladdr = "02:00:00:00:00:09"

[[rule]]
from = "10.0.0.0/24"
table = 100
priority = 1000
"""


def test_many_at_once(machine: Machine) -> None:
    names = [f"many{number}" for number in range(20)]
    for name in names:
        machine.do("ip", "netns", "add", name)
        declare(machine, name)
    try:
        machine.do("systemctl", "start", *map(unit, names))
        assert set(machine.do("systemctl", "is-active", *map(unit, names)).split()) == {"active"}
        assert all("192.0.2.1/32" in addresses(machine, name) for name in names)
        machine.do("systemctl", "stop", *map(unit, names))
        for name in names:
            nothing_is_left(machine, name)
    finally:
        for name in names:
            machine.do("ip", "netns", "delete", name)


def test_systemd_finds_nothing_wrong_with_the_units(machine: Machine) -> None:
    known = machine.do("sh", "-c", "cd /usr/lib/systemd/system && ls linx*").split()
    units = [name.replace("@.", "@c1.") for name in known]
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_on_stop_remove_acts_on_a_stop_and_not_on_a_restart(machine: Machine, scope: str) -> None:
    declare(machine, scope, '[scope]\non-stop = "remove"\n' + DECLARED)
    start(machine, scope)
    with Lines(machine, "ip", "-n", scope, "monitor", "address", "route") as monitor:
        monitor.heard(lambda number: add_address(machine, scope, f"203.0.113.{number}"))
        add_address(machine, scope, "198.18.0.1")
        monitor.until(r"local 198\.18\.0\.1 ")
        machine.do("systemctl", "restart", unit(scope))
        add_address(machine, scope, "198.18.0.2")
        assert monitor.until(r"198\.18\.0\.2") == []
    machine.do("systemctl", "stop", unit(scope))
    print(machine.do("journalctl", "-u", unit(scope), "--no-pager", "-o", "short-precise"))
    assert "192.0.2.1/32" not in addresses(machine, scope)
    assert "198.18.0.1/32" in addresses(machine, scope)
    assert "198.51.100.0/24" not in machine.do("ip", "-n", scope, "route")
    assert machine.do("ip", "netns", "exec", scope, "nft", "list", "ruleset") == ""
    assert machine.do("ip", "netns", "exec", scope, "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    nothing_is_left(machine, scope)


def test_the_namespace_of_a_unit_and_of_a_process(machine: Machine, scope: str) -> None:
    machine.do("ip", "netns", "delete", scope)
    box = f"box-{scope}.scope"
    machine.do(
        "sh", "-c",
        f"systemd-run --scope --unit={box} unshare -n sleep infinity >/dev/null 2>&1 & "
        f"until pgrep -f '^sleep infinity'; do :; done",
    )  # fmt: skip
    pid = machine.do("pgrep", "-f", "^sleep infinity").strip()
    try:
        for netns in (f"unit:{box}", f"pid:{pid}"):
            declare(machine, scope, netns=netns)
            start(machine, scope)
            assert "192.0.2.1/32" in machine.do("nsenter", "-t", pid, "-n", "ip", "address")
            if netns.startswith("unit"):
                machine.do("systemctl", "stop", unit(scope))
        with Journal(machine) as journal:
            machine.do("kill", pid)
            journal.of(unit(scope), "Deactivated successfully")
        assert show(machine, scope, "ActiveState") == "inactive"
        nothing_is_left(machine, scope)
    finally:
        machine.run("systemctl", "kill", "--signal=KILL", box)


def test_a_path_of_its_own_and_the_hosts_namespace_which_is_refused(machine: Machine, scope: str) -> None:
    other = f"{scope}-elsewhere"
    machine.do("ip", "netns", "add", other)
    try:
        declare(machine, scope, netns=f"/run/netns/{other}")
        start(machine, scope)
        assert "192.0.2.1/32" in addresses(machine, other)
        assert "192.0.2.1/32" not in addresses(machine, scope)
        machine.do("systemctl", "stop", unit(scope))
        declare(machine, scope, netns="pid:1")
        assert machine.run("systemctl", "start", unit(scope)).returncode != 0
        said = machine.do("journalctl", "-u", unit(scope), "-o", "cat", "--no-pager")
        assert "pid:1 is the host's own network namespace, which only the scope host may touch" in said
        assert "192.0.2.1/32" not in machine.do("ip", "address")
        nothing_is_left(machine, scope)
    finally:
        machine.do("ip", "netns", "delete", other)


def test_the_hosts_scope_is_no_namespaces(machine: Machine) -> None:
    machine.do("ip", "netns", "add", "host")
    machine.write("/etc/linxd/host.toml", DECLARED)
    try:
        assert machine.run("systemctl", "start", unit("host")).returncode != 0
        said = machine.do("journalctl", "-u", unit("host"), "-o", "cat", "--no-pager")
        assert "the host's own namespace is kept by linxd.service" in said
        assert "192.0.2.1/32" not in addresses(machine, "host")
    finally:
        machine.do("rm", "/etc/linxd/host.toml")
        machine.do("ip", "netns", "delete", "host")


def test_the_target_stops_them_all(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    machine.do("systemctl", "enable", unit(scope))
    try:
        machine.do("systemctl", "start", "linx-reconcile.target")
        assert show(machine, scope, "ActiveState") == "active"
        with Journal(machine) as journal:
            machine.do("systemctl", "stop", "linx-reconcile.target")
            journal.of(unit(scope), "Deactivated successfully")
        assert show(machine, scope, "ActiveState") == "inactive"
    finally:
        machine.do("systemctl", "disable", unit(scope))
