# SPDX-License-Identifier: MIT
"""Namespaces for tests: made on demand, named after this process, gone afterwards whatever happens."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:
    pass  # a machine that runs other tests alone
else:
    # How long an example takes says nothing on a machine that others use, too.
    settings.register_profile("shared", deadline=None)
    settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts so what is to run in the background, and what is started from here would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _remove(name: str) -> None:
    for pid in _run("ip", "netns", "pids", name).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    _run("ip", "netns", "del", name)


@pytest.fixture
def netns_factory() -> Iterator[Callable[[], str]]:
    """Makes empty network namespaces, ``lx-PID-N``."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")
    made: list[str] = []

    def make() -> str:
        name = f"lx-{os.getpid()}-{next(_numbers)}"
        done = _run("ip", "netns", "add", name)
        assert done.returncode == 0, done.stderr
        made.append(name)
        return name

    yield make
    for name in made:
        if Path("/run/netns", name).exists():
            _remove(name)


@pytest.fixture
def netns(netns_factory: Callable[[], str]) -> str:
    """An empty network namespace."""
    return netns_factory()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """What tests made is gone when they end."""
    yield
    left = [path.name for path in Path("/run/netns").glob(f"lx-{os.getpid()}-*")]
    for name in left:
        _remove(name)
    assert not left, f"namespaces left behind: {left}"


@pytest.fixture(scope="session")
def has_kind() -> Callable[..., None]:
    """Skips, with the kernel's own words, where a kind of link can't be made. Where LINXD_ALL_KINDS is set
    (on a distribution's kernel), fails instead. Words are those of `ip link add … type KIND`; ``parent``: it
    needs one."""
    known: dict[str, str] = {}

    def need(kind: str, *words: str, parent: bool = False) -> None:
        if kind not in known:
            name = f"lx-{os.getpid()}-{next(_numbers)}"
            _run("ip", "netns", "add", name)
            try:
                on: tuple[str, ...] = ()
                if parent:
                    _run(
                        "ip", "-n", name, "link", "add", "parent0", "type", "veth", "peer", "name", "parent1"
                    )
                    on = ("link", "parent0")
                done = _run("ip", "-n", name, "link", "add", *on, "name", "probe0", "type", kind, *words)
                known[kind] = done.stderr.strip() if done.returncode else ""
            finally:
                _remove(name)
        if known[kind]:
            if os.environ.get("LINXD_ALL_KINDS"):
                pytest.fail(f"this kernel must have {kind}: {known[kind]}")
            pytest.skip(f"this kernel has no {kind}: {known[kind]}")

    return need
