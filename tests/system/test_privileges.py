# SPDX-License-Identifier: MIT
"""What the daemons may do, as systemd and the kernel tell: the promised least."""

from __future__ import annotations

import re

import pytest

from tests.system.bed import Machine
from tests.system.test_service import DECLARED, declare, show, start, unit

NET_ADMIN = "0000000000001000"


@pytest.mark.parametrize(
    ("name", "most"),
    [("linx-reconcile@{}.service", 1.8), ("linxd.service", 3.5), ("linx-netns@{}.service", 1.8)],
)
def test_the_exposure_is_as_promised(machine: Machine, scope: str, name: str, most: float) -> None:
    declare(machine, scope)
    start(machine, scope)
    said = machine.do("systemd-analyze", "security", "--no-pager", name.format(scope))
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= most


def status(machine: Machine, pid: str) -> dict[str, str]:
    lines = machine.do("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_namespaces_daemon_has_one_capability_and_no_way_to_more(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    pid = show(machine, scope, "MainPID")
    has = status(machine, pid)
    assert {has[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {NET_ADMIN}
    user = machine.do("id", "-u", "linxd").strip()
    assert set(has["Uid"].split()) == {user}
    assert has["NoNewPrivs"] == "1"
    assert has["Seccomp"] == "2"
    # It is in the namespace, and of the host's has one socket for requests.
    assert machine.do("readlink", f"/proc/{pid}/ns/net") != machine.do("readlink", "/proc/1/ns/net")


def test_the_hosts_daemon_is_root_with_one_capability(machine: Machine) -> None:
    machine.write("/etc/linxd/host.toml", DECLARED.replace("ip_forward", "ip_default_ttl"))
    # One of the whole kernel is declared as it is: this machine shares it with the one under it.
    panic = machine.do("cat", "/proc/sys/kernel/panic").strip()
    machine.write("/etc/linxd/host.toml.d/kernel.toml", f'[sysctl]\n"kernel.panic" = {panic}\n')
    machine.do("systemctl", "start", "linxd.service")
    try:
        pid = machine.do("systemctl", "show", "-P", "MainPID", "linxd.service").strip()
        has = status(machine, pid)
        assert {has[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {NET_ADMIN}
        assert set(has["Uid"].split()) == {"0"}
        assert has["NoNewPrivs"] == "1"
        assert "192.0.2.1/32" in machine.do("ip", "address", "show", "dev", "lo")
        assert "table inet guard" in machine.do("nft", "list", "ruleset")
        assert machine.do("systemctl", "show", "-P", "StatusText", "linxd.service").startswith("converged: ")
        machine.do("systemctl", "reload", "linxd.service")
    finally:
        machine.do("systemctl", "stop", "linxd.service")
        machine.do("linxctl", "release", "host")
        machine.do("rm", "-r", "/etc/linxd/host.toml", "/etc/linxd/host.toml.d")


def test_reading_takes_no_privilege_and_stopping_does(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    assert machine.do("systemctl", "is-active", unit(scope), user="nobody") == "active\n"
    assert machine.run("systemctl", "stop", unit(scope), user="nobody").returncode != 0
    assert show(machine, scope, "ActiveState") == "active"
    assert machine.run("ls", f"/run/linxd-state/{scope}", user="nobody").returncode != 0
    assert machine.run("linxd", "--scope", scope, "--reload", user="nobody").returncode == 1
