# SPDX-License-Identifier: MIT
"""What users have instead: `ip`, `nft`, ifstate out of PyPI; and our own passes, in processes that answer.

It starts them and says what they took; it does not compare.
"""

from __future__ import annotations

import atexit
import functools
import json
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import bed

LONGEST = 45
"""Seconds that are given to ifstate."""
PASSER = Path(__file__).with_name("passer.py")


class Took(NamedTuple):
    """Seconds of CPU, and seconds that passed."""

    cpu: float
    wall: float


class Answering:
    """A process of passer.py."""

    def __init__(self, on: bed.Bed, *words: str, netns: str | None = None) -> None:
        log = on.directory / f"{words[0]}.err"
        self._words = words
        self._log = log
        self._process = on.start(
            [sys.executable, str(PASSER), *words], netns=netns, env=bed.alone(), log=log, talks=True
        )
        if self._answer() != "ready":
            raise bed.Unavailable(f"{words[0]}: {self._said()}")

    def __call__(self) -> Took:
        """Once more. Raises RuntimeError."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"again\n")
        self._process.stdin.flush()
        words = self._answer().split()
        if len(words) != 3:
            raise RuntimeError(f"{' '.join(self._words)}: {self._said()}")
        return Took(float(words[0]), float(words[1]))

    def close(self) -> None:
        """End it."""
        bed.end(self._process)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def _said(self) -> str:
        lines = self._log.read_text().strip().splitlines()
        return lines[-1] if lines else "ended without a word"


def scope_file(on: bed.Bed, netns: str, text: str) -> tuple[str, str]:
    """A scope's file and a state directory."""
    directory = Path(tempfile.mkdtemp(dir=on.directory))
    file = directory / f"{netns}.toml"
    file.write_text(text)
    file.chmod(0o600)
    return str(file), str(directory / "state")


def passer(on: bed.Bed, netns: str, text: str, *only: str) -> Answering:
    """Passes over a declaration, of all sources or of some only."""
    return Answering(on, "linxd", netns, *scope_file(on, netns, text), *only)


def command(
    *words: str, text: str | None = None, env: Mapping[str, str] | None = None, seconds: float = 600
) -> Took:
    """What a command takes, its output thrown away. Raises RuntimeError, TimeoutExpired."""
    before, began = _children(), time.perf_counter()
    bed.run(*words, text=text, env=env, seconds=seconds)
    return Took(_children() - before, time.perf_counter() - began)


def parsed(*commands: tuple[str, ...]) -> Took:
    """What commands take whose output is JSON, with reading that."""
    before, own, began = _children(), time.process_time(), time.perf_counter()
    for words in commands:
        json.loads(bed.run(*words) or "[]")
    return Took(_children() - before + time.process_time() - own, time.perf_counter() - began)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@functools.cache
def _ifstate() -> tuple[str, str]:
    """The program, and its version; or nothing and the reason. Once a run: it takes seconds."""
    directory = tempfile.mkdtemp(prefix="linxd-bench-ifstate-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    try:
        bed.run("/usr/bin/python3", "-m", "venv", directory)
        pip = f"{directory}/bin/pip"
        bed.run(pip, "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "ifstate")
        said = bed.run(
            f"{directory}/bin/python", "-c", "import importlib.metadata as m; print(m.version('ifstate'))"
        )
    except (RuntimeError, OSError, subprocess.TimeoutExpired):
        return "", "it could not be fetched from PyPI"
    return f"{directory}/bin/ifstatecli", said.strip()


def ifstate_version() -> str:
    """Its version; empty where it isn't."""
    program, word = _ifstate()
    return word if program else ""


def ifstate(on: bed.Bed, netns: str, text: str) -> Callable[[str], Took]:
    """ifstate with a configuration: `check` or `apply`. Raises Unavailable, and so does what is returned.

    It takes away the network namespaces that it does not know: it gets to see none.
    """
    program, word = _ifstate()
    if not program:
        raise bed.Unavailable(word)
    file = Path(tempfile.mkdtemp(dir=on.directory)) / "ifstate.yml"
    file.write_text(text)

    def does(what: str) -> Took:
        script = (
            f"mount -t tmpfs none /run/netns && exec {shlex.join([program, '-q', '-c', str(file), what])}"
        )
        # `ip netns exec` has a mount namespace of its own, out of which nothing is seen.
        try:
            return command("ip", "netns", "exec", netns, "sh", "-c", script, seconds=LONGEST)
        except subprocess.TimeoutExpired:
            raise bed.Unavailable(f"takes more than {LONGEST} s") from None

    return does
