# SPDX-License-Identifier: MIT
"""The package on a fresh machine: installing starts nothing, upgrades are silent, purging leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import bed, install
from tests.system.bed import Machine
from tests.system.follow import Journal, Lines
from tests.system.test_service import add_address, addresses, declare, show, unit

# What a machine writes by itself, and what keeps account of packages.
KEPT = (
    "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/var/lib/systemd/catalog", "/tmp", "/root",
    "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/.pwd.lock", "/run/systemd",
    "/run/log", "/run/udev", "/run/dbus", "/run/netns", "/run/lock", "/var/lib/private",
    "/run/agetty.reload", "/run/credentials/console-getty.service",
)  # fmt: skip


@pytest.fixture(params=sorted(bed.RELEASES), ids=lambda release: f"debian{release}")
def fresh(request: pytest.FixtureRequest, boot: Callable[..., Machine]) -> Iterator[Machine]:
    """A machine that has never heard of linxd."""
    try:
        install.package()
        with boot(request.param) as machine:
            yield machine
    except bed.Unavailable as error:
        pytest.skip(str(error))


def files(machine: Machine) -> set[str]:
    found = machine.do("find", "/", "/run", "-xdev", "-not", "-name", "*.pyc").splitlines()
    return {path for path in found if not path.startswith(KEPT) and not path.endswith("__pycache__")}


def network(machine: Machine) -> str:
    said = [machine.do("ip", "-o", *words.split()) for words in ("link", "address", "route", "rule")]
    sysctls = machine.do(
        "sh", "-c", "sysctl -a -r '^net[.]' 2>/dev/null | grep -v 'tcp_mem\\|_avg\\|count\\|uuid'"
    )
    return "".join(said) + machine.do("nft", "list", "ruleset") + sysctls


def test_from_installation_to_purge(fresh: Machine) -> None:
    before, users, net = files(fresh), fresh.do("cat", "/etc/passwd", "/etc/group"), network(fresh)

    # Installing changes nothing that was there, enables nothing and starts nothing.
    install.install(fresh, install.package())
    assert network(fresh) == net
    known = fresh.do("systemctl", "list-unit-files", "--no-legend", "linx*").split("\n")
    assert {line.split()[1] for line in known if line} == {"disabled", "static"}
    assert fresh.do("systemctl", "list-units", "--all", "--no-legend", "--plain", "linx*") == ""
    assert fresh.run("pgrep", "linxd").stdout == ""
    for page in ("linxd.8", "linxctl.1", "linxd.toml.5"):
        assert fresh.run("sh", "-c", f"ls /usr/share/man/man*/{page}.gz").returncode == 0

    # A scope is started, sabotaged, healed.
    fresh.do("ip", "netns", "add", "c1")
    declare(fresh, "c1")
    assert fresh.do("linxctl", "check") != ""
    fresh.do("systemctl", "enable", "--now", unit("c1"))
    with Journal(fresh) as journal:
        fresh.do("ip", "-n", "c1", "address", "delete", "192.0.2.1/32", "dev", "lo")
        journal.of(unit("c1"), "restored address 192.0.2.1/32")
    assert network(fresh) == net

    # An upgrade restarts what runs, and nobody notices.
    pid = show(fresh, "c1", "MainPID")
    with Lines(fresh, "ip", "-n", "c1", "monitor", "link", "address", "route") as monitor:
        monitor.heard(lambda number: add_address(fresh, "c1", f"203.0.113.{number}"))
        add_address(fresh, "c1", "198.18.0.1")
        monitor.until(r"local 198\.18\.0\.1 ")
        install.install(fresh, install.next_package())
        add_address(fresh, "c1", "198.18.0.2")
        assert monitor.until(r"198\.18\.0\.2") == []
    assert show(fresh, "c1", "ActiveState") == "active"
    assert show(fresh, "c1", "MainPID") not in ("0", pid)
    assert fresh.run("systemctl", "is-active", "linxd.service").stdout == "inactive\n"

    # Removing leaves what the kernel has, and says so.
    said = fresh.do("apt-get", "remove", "-y", "linxd")
    assert "linxctl release SCOPE" in said
    assert "these scopes stays as it is: c1" in said
    assert fresh.run("pgrep", "linxd").stdout == ""
    assert "192.0.2.1/32" in addresses(fresh, "c1")
    assert fresh.run("ls", "/etc/linxd/netns/c1.toml").returncode == 0

    # Purging leaves nothing.
    fresh.do("apt-get", "purge", "-y", "linxd")
    fresh.do("ip", "netns", "delete", "c1")
    assert files(fresh) - before == set()
    assert before - files(fresh) == set()
    assert fresh.do("cat", "/etc/passwd", "/etc/group") == users
    assert network(fresh) == net
    assert fresh.run("systemctl", "--failed", "--no-legend", "--plain", "linx*").stdout == ""


def test_what_was_made_can_be_released_before_it_is_removed(fresh: Machine) -> None:
    install.install(fresh, install.package())
    fresh.do("ip", "netns", "add", "c1")
    declare(fresh, "c1")
    fresh.do("systemctl", "start", unit("c1"))
    assert "192.0.2.1" in addresses(fresh, "c1")
    fresh.do("systemctl", "stop", unit("c1"))
    fresh.do("linxctl", "release", "c1")
    assert "192.0.2.1" not in addresses(fresh, "c1")
    assert fresh.do("ip", "netns", "exec", "c1", "nft", "list", "ruleset") == ""
    assert "stays as it is" not in fresh.do("apt-get", "purge", "-y", "linxd")


def test_the_packages_own_test_passes(fresh: Machine) -> None:
    install.install(fresh, install.package())
    fresh.write("/root/smoke", (bed.ROOT / "packaging/debian/tests/smoke").read_text(), mode=0o755)
    fresh.do("/root/smoke")


def test_lintian_has_nothing_to_say() -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    try:
        package = install.package()
    except bed.Unavailable as error:
        pytest.skip(str(error))
    done = subprocess.run(
        ["lintian", "--pedantic", "--info", "--allow-root", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_same_tree_makes_the_same_package(tmp_path: Path) -> None:
    try:
        install.package()
    except bed.Unavailable as error:
        pytest.skip(str(error))
    # A copy: somebody may be at work on the tree.
    tree = tmp_path / "tree"
    for part in install.PARTS:
        if (bed.ROOT / part).is_dir():
            shutil.copytree(bed.ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (bed.ROOT / part).exists():
            shutil.copy(bed.ROOT / part, tree / part)
    made = []
    for number, (zone, umask) in enumerate((("UTC", 0o022), ("Asia/Kathmandu", 0o077))):
        out = tmp_path / str(number)
        subprocess.run(
            [tree / "packaging/build", out],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=install.BUILD_SECONDS,
            env={**os.environ, "TZ": zone, "LC_ALL": "C.UTF-8"},
            umask=umask,
        )
        made.append(next(out.iterdir()).read_bytes())
    assert made[0] == made[1]
