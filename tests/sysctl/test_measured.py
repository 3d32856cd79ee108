# SPDX-License-Identifier: MIT
"""The tables about the kernel, measured again on the kernel at hand: which keys a namespace has for itself,
which change along with another one, which the kernel tells of.

Every key of a throw-away namespace is written; of the machine's own keys none is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

import pytest

from linxd.netlink import wire
from linxd.netlink.events import Events
from linxd.netlink.socket import open_netlink
from linxd.sources.sysctl.cascades import concerned, targets, write
from linxd.sources.sysctl.model import Path, dotted
from linxd.sources.sysctl.namespaced import per_namespace
from linxd.sources.sysctl.procfs import Procfs
from linxd.sources.sysctl.reader import Reader, texts
from linxd.sources.sysctl.values import same
from linxd.sources.sysctl.watch import GROUPS, watch_of

from ..rtnl.harness import batch

NUMBER = re.compile(r"-?[0-9]+")
LINKS = ("e0", "e1", "lo")


@pytest.fixture
def inside(netns: str) -> Iterator[tuple[Procfs, int]]:
    """A namespace with a pair of links, and a descriptor of it."""
    batch(netns, "link set lo up", "link add e0 type veth peer name e1", "link set e0 up", "link set e1 up")
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    procfs = Procfs(fd)
    yield procfs, fd
    procfs.close()
    os.close(fd)


def tree(procfs: Procfs) -> dict[Path, int]:
    return dict(procfs.keys(("net",)))


def values(reader: Reader, paths: Iterable[Path]) -> dict[Path, str]:
    """By key, without those that hold nothing: secrets that nobody set."""
    return texts(reader.read(paths))[0]


def test_which_keys_a_namespace_has_for_itself(inside: tuple[Procfs, int]) -> None:
    first = Procfs()
    try:
        machine, own = tree(first), tree(inside[0])
    finally:
        first.close()
    assert len(own) > 300
    for path, mode in own.items():
        reason = per_namespace(path)
        if mode & 0o222:
            assert reason is None or "all namespaces share it" in reason, dotted(path)
        elif machine.get(path, 0) & 0o222:
            assert reason is not None, f"{dotted(path)} can be written in the first namespace alone"
    missing = [
        dotted(path)
        for path, mode in machine.items()
        # interfaces differ; a module that only the first namespace uses is told of by the tree itself
        if path not in own and path[2:3] not in (("conf",), ("neigh",)) and mode & 0o222
        and path[:2] in {known[:2] for known in own} and per_namespace(path) is None
    ]  # fmt: skip
    assert missing == []


def others(path: Path, value: str) -> list[str]:
    """Other values that may be good for the key."""
    if not NUMBER.fullmatch(value):
        return []
    number = int(value)
    near = [1, 0, 2] if number in (0, 1, 2) else []
    return [str(each) for each in (*near, number + 1, number - 1, number * 2) if each != number]


def test_what_a_write_changes_besides_and_what_the_kernel_tells_of(inside: tuple[Procfs, int]) -> None:
    procfs, fd = inside
    machine = Procfs()
    paths = [path for path, mode in tree(procfs).items() if mode & 0o600 == 0o600]
    reader, outside = Reader(procfs), Reader(machine)
    now = values(reader, paths)
    unforetold: dict[str, set[str]] = {}
    wrong: list[str] = []
    untold: list[str] = []
    tried = 0
    try:
        # what only a write changes: a key that can't be written counts something, and moves by itself
        before = values(outside, [path for path, mode in tree(machine).items() if mode & 0o600 == 0o600])
        with Events(open_netlink(wire.NETLINK_ROUTE, netns_fd=fd), GROUPS) as events:
            for path in paths:
                if path not in now or per_namespace(path) is not None:
                    continue
                for _ in range(2):  # many a cascade is seen on the way back alone
                    written = attempt(procfs, path, now[path])
                    if written is None:
                        break
                    tried += 1
                    told = False
                    while messages := events.read():
                        told = told or any(m.type == wire.RTM_NEWNETCONF for m in messages)
                    after = values(reader, paths)
                    if watch_of(path) == "event" and not told:
                        untold.append(dotted(path))
                    foretold = dict(now)
                    write(foretold, path, after[path])
                    known = set(targets(path, LINKS))
                    assert known & now.keys() == concerned(path, now)
                    for other in after.keys() & now.keys():
                        if other == path:
                            continue
                        if not same(after[other], now[other]) and other not in known:
                            unforetold.setdefault(dotted(path), set()).add(dotted(other))
                        elif not same(foretold[other], now[other]) and not same(
                            after[other], foretold[other]
                        ):
                            wrong.append(
                                f"{dotted(path)} {now[path]} -> {written}: {dotted(other)} {now[other]} ->"
                                f" {after[other]}, foretold {foretold[other]}"
                            )
                    now = after
        assert values(outside, before) == before
    finally:
        reader.close()
        outside.close()
        machine.close()
    assert tried > 300
    assert not unforetold
    assert wrong == []
    assert untold == []


def attempt(procfs: Procfs, path: Path, value: str) -> str | None:
    """Write something else; what, or None if the kernel takes nothing."""
    for other in others(path, value):
        try:
            procfs.write(path, other)
        except OSError:
            continue
        if procfs.read(path) != value:
            return other
    return None
