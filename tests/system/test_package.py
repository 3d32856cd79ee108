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
from tests.system.follow import Lines
from tests.system.test_service import add_address, addresses, declare, unit

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


def test_the_whole_story_is_as_told(fresh: Machine) -> None:
    package = install.package()
    shutil.copy(package, fresh.root / "root" / package.name)
    fresh.write("/root/story.sh", (bed.ROOT / "packaging/story.sh").read_text(), mode=0o755)
    done = fresh.run("/root/story.sh", "--yes", f"/root/{package.name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nAll as told.\n")


def test_it_is_not_told_twice_at_once(fresh: Machine) -> None:
    """On a machine where linxd is in use nothing is touched."""
    install.install(fresh, install.package())
    fresh.write("/root/story.sh", (bed.ROOT / "packaging/story.sh").read_text(), mode=0o755)
    done = fresh.run("/root/story.sh", "--yes", "/root/linxd.deb")
    assert (done.returncode, done.stderr) == (2, "story.sh: linxd is installed already\n")


def test_purged_with_scopes_that_run(fresh: Machine) -> None:
    before, users = files(fresh), fresh.do("cat", "/etc/passwd", "/etc/group")
    install.install(fresh, install.package())
    assert fresh.do("dpkg-query", "-W", "-f", "${Conffiles}", "linxd") == ""
    for name in ("c1", "c2"):
        fresh.do("ip", "netns", "add", name)
        declare(fresh, name)
    # A namespace that is still being waited for, the host, and what others declared.
    declare(fresh, "c3")
    fresh.write("/etc/linxd/host.toml", '[link.br0]\nkind = "bridge"\naddresses = ["10.7.0.1/24"]\n')
    fresh.write("/run/linxd/netns/c4.toml", "")
    fresh.do("systemctl", "enable", "--now", unit("c1"), unit("c2"), "linxd.service")
    fresh.do("systemctl", "enable", "linx-reconcile.target")
    fresh.do("systemctl", "start", "--no-block", unit("c3"))
    said = fresh.do("apt-get", "purge", "-y", "linxd")
    assert "linxctl release SCOPE" in said
    [line] = [line for line in said.splitlines() if "these scopes stays as it is: " in line]
    assert set(line.partition("is: ")[2].split()) == {"c1", "c2", "host"}

    for name in ("c1", "c2"):
        assert "192.0.2.1/32" in addresses(fresh, name)
        assert "tcp dport 22" in fresh.do("ip", "netns", "exec", name, "nft", "list", "ruleset")
        fresh.do("ip", "netns", "delete", name)
    assert "10.7.0.1/24" in fresh.do("ip", "address", "show", "dev", "br0")
    assert fresh.run("pgrep", "linxd").stdout == ""
    assert fresh.do("systemctl", "list-units", "--all", "--no-legend", "--plain", "linx*") == ""
    assert files(fresh) ^ before == set()
    assert fresh.do("cat", "/etc/passwd", "/etc/group") == users


def test_an_upgrade_restarts_what_runs_and_starts_nothing_else(fresh: Machine) -> None:
    install.install(fresh, install.package())
    for name in ("c1", "c2"):
        fresh.do("ip", "netns", "add", name)
        declare(fresh, name)
    fresh.write("/etc/linxd/host.toml", '[link.br0]\nkind = "bridge"\n')
    fresh.do("systemctl", "enable", unit("c2"))
    fresh.do("systemctl", "start", unit("c1"), "linxd.service")
    running = (unit("c1"), "linxd.service")
    pids = fresh.do("systemctl", "show", "-P", "MainPID", *running)
    with (
        Lines(fresh, "ip", "-o", "monitor", "link") as host,
        Lines(fresh, "ip", "-n", "c1", "-o", "monitor", "link", "address", "route") as monitor,
    ):
        host.heard(lambda number: fresh.do("ip", "link", "set", "br0", "mtu", f"{1400 + number}"))
        fresh.do("ip", "link", "set", "br0", "mtu", "1301")
        host.until(" mtu 1301 ")
        monitor.heard(lambda number: add_address(fresh, "c1", f"203.0.113.{number}"))
        add_address(fresh, "c1", "198.18.0.1")
        monitor.until(r"^local 198\.18\.0\.1 ")
        install.install(fresh, install.next_package())
        add_address(fresh, "c1", "198.18.0.2")
        fresh.do("ip", "link", "set", "br0", "mtu", "1302")
        assert monitor.until(r"198\.18\.0\.2") == []
        assert host.until(" mtu 1302 ") == []
    assert "later" in fresh.do("dpkg-query", "-W", "linxd")
    assert fresh.do("systemctl", "is-active", *running) == "active\nactive\n"
    assert not set(pids.split()) & set(fresh.do("systemctl", "show", "-P", "MainPID", *running).split())
    assert fresh.run("systemctl", "is-active", unit("c2")).stdout == "inactive\n"
    assert fresh.run("systemctl", "is-enabled", unit("c2")).stdout == "enabled\n"


