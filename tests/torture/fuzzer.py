# SPDX-License-Identifier: MIT
"""Random drifts by several writers against one real daemon, round after round, and what must hold after
each.

It is a program (`make fuzz SEED= N=`) and a library for tests. It knows the daemon only from outside. A
round that fails is shrunk to a short script of `ip`, `nft` and `sysctl` commands, which fails by itself.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.bed import Daemon, Namespace, linxctl
from tests.torture.drifts import FOREIGN, FOREIGN_RULESET, Declared, declaration, drift
from tests.torture.seen import foreign, seen

ROUND = 24
"""Drifts of a round at most."""
HEALED = 45.0
"""Seconds in which a round must be healed. What is right needs a fraction of one."""
HURRIED = 10.0
"""The same while a failure is made small: what is found then is looked at again by people."""
FORGIVE = 3.0
"""Seconds after which objects that are fought over are looked at by request."""
SLOW = 8.0
"""Seconds after which a round that is healed in the end is worth telling of."""
PAUSES = ("", "", "", "sleep 0.001", "sleep 0.02", "sleep 0.2")


class Wrong(Exception):  # noqa: N818 - what a fuzzer looks for
    """Something that must hold does not."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round does: lines of a script for each writer; a declaration that comes into force in the
    middle; whether the daemon is killed."""

    writers: tuple[tuple[str, ...], ...]
    declare: Declared | None = None
    kill: bool = False

    @property
    def drifts(self) -> int:
        """How many commands there are."""
        return sum(not line.startswith("sleep") for lines in self.writers for line in lines)

    def script(self) -> str:
        """As a shell would run it."""
        parts = ["\n".join(lines) for lines in self.writers if lines]
        if len(parts) == 1:
            return parts[0]
        return "\n".join(f"( {part}\n) &" for part in parts) + "\nwait"


@dataclass(slots=True)
class Figures:
    """What a run came to."""

    drifts: int = 0
    rounds: int = 0
    reloads: int = 0
    kills: int = 0
    ops: int = 0
    forgiven: int = 0
    slowest: float = 0.0
    memory: tuple[int, int] = (0, 0)

    def words(self) -> str:
        """One line."""
        first, last = (f"{value / 2**20:.1f}" for value in self.memory)
        return (
            f"{self.drifts} drifts in {self.rounds} rounds, {self.ops} ops healed them; "
            f"{self.reloads} reloads, {self.kills} kills, "
            f"{self.forgiven} rounds fought too hard to be healed at once, "
            f"slowest round {self.slowest:.1f} s; memory {first} MB at the start, {last} MB at the end"
        )


class World:
    """A namespace, a daemon in it, and what is to be seen there."""

    def __init__(
        self, namespace: Namespace, directory: Path, declared: Declared, *, healed: float = HEALED
    ) -> None:
        self.namespace = namespace
        self.directory = directory
        self.declared = declared
        self.figures = Figures()
        self._healed = healed
        self._wanted: dict[str, dict[str, Any]] = {}
        self._late: dict[str, Any] = {}
        """What was not as declared when it was looked at last, and not all was."""
        furnish(namespace)
        self.foreign = foreign(namespace)
        self.file = directory / "scope.toml"
        self.write(declared)
        self.wanted()
        self.daemon = self._start()
        self._settle()
        self.first = (self.daemon.fds(), self.daemon.memory())
        self._declared_first = declared

    def _start(self) -> Daemon:
        return Daemon(self.namespace.name, self.file, self.directory).started()

    def write(self, declared: Declared) -> None:
        """Write the file."""
        self.file.write_text(declared.text)
        self.file.chmod(0o600)

    def wanted(self) -> dict[str, Any]:
        """What an untouched namespace looks like in which the same file was applied once."""
        text = self.declared.text
        if text not in self._wanted:
            with Namespace() as other:
                furnish(other)
                with tempfile.TemporaryDirectory(dir=self.directory) as state:
                    words = ("apply", str(self.file), "--once", "--scope", other.name)
                    # Keys of links that the first one makes are there for the second.
                    linxctl(*words, state=Path(state))
                    done = linxctl(*words, state=Path(state))
                    if done.returncode:
                        raise Wrong(f"a first pass does not end well: {done.stdout}{done.stderr}\n{text}")
                self._wanted = {text: seen(other, self.declared)}
        return self._wanted[text]

    def run(self, round_: Round) -> None:
        """One round. Raises Wrong."""
        started = [self.namespace.start("\n".join(lines)) for lines in round_.writers]
        if round_.declare is not None:
            self.declared = round_.declare
            self.write(round_.declare)
            self.figures.reloads += 1
            answer = self.daemon.ask("reload")
            if not answer.done:
                raise Wrong(f"a reload fails: {answer.lines}")
        if round_.kill:
            self.figures.kills += 1
            self.figures.ops += self.daemon.ops_said()
            self.daemon.kill()
            self.daemon = self._start()
        for writer in started:
            writer.wait()
        self.figures.rounds += 1
        self.figures.drifts += round_.drifts
        before = len(self.daemon.said)
        took = self._settle()
        self.figures.slowest = max(self.figures.slowest, took)
        if took > SLOW:
            print(
                f"a round took {took:.1f} s:\n{round_.script()}\nand {self._late}, while the log said\n"
                f"{self.daemon.said[before:]}",
                flush=True,
            )
        if foreign(self.namespace) != self.foreign:
            raise Wrong(f"foreign things changed:\n{self.foreign}\nbecame\n{foreign(self.namespace)}")

    def _settle(self) -> float:
        """Wait for all to be as declared; returns the seconds that it took."""
        want = self.wanted()
        began = asked = time.monotonic()
        forgiven = False
        while (have := seen(self.namespace, self.declared)) != want:
            self._late = {name: have.get(name) for name in want if have.get(name) != want[name]}
            if self.daemon.process.poll() is not None:
                raise Wrong(f"the daemon ended:\n{self.daemon.said}")
            now = time.monotonic()
            if now - began > self._healed:
                different = "\n".join(
                    f"  {name}: is {have.get(name)}, want {want.get(name)}"
                    for name in want.keys() | have.keys()
                    if have.get(name) != want.get(name)
                )
                said = "\n".join(self.daemon.said.splitlines()[-30:])
                raise Wrong(f"not healed:\n{different}\n{said}")
            if now - asked > FORGIVE and self._fought():
                # Left alone it would be healed, too, a minute later.
                self.daemon.ask("reload")
                self.figures.forgiven += not forgiven
                forgiven, asked = True, time.monotonic()
            time.sleep(0.02)
        return time.monotonic() - began

    def _fought(self) -> bool:
        return any(one["state"] == "contended" for one in self.daemon.word().get("conditions", ()))

    def check(self) -> None:
        """What must hold whenever it is quiet, and takes longer to look at."""
        done = linxctl("diff", self.namespace.name, "--file", str(self.file), state=self.daemon.state)
        if done.returncode:
            raise Wrong(f"linxctl diff exits {done.returncode}: {done.stdout}{done.stderr}")
        with self.daemon.traced() as writes:
            self.daemon.ask("reload")
        if writes:
            raise Wrong("a pass with nothing to do writes:\n" + "\n".join(writes))
        self._log()

    def _log(self) -> None:
        """Each op in the log once. Too many entries a second are left out, and counted."""
        said = self.daemon.said
        if " were left out: too many" in said:
            return
        end = time.monotonic() + HEALED
        while True:
            word = self.daemon.word()
            counted = sum(loop["ops"] for loop in word.get("loops", ()))
            told = self.daemon.ops_said()
            if counted == told:
                return
            if time.monotonic() > end:
                raise Wrong(f"{counted} ops were applied, the log tells of {told}:\n{self.daemon.said}")
            time.sleep(0.05)

    def end(self) -> None:
        """Back to what was declared first: what the process holds is what it held then."""
        self.run(Round((), declare=self._declared_first))
        self.check()
        fds, memory = self.first
        now = self.daemon.fds()
        if self.figures.kills == 0 and now != fds:
            raise Wrong(f"descriptors were {fds}, are {now}")
        if self.daemon.threads() > 8:
            raise Wrong(f"{self.daemon.threads()} threads")
        self.figures.memory = (memory, self.daemon.memory())
        if self.daemon.memory() > memory + 32 * 2**20:
            raise Wrong(f"memory was {memory}, is {self.daemon.memory()}")
        self.figures.ops += self.daemon.ops_said()
        if self.daemon.stop():
            raise Wrong(f"the daemon ended badly:\n{self.daemon.said}")

    def close(self) -> None:
        """Whatever happened, nothing stays."""
        self.daemon.kill()


def furnish(namespace: Namespace) -> None:
    """Put foreign things into a namespace."""
    namespace.batch(FOREIGN)
    namespace.nft(text=FOREIGN_RULESET)


def make_round(rng: random.Random, left: int) -> Round:
    """A random round of at most LEFT drifts."""
    writers: list[list[str]] = [[] for _ in range(rng.choice((1, 1, 2, 3)))]
    for _ in range(min(left, rng.randrange(1, ROUND + 1))):
        lines = rng.choice(writers)
        lines.append(drift(rng))
        if pause := rng.choice(PAUSES):
            lines.append(pause)
    chance = rng.random()
    return Round(
        tuple(tuple(lines) for lines in writers),
        declaration(rng) if chance < 0.1 else None,
        kill=chance > 0.97,
    )


def fuzz(seed: int, drifts: int, directory: Path, *, tell: bool = False) -> Figures:
    """A whole run. Raises Wrong, with a script that shows it if one was found."""
    rng = random.Random(seed)
    declared = declaration(rng)
    with Namespace() as namespace:
        world = World(namespace, directory, declared)
        past: list[tuple[Declared, Round]] = []
        try:
            while world.figures.drifts < drifts:
                round_ = make_round(rng, drifts - world.figures.drifts)
                past.append((world.declared, round_))
                world.run(round_)
                if rng.random() < 0.05:
                    world.check()
                if tell and world.figures.rounds % 25 == 0:
                    print(f"  {world.figures.words()}", flush=True)
            past.append((world.declared, Round((), declare=declared)))
            world.end()
        except Wrong as wrong:
            words = f"seed {seed}, after {world.figures.drifts} drifts: {wrong}"
            print(words, flush=True)
            world.close()
            raise Wrong(f"{words}\n{shrunk(past, directory)}") from None
        finally:
            world.close()
        return world.figures


# -- a failure made small
# -----------------------------------------------------------------------------------------------------


def fails(declared: Declared, rounds: Sequence[Round], directory: Path, *, tries: int = 2) -> str:
    """What goes wrong when ROUNDS are run in a world of their own; "" if nothing does. Timing has a part in
    it, so it is tried more than once."""
    for _ in range(tries):
        with tempfile.TemporaryDirectory(dir=directory) as place, Namespace() as namespace:
            world = None
            try:
                world = World(namespace, Path(place), declared, healed=HURRIED)
                for round_ in rounds:
                    world.run(round_)
                world.check()
            except Wrong as wrong:
                return str(wrong)
            finally:
                if world is not None:
                    world.close()
    return ""


def shrunk(past: Sequence[tuple[Declared, Round]], directory: Path) -> str:
    """The shortest script found that fails by itself: the last rounds, as few as it takes, with as few lines
    as it takes."""
    count = 1
    while count <= min(len(past), 8):
        declared = past[-count][0]
        rounds = [round_ for _, round_ in past[-count:]]
        if fails(declared, rounds, directory, tries=4):
            return _script(declared, _reduced(declared, rounds, directory))
        count *= 2
    return "does not fail again by itself; the last rounds were:\n" + "\n---\n".join(
        round_.script() for _, round_ in past[-3:]
    )


def _reduced(declared: Declared, rounds: list[Round], directory: Path) -> list[Round]:
    """Delta debugging over all lines of all rounds."""
    lines = [
        (number, writer, line)
        for number, round_ in enumerate(rounds)
        for writer, lines in enumerate(round_.writers)
        for line in lines
    ]

    def built(kept: Sequence[tuple[int, int, str]]) -> list[Round]:
        return [
            Round(
                tuple(
                    tuple(line for n, w, line in kept if (n, w) == (number, writer))
                    for writer in range(len(round_.writers))
                ),
                round_.declare,
                round_.kill,
            )
            for number, round_ in enumerate(rounds)
        ]

    size = max(1, len(lines) // 2)
    while lines:
        start, smaller = 0, False
        while start < len(lines):
            fewer = lines[:start] + lines[start + size :]
            if fewer and fails(declared, built(fewer), directory):
                lines, smaller = fewer, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return built(lines)


def _script(declared: Declared, rounds: Sequence[Round]) -> str:
    parts = [f"this fails by itself, with the file\n{declared.text}"]
    for round_ in rounds:
        parts.append(round_.script())
        if round_.declare is not None:
            parts.append(f"# and meanwhile, reloaded:\n{round_.declare.text}")
        if round_.kill:
            parts.append("# and meanwhile linxd is killed and started again")
    return "\n".join(parts)


def main() -> int:
    """`tools/fuzz`: exits 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--drifts", type=int, default=1000)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.drifts} drifts", flush=True)
    with tempfile.TemporaryDirectory(prefix="linxd-fuzz-") as directory:
        try:
            figures = fuzz(options.seed, options.drifts, Path(directory), tell=True)
        except Wrong as wrong:
            print(wrong)
            return 1
    print(figures.words())
    return 0


if __name__ == "__main__":
    sys.exit(main())
