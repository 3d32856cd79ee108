# SPDX-License-Identifier: MIT
"""Ten scopes under mixed drift at fifty a second, for as long as one likes: memory, descriptors, threads and
the time that a heal takes must stay what they were.

A program (`make soak SOAK_SECONDS=`) and a library for a test. It knows the daemons only from outside.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.bed import Daemon, Namespace, linxctl, until
from tests.torture.drifts import declaration, drift
from tests.torture.fuzzer import furnish
from tests.torture.seen import foreign

SCOPES = 10
RATE = 50.0
"""Drifts a second, over all scopes."""
WARM = 0.15
"""The part of the time after which what is held counts as what is held for good."""
SAMPLES = 60
"""Looks over the whole time."""
GROWTH = 8 << 20
"""Bytes that a daemon may take more than when it was warm."""


@dataclass(slots=True)
class Sample:
    """What all daemons held at one moment. Memory in bytes; the latest heals in µs: median, and the worst
    99th percentile."""

    at: float
    memory: list[int]
    fds: list[int]
    threads: int
    heal: int
    worst: int

    def words(self) -> str:
        """One line."""
        return (
            f"{self.at:6.0f} s: memory {min(self.memory) / 2**20:.1f} … {max(self.memory) / 2**20:.1f} MB, "
            f"descriptors {min(self.fds)} … {max(self.fds)}, threads {self.threads} at most, "
            f"heals {self.heal / 1000:.1f} ms (median), {self.worst / 1000:.0f} ms (worst 99th percentile)"
        )


@dataclass(slots=True)
class Soaked:
    """What a run came to."""

    drifts: int = 0
    ops: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def words(self) -> str:
        """A few lines."""
        first, last = self.samples[0], self.samples[-1]
        return (
            f"{self.drifts} drifts in {self.seconds:.0f} s over {SCOPES} scopes "
            f"({self.drifts / self.seconds:.0f} a second), {self.ops} ops, {self.cpu:.0f} s of CPU\n"
            f"{first.words()}\n{last.words()}"
        )


class Writer:
    """A shell in a namespace that drifts at a steady rate until it is stopped."""

    def __init__(self, namespace: Namespace, rng: random.Random, rate: float) -> None:
        self.drifts = 0
        self._shell = subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, "sh"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(rng, rate), daemon=True)
        self._thread.start()

    def _write(self, rng: random.Random, rate: float) -> None:
        assert self._shell.stdin is not None
        due = time.monotonic()
        while not self._stop.is_set():
            self._shell.stdin.write(drift(rng) + "\n")
            self._shell.stdin.flush()
            self.drifts += 1
            due = max(due + 1 / rate, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """No more drift."""
        self._stop.set()
        self._thread.join()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


def sample(daemons: Sequence[Daemon], at: float) -> Sample:
    """A look at all of them."""
    heals = [loop["heal_usec"] for daemon in daemons for loop in daemon.word().get("loops", ())]
    heals = [heal for heal in heals if heal[1]]
    return Sample(
        at,
        [daemon.memory() for daemon in daemons],
        [len(daemon.fds()) for daemon in daemons],
        max(daemon.threads() for daemon in daemons),
        int(statistics.median(heal[1] for heal in heals)) if heals else 0,
        max((heal[2] for heal in heals), default=0),
    )


def soak(seconds: float, seed: int, directory: Path, *, tell: bool = False) -> Soaked:
    """Run for so long, and see that all is well. Raises AssertionError."""
    rng = random.Random(seed)
    result = Soaked()
    with contextlib.ExitStack() as stack:
        worlds = []
        for number in range(SCOPES):
            namespace = stack.enter_context(Namespace())
            furnish(namespace)
            place = directory / str(number)
            place.mkdir()
            file = place / "scope.toml"
            file.write_text(declaration(rng).text)
            file.chmod(0o600)
            daemon = stack.enter_context(Daemon(namespace.name, file, place))
            worlds.append((namespace, daemon, foreign(namespace)))
        daemons = [daemon.started() for _, daemon, _ in worlds]
        cpu = sum(daemon.cpu() for daemon in daemons)
        writers = [
            Writer(namespace, random.Random(rng.random()), RATE / SCOPES) for namespace, _, _ in worlds
        ]
        try:
            began = time.monotonic()
            while (now := time.monotonic() - began) < seconds:
                time.sleep(min(seconds / SAMPLES, seconds - now))
                one = sample(daemons, time.monotonic() - began)
                if one.at >= WARM * seconds:
                    result.samples.append(one)
                if tell:
                    print(one.words(), flush=True)
        finally:
            for writer in writers:
                writer.stop()
        result.seconds = time.monotonic() - began
        result.drifts = sum(writer.drifts for writer in writers)
        result.cpu = sum(daemon.cpu() for daemon in daemons) - cpu
        result.ops = sum(loop["ops"] for daemon in daemons for loop in daemon.word()["loops"])
        for namespace, daemon, theirs in worlds:
            _quiet(namespace, daemon, theirs)
        _flat(result.samples)
    return result


def _quiet(namespace: Namespace, daemon: Daemon, theirs: str) -> None:
    """It is as declared once nobody drifts any more, and nothing foreign has changed."""

    def converged() -> bool:
        # What was fought over would be waited for.
        assert daemon.ask("reload").done
        return daemon.word().get("state") == "converged"

    until(converged, lambda: f"does not converge: {daemon.word().get('conditions')}\n{daemon.said[-4000:]}")
    done = linxctl("diff", namespace.name, "--file", str(daemon.file), state=daemon.state)
    assert done.returncode == 0, done.stdout + done.stderr
    assert foreign(namespace) == theirs
    assert daemon.stop() == 0


def _flat(samples: Sequence[Sample]) -> None:
    """What was held when warm is what is held at the end."""
    # A third of the looks at each end: single ones may fall into a pass.
    part = max(1, len(samples) // 3)
    for number in range(SCOPES):
        early = statistics.median(one.memory[number] for one in samples[:part])
        late = statistics.median(one.memory[number] for one in samples[-part:])
        assert late <= early + GROWTH, f"memory of one grew from {early} to {late}"
        early = max(one.fds[number] for one in samples[:part])
        late = statistics.median(one.fds[number] for one in samples[-part:])
        # Descriptors of keys come and go with links.
        assert late <= early + 8, f"descriptors of one grew from {early} to {late}"
    assert max(one.threads for one in samples) <= 8


def main() -> int:
    """Exits 1 when something is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="linxd-soak-") as directory:
        try:
            print(soak(options.seconds, options.seed, Path(directory), tell=True).words())
        except AssertionError as wrong:
            print(wrong)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
