# SPDX-License-Identifier: MIT
"""A namespace with somebody else's things in it, and one `linxd` for it as a process of its own.

What is seen from here is what anybody sees: files in /proc and in the state directory, lines of the log,
`linxctl`, `strace`. It imports nothing of what it tortures but the words to ask a daemon.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linxd.control import Answer, ask

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which what has not come won't come. Nobody waits so long unless something is wrong."""
_numbers = itertools.count(1)

OPS = re.compile(r": .*, (?:(\d+) of )?(\d+) ops? in [\d.]+ m?s$", re.MULTILINE)
QUESTIONS = re.compile(r"nlmsg_type=(?:(0x[0-9a-f]+)|([A-Z_]+))")


def run(*command: str, text: str | None = None, check: bool = True) -> str:
    """A command's output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def until(true: Callable[[], bool], what: Callable[[], str], *, seconds: float = PATIENCE) -> None:
    """Wait for a state of things that nothing announces. The bound is for failure."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


class Namespace:
    """A namespace of our own, gone with everything in it when left."""

    def __init__(self) -> None:
        self.name = f"lx-{os.getpid()}-t{next(_numbers)}"

    def __enter__(self) -> Namespace:
        run("ip", "netns", "add", self.name)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in run("ip", "netns", "pids", self.name, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", self.name, check=False)

    def ip(self, *words: str, check: bool = True) -> str:
        """`ip -n NAME WORDS`."""
        return run("ip", "-n", self.name, *words, check=check)

    def batch(self, commands: Sequence[str]) -> None:
        """`ip -batch` of COMMANDS."""
        run("ip", "-n", self.name, "-batch", "-", text="\n".join(commands) + "\n")

    def nft(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """`nft WORDS` in it, or a ruleset on its standard input."""
        tail = ("-f", "-") if text is not None else words
        return run("ip", "netns", "exec", self.name, "nft", *tail, text=text, check=check)

    def sh(self, script: str, check: bool = False) -> str:
        """A script of the shell's in it."""
        return run("ip", "netns", "exec", self.name, "sh", "-c", script, check=check)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """A script of the shell's in it, beside us. What it says is lost."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


class Daemon:
    """`linxd --scope NAME --file FILE`. Killed when left."""

    def __init__(
        self,
        name: str,
        file: Path,
        directory: Path,
        *,
        before: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        module: str = "linxd.cli.daemon",
    ) -> None:
        self.name, self.file, self.directory = name, file, directory
        self.state = directory / "state"
        self.log = directory / f"log{next(_numbers)}"
        kept = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "DBUS_SYSTEM_BUS_ADDRESS")
        clean = {key: value for key, value in os.environ.items() if key not in kept}
        # No bus: what the machine has in that place is none of ours.
        clean |= {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={directory}/no-bus", "PYTHONPATH": str(ROOT)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *before, sys.executable, "-m", module,
                    "--scope", name, "--file", str(file), "--state-dir", str(self.state),
                ],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**clean, **(env or {})},
            )  # fmt: skip

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert "Traceback" not in self.said, self.said

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def said(self) -> str:
        """All of its log so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str, *, seconds: float = PATIENCE) -> None:
        """Until its log has a match."""

        def there() -> bool:
            found = re.search(words, self.said) is not None
            assert found or self.process.poll() is None, f"ended without {words!r}:\n{self.said}"
            return found

        until(there, lambda: f"not said: {words!r}\n{self.said}", seconds=seconds)

    def started(self) -> Daemon:
        """Once all of its loops have an answer and it takes requests."""

        def answered() -> bool:
            states = [loop["state"] for loop in self.word().get("loops", ())]
            return (bool(states) and "starting" not in states) or self.process.poll() is not None

        until(answered, lambda: f"does not start:\n{self.said}")
        assert self.process.poll() is None, self.said
        return self

    def word(self) -> dict[str, Any]:
        """Its word of how it is; empty where there is none of this process."""
        try:
            word = json.loads((self.state / self.name / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return word if isinstance(word, dict) and word.get("pid") == self.pid else {}

    def loop(self, source: str) -> dict[str, Any]:
        """What the word says of one loop."""
        return next((loop for loop in self.word().get("loops", ()) if loop["source"] == source), {})

    def ask(self, what: str) -> Answer:
        """Have it do something, over its control socket."""
        return ask(str(self.state / self.name), what, seconds=PATIENCE + 60)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    # -- watched from outside -------------------------------------------------------------------------------

    def fds(self) -> list[str]:
        """What it has open."""
        found = []
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(re.sub(r"\d+", "N", os.readlink(f"/proc/{self.pid}/fd/{name}")))
        return sorted(found)

    def memory(self) -> int:
        """Bytes of memory that it has in use."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    def threads(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def cpu(self) -> float:
        """Seconds of CPU that it has used, its children's aside."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ops_said(self) -> int:
        """How many ops its log speaks of."""
        return sum(int(some or all_) for some, all_ in OPS.findall(self.said))

    @contextlib.contextmanager
    def traced(self) -> Iterator[list[str]]:
        """What it writes to the kernel meanwhile: messages that are no questions, and keys."""
        found: list[str] = []
        trace = self.directory / "trace"
        tracer = subprocess.Popen(
            ["strace", "-f", "-y", "-qq", "-s", "16", "-e", "trace=sendto,sendmsg,write,pwrite64",
             "-o", str(trace), "-p", str(self.pid)],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            status = Path(f"/proc/{self.pid}/task")
            until(
                lambda: all(
                    "TracerPid:\t0\n" not in (task / "status").read_text() for task in status.iterdir()
                ),
                lambda: "strace does not attach",
            )
            tasks = {task.name for task in status.iterdir()}
            yield found
            tasks |= {task.name for task in status.iterdir()}
        finally:
            tracer.terminate()
            tracer.communicate()
        for line in trace.read_text().splitlines():
            # Its children (nft in a scratch namespace) write, too; that is nobody's network.
            if line.split(None, 1)[0] not in tasks:
                continue
            for number, name in QUESTIONS.findall(line):
                # nf_tables and rtnetlink are told apart by the number of the subsystem in the high byte.
                value = int(number, 16) if number else -1
                if (name and not re.search(r"GET|NLMSG_|NOOP", name)) or _writes(value):
                    found.append(line)
            if re.search(r"write\w*\(\d+<(/proc|/sys)", line):
                found.append(line)


def _writes(number: int) -> bool:
    if number < 16:
        return False
    if number >> 8 == 10:  # NFNL_SUBSYS_NFTABLES
        return number & 0xFF not in (1, 4, 7, 10, 13, 16, 19, 23)
    return number >> 8 == 0 and number % 4 != 2


def linxctl(*words: str, state: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """`linxctl WORDS`, on a state directory."""
    done = subprocess.run(
        [sys.executable, "-m", "linxd.cli.linxctl", *words, "--state-dir", str(state)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAGER": "cat"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