def test_removed_and_purged_later(fresh: Machine) -> None:
    before = files(fresh)
    install.install(fresh, install.package())
    fresh.do("ip", "netns", "add", "c1")
    declare(fresh, "c1")
    fresh.do("systemctl", "start", unit("c1"))
    fresh.do("apt-get", "remove", "-y", "linxd")
    left = files(fresh) - before
    # What is known of what is owned, and what the administrator wrote.
    assert {"/etc/linxd/netns/c1.toml", "/run/linxd-state/c1"} <= left
    assert {path.split("/")[2] for path in left} <= {"linxd", "linxd-state", "linxd-netns"}
    assert fresh.do("sh", "-c", "find /etc /usr /run -xtype l 2>/dev/null | grep linx || true") == ""
    fresh.do("apt-get", "purge", "-y", "linxd")
    fresh.do("ip", "netns", "delete", "c1")
    assert files(fresh) ^ before == set()


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


def own_tests() -> list[tuple[str, dict[str, str]]]:
    """The tests that the package brings for autopkgtest, with the fields of each."""
    text = (bed.ROOT / "packaging/debian/tests/control").read_text()
    told = [
        dict(line.split(": ", 1) for line in stanza.splitlines()) for stanza in text.strip().split("\n\n")
    ]
    names = (each.get("Tests") or each["Features"].removeprefix("test-name=") for each in told)
    return list(zip(names, told, strict=True))


@pytest.mark.parametrize(("name", "told"), [pytest.param(*each, id=each[0]) for each in own_tests()])
def test_the_packages_own_tests_pass(name: str, told: dict[str, str], fresh: Machine) -> None:
    """As autopkgtest runs them: installed is what the test asks for, the tree is not what is tested."""
    install.install(fresh, install.package())
    wanted = [each for each in told["Depends"].split(", ") if each != "@"]
    fresh.do("dpkg-query", "-W", "linxd", *wanted)
    shutil.copytree(bed.ROOT / "packaging/debian/tests", fresh.root / "root/tree/debian/tests")
    command = told.get("Test-Command", f"debian/tests/{name}")
    done = fresh.run(
        "sh", "-c", f"cd /root/tree; AUTOPKGTEST_TMP=$(mktemp -d); export AUTOPKGTEST_TMP; {command}"
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("release", sorted(bed.RELEASES), ids=lambda release: f"debian{release}")
def test_lintian_has_nothing_to_say(release: str) -> None:
    """The lintian of each release, in a tree of its own: what it looks for is not the same."""
    try:
        package, tree = install.package(), bed.tree(release, ("lintian",))
    except bed.Unavailable as error:
        pytest.skip(str(error))
    name = f"linxd-lintian-{os.getpid()}"
    try:
        done = subprocess.run(
            [
                "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe",
                f"--machine={name}", "--volatile=overlay", "-D", tree,
                f"--bind-ro={package}:/srv/{package.name}",
                "lintian", "--pedantic", "--info", "--allow-root", f"/srv/{package.name}",
            ],
            capture_output=True, text=True, timeout=bed.CALL_SECONDS, check=False,
        )  # fmt: skip
    finally:
        # What nspawn leaves behind.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


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
