# SPDX-License-Identifier: MIT
"""A state directory that is full, read-only, or holds rubbish: it is said, what is ours already is healed
all the same, and nothing foreign is ever touched because of it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.bed import Daemon, Namespace, run, until
from tests.torture.fuzzer import furnish
from tests.torture.seen import foreign

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

DECLARED = '''
[scope]
resync = "1s"
[link.b0]
kind = "bridge"
addresses = ["10.5.0.1/24"]
[link.v0]
kind = "vxlan"
id = 100
dstport = 4789
[[route]]
to = "192.0.2.0/24"
via = "10.5.0.9"
[[rule]]
from = "10.1.0.0/16"
table = 100
[[neighbour]]
address = "10.5.0.9"
dev = "b0"
lladdr = "02:00:00:00:00:09"
[sysctl]
"net.ipv4.ip_forward" = 1
"net.core.somaxconn" = 300
[netfilter]
ruleset = """
table inet ours {
	chain c { type filter hook input priority 0; counter; }
}
"""
'''
MORE = "".join(f'[[route]]\nto = "203.0.113.{n}"\nvia = "10.5.0.9"\n' for n in range(250))
"""More than fits into the last page of a ledger that is full."""
DRIFTS = (
    "ip address del 10.5.0.1/24 dev b0",
    "ip route del 192.0.2.0/24",
    "ip rule del from 10.1.0.0/16",
    "ip neigh del 10.5.0.9 dev b0",
    "ip link del b0",
    "sysctl -qw net.core.somaxconn=100",
    "nft delete table inet ours",
)


@contextlib.contextmanager
def small(place: Path) -> Iterator[Path]:
    """A file system of 64 kB for the state."""
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "linxd-test", str(place))
    try:
        yield place
    finally:
        run("umount", "-l", str(place))


def fill(place: Path) -> Path:
    """Take all the room that is left."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def shown(namespace: Namespace) -> str:
    """What is declared, as far as it is there."""
    return namespace.sh(
        "ip -o -4 address show dev b0; ip route show proto 76 | grep -v 203.0.113; ip rule show proto 76; "
        "ip neigh show nud permanent dev b0; sysctl net.core.somaxconn net.ipv4.ip_forward;"
        "nft -s list table inet ours",
        check=False,
    ).replace(" linkdown", "")


def written(directory: Path, text: str) -> Path:
    file = directory / "scope.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def unnumbered(text: str) -> str:
    """Without indices."""
    return "\n".join(line.partition(": ")[2] or line for line in text.splitlines())


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        furnish(one)
        yield one


def test_what_is_ours_is_healed_when_the_ledger_is_full(namespace: Namespace, tmp_path: Path) -> None:
    with small(tmp_path / "state") as state:
        file = written(tmp_path, DECLARED)
        with Daemon(namespace.name, file, tmp_path) as daemon:
            daemon.started()
            assert daemon.word()["state"] == "converged", daemon.said
            good, theirs = shown(namespace), foreign(namespace)
            filler = fill(state)
            # What is new has to be written down first.
            written(tmp_path, DECLARED.replace("id = 100", "id = 101") + MORE)
            daemon.ask("reload")
            # A link that has to be made anew does not go before it can be made.
            assert "v0" in namespace.ip("link", "show")
            daemon.wait_for(
                r"route 203\.0\.113\.\d+/32.* failed: not tried: ledger .* can't be written: No space left"
            )
            assert "203.0.113." not in namespace.ip("route", "show")
            for drift in DRIFTS:
                namespace.sh(drift, check=True)
                until(
                    lambda: unnumbered(shown(namespace)) == unnumbered(good),
                    lambda drift=drift: f"{drift}\n{shown(namespace)}\nwant\n{good}\n{daemon.said}",  # type: ignore[misc]
                )
            # A few of them may have fitted in, one by one.
            assert namespace.ip("route", "show").count("203.0.113.") < 250
            assert foreign(namespace) == theirs
            filler.unlink()
            until(
                lambda: namespace.ip("route", "show").count("203.0.113.") == 250,
                lambda: f"not made when there was room again\n{daemon.said}",
            )
            daemon.wait_for("/rtnl: converged: 256 objects")
            assert "id 101" in namespace.ip("-d", "link", "show", "v0")
            assert daemon.stop() == 0


