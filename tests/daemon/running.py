# SPDX-License-Identifier: MIT
"""A daemon under test: started as a person would, its lines read as they come."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

PATIENCE = 20.0
"""Seconds after which a line that has not come won't come. No test waits so long unless it fails."""
ROOT = Path(__file__).resolve().parents[2]


class Daemon:
    """`linxd` for one scope. Killed when left."""

    def __init__(
        self,
        scope: str,
        file: Path | str | None,
        state: Path,
        *,
        env: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        command = [
            *before,
            sys.executable,
            "-m",
            "linxd.cli.daemon",
            "--scope",
            scope,
            "--state-dir",
            str(state),
        ]
        if file is not None:
            command += ["--file", str(file)]
        clean = {
            key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")
        }
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**clean, **(env or {})}
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        if error is not None:
            print("\n".join(self.lines))
        assert "Traceback" not in "\n".join(self.lines)

    def line(self, pattern: str) -> str:
        """The next line that matches."""
        while True:
            try:
                line = self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"no line matches {pattern!r} in time, but:\n{self.text}") from None
            if line is None:
                raise AssertionError(f"the daemon ended without {pattern!r}:\n{self.text}")
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def converged(self) -> str:
        """Wait for the first passes to have ended well."""
        return self.line(r"/rtnl: converged")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.signal(signal.SIGTERM)
        return self.end()

    @property
    def text(self) -> str:
        """What it has said so far."""
        return "\n".join(self.lines)


@contextlib.contextmanager
def ip_stays(netns: str, *words: str) -> Iterator[int]:
    """The same by an ip that is there to be seen for as long as one likes; its pid."""
    with subprocess.Popen(["ip", "-n", netns, "-batch", "-"], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(" ".join(words) + "\n")
        process.stdin.flush()
        yield process.pid
    assert process.returncode == 0


def ip(netns: str, *words: str) -> str:
    """`ip -n NETNS WORDS`."""
    done = subprocess.run(["ip", "-n", netns, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
