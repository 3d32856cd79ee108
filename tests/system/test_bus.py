# SPDX-License-Identifier: MIT
"""The service on a real system bus with a real polkit: looked at by anybody, asked by those who may."""

from __future__ import annotations

import json
import select
import subprocess
import threading
import time

from tests.system.bed import Machine
from tests.system.test_service import declare, start

RULE = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.linxd1.reconcile" && subject.user == "nobody") { return polkit.Result.YES; }
});
"""


def name(scope: str) -> str:
    return f"org.linxd1.netns.{scope}"


def path(scope: str, source: str = "") -> str:
    return f"/org/linxd1/scope/{scope}" + (f"/{source}" if source else "")


def on_bus(machine: Machine, scope: str) -> None:
    """The name comes soon after the unit is ready."""
    for _ in range(100):
        if name(scope) in machine.do("busctl", "list", "--acquired", "--no-pager"):
            return
        time.sleep(0.05)
    raise AssertionError(machine.do("journalctl", "--no-pager", "-u", f"linx-reconcile@{scope}"))


def watched(machine: Machine, *words: str) -> tuple[subprocess.Popen[str], threading.Timer]:
    """Something that is read line by line; what should have come within a minute will not come."""
    process = machine.start(*words)
    bound = threading.Timer(60, machine.end, [process])
    bound.daemon = True
    bound.start()
    return process, bound


def test_anybody_may_look(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    for user in (None, "nobody"):
        tree = machine.do("busctl", "tree", "--list", name(scope), user=user).split()
        assert path(scope) in tree
        assert path(scope, "rtnl") in tree
        told = machine.do("busctl", "introspect", name(scope), path(scope), user=user)
        for member in (
            "org.linxd1.Scope",
            ".Reconcile",
            ".Plan",
            ".ListObjects",
            ".WaitConverged",
            ".State",
        ):
            assert member in told
        state = machine.do(
            "busctl", "get-property", name(scope), path(scope), "org.linxd1.Scope", "State", user=user
        )
        assert state == 's "converged"\n'
        shown = machine.do(
            "gdbus",
            "introspect",
            "--system",
            "--dest",
            name(scope),
            "--object-path",
            path(scope, "rtnl"),
            user=user,
        )
        assert "HealLatencyUSec" in shown
        assert "Patched(" in shown


def test_verbs_are_polkits_to_allow(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    call = ("busctl", "call", name(scope), path(scope), "org.linxd1.Scope")
    assert machine.do(*call, "Reconcile") == "bu true 0\n"
    for verb, action in (("Reconcile", "reconcile"), ("Resume", "resume"), ("Describe", "inspect")):
        done = machine.run(
            "gdbus", "call", "--system", "--dest", name(scope), "--object-path", path(scope),
            "--method", f"org.linxd1.Scope.{verb}", user="nobody",
        )  # fmt: skip
        assert done.returncode != 0
        assert "org.freedesktop.DBus.Error." in done.stderr
        assert f"org.linxd1.{action}" in done.stderr, done.stderr
    machine.write("/etc/polkit-1/rules.d/10-test.rules", RULE)
    try:
        for _ in range(100):
            done = machine.run(*call, "Reconcile", user="nobody")
            if done.returncode == 0:
                break
            time.sleep(0.05)
        assert done.stdout == "bu true 0\n", done.stderr
        assert machine.run(*call, "Resume", user="nobody").returncode != 0
    finally:
        machine.do("rm", "/etc/polkit-1/rules.d/10-test.rules")


def test_one_object_is_left_alone_by_whom_polkit_lets(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    done = machine.run(
        "gdbus", "call", "--system", "--dest", name(scope), "--object-path", path(scope),
        "--method", "org.linxd1.Scope.PauseObject", "192.0.2.1/32", "600000000", user="nobody",
    )  # fmt: skip
    assert done.returncode != 0
    assert "org.linxd1.pause" in done.stderr, done.stderr
    said = machine.do("linxctl", "pause", scope, "address", "192.0.2.1/32", "--for", "1h")
    assert "address 192.0.2.1/32 dev lo is left alone for 1 h" in said
    machine.do("ip", "-n", scope, "address", "del", "192.0.2.1/32", "dev", "lo")
    call = ("busctl", "call", name(scope), path(scope), "org.linxd1.Scope")
    assert machine.do(*call, "Reconcile") == "bu false 0\n"
    assert "192.0.2.1" not in machine.do("ip", "-n", scope, "address")
    for user in (None, "nobody"):
        assert (
            "left alone: address 192.0.2.1/32 dev lo"
            in machine.run("linxctl", "status", scope, user=user).stdout
        )
    machine.do("linxctl", "resume", scope, "192.0.2.1/32")
    assert machine.do(*call, "Reconcile").startswith("bu true ")
    assert "192.0.2.1" in machine.do("ip", "-n", scope, "address")


def test_what_is_healed_is_told(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    monitor, bound = watched(machine, "gdbus", "monitor", "--system", "--dest", name(scope))
    try:
        assert monitor.stdout is not None
        for line in monitor.stdout:
            if "is owned by" in line:
                break
        machine.do("ip", "-n", scope, "address", "flush", "dev", "lo", "scope", "global")
        for line in monitor.stdout:
            if "org.linxd1.Loop.Patched" in line:
                break
        assert line.startswith(path(scope, "rtnl"))
        assert "address 192.0.2.1/32 dev lo" in line
        assert "'event'" in line
    finally:
        bound.cancel()
        machine.end(monitor)


def test_busctl_monitor_shows_it(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    monitor, bound = watched(machine, "busctl", "monitor", "--json=short", name(scope))
    try:
        assert monitor.stdout is not None
        for attempt in range(100):
            # Whether it listens already it does not say: there is a new drift until it does.
            machine.do(
                "ip",
                "-n",
                scope,
                "address",
                "replace",
                "192.0.2.1/32",
                "dev",
                "lo",
                "metric",
                str(attempt + 5),
            )
            if select.select([monitor.stdout], [], [], 0.1)[0]:
                break
        # Some only say that they listen now: what was healed before is not heard of any more.
        machine.do("ip", "-n", scope, "address", "flush", "dev", "lo", "scope", "global")
        for line in monitor.stdout:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("member") == "Patched":
                break
        assert (message["interface"], message["path"]) == ("org.linxd1.Loop", path(scope, "rtnl"))
    finally:
        bound.cancel()
        machine.end(monitor)


def test_pause_ends_by_itself_and_the_bus_may_go_and_come_back(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    on_bus(machine, scope)
    call = ("busctl", "call", name(scope), path(scope), "org.linxd1.Scope")
    machine.do(*call, "Pause", "t", "400000")
    state = ("busctl", "get-property", name(scope), path(scope), "org.linxd1.Scope", "State")
    assert machine.do(*state) == 's "paused"\n'
    assert machine.do(*call, "WaitConverged", "tt", "0", "10000000") == "b true\n"
    machine.do("systemctl", "restart", "dbus.service")
    on_bus(machine, scope)
    assert machine.do(*state) == 's "converged"\n'


def test_the_manager_starts_and_stops_scopes(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    machine.write("/etc/linxd/host.toml", '[sysctl]\n"net.ipv4.ip_default_ttl" = 63\n')
    machine.do("systemctl", "start", "linxd.service")
    manager = ("org.linxd1", "/org/linxd1", "org.linxd1.Manager")
    try:
        for _ in range(100):
            if "org.linxd1 " in machine.do("busctl", "list", "--acquired", "--no-pager"):
                break
            time.sleep(0.05)
        job = machine.do("busctl", "call", *manager, "StartScope", "s", scope)
        assert job.startswith('o "/org/freedesktop/systemd1/job/')
        on_bus(machine, scope)
        listed = machine.do("busctl", "call", *manager, "ListScopes", user="nobody")
        assert f'"{scope}" ' in listed
        assert f'"linx-reconcile@{scope}.service" "{name(scope)}" "{path(scope)}"' in listed
        assert (
            machine.run("busctl", "call", *manager, "StopScope", "s", scope, user="nobody").returncode != 0
        )
        machine.do("busctl", "call", *manager, "StopScope", "s", scope)
        for _ in range(100):
            if f'"{scope}" ' not in machine.do("busctl", "call", *manager, "ListScopes"):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("it is still listed")
    finally:
        machine.do("systemctl", "stop", "linxd.service")
        machine.do("linxctl", "release", "host")
        machine.do("rm", "/etc/linxd/host.toml")