def test_a_read_only_state_directory_is_said_and_nothing_is_done(
    namespace: Namespace, tmp_path: Path
) -> None:
    with small(tmp_path / "state") as state:
        run("mount", "-o", "remount,ro", str(state))
        theirs = foreign(namespace)
        with Daemon(namespace.name, written(tmp_path, DECLARED), tmp_path) as daemon:
            assert daemon.process.wait(60) == 69
            assert f"{state}/.lock: Read-only file system" in daemon.said
        assert " b0: " not in namespace.ip("link", "show")
        assert foreign(namespace) == theirs


def test_started_where_nothing_can_be_written_it_says_so_and_makes_nothing(
    namespace: Namespace, tmp_path: Path
) -> None:
    with small(tmp_path / "state") as state:
        (state / namespace.name).mkdir(mode=0o700)
        (state / ".lock").mkdir()
        filler = fill(state)
        theirs = foreign(namespace)
        with Daemon(namespace.name, written(tmp_path, DECLARED), tmp_path) as daemon:
            daemon.wait_for(r"ledger .* can't be used: No space left on device")
            daemon.wait_for("not tried")
            assert " b0: " not in namespace.ip("link", "show")
            assert "table inet ours" not in namespace.nft("list", "ruleset")
            assert foreign(namespace) == theirs
            filler.unlink()
            until(
                lambda: daemon.word().get("state") == "converged",
                lambda: f"not made when there was room again\n{daemon.said}",
            )
            assert daemon.stop() == 0


DAMAGES = ("truncated", "emptied", "garbage", "garbage behind", "zeros", "another format")


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Spoil a ledger."""
    content = path.read_bytes()
    match how:
        case "truncated":
            content = content[: rng.randrange(len(content))]
        case "emptied":
            content = b""
        case "garbage":
            content = rng.randbytes(len(content))
        case "garbage behind":
            content += rng.randbytes(300) + b"\n"
        case "zeros":
            content = content[: len(content) // 2].ljust(len(content), b"\0")
        case "another format":
            content = content.replace(b'"linxd":1', b'"linxd":99', 1)
    path.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_spoilt_ledger_costs_nothing_foreign(how: str, namespace: Namespace, tmp_path: Path) -> None:
    rng = random.Random(how)
    file = written(tmp_path, DECLARED)
    theirs = foreign(namespace)
    with Daemon(namespace.name, file, tmp_path) as daemon:
        daemon.started()
        good = shown(namespace)
        daemon.kill()
    for ledger in (tmp_path / "state" / namespace.name).glob("*.ledger"):
        damage(ledger, how, rng)
    # Un-declared meanwhile: what bears our mark is ours even so, nothing else is.
    written(tmp_path, DECLARED.replace("192.0.2.0/24", "198.51.100.0/24"))
    with Daemon(namespace.name, file, tmp_path) as daemon:
        daemon.started()
        until(
            lambda: daemon.word().get("state") == "converged",
            lambda: f"does not converge\n{daemon.said}",
        )
        assert unnumbered(shown(namespace)) == unnumbered(good).replace("192.0.2.0/24", "198.51.100.0/24")
        assert foreign(namespace) == theirs
        # One that ends early can't be told from one whose last line was never finished.
        if how in ("garbage", "another format", "garbage behind"):
            assert "ledger" in daemon.said
        assert daemon.ask("release").done
    assert foreign(namespace) == theirs
    assert " b0: " not in namespace.ip("link", "show") or how != "garbage behind"
    assert "table inet ours" not in namespace.nft("list", "ruleset")
