# SPDX-License-Identifier: MIT
"""Long output on a terminal goes through a pager, as systemctl's does. It does not know what is printed."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

LESS = "FRSXMK"
"""What less is told where LESS is not set: end at once with what fits on a screen, pass colours on."""


class _ToPager(io.TextIOWrapper):
    """The pager's input, which counts as the terminal that it ends up on."""

    def isatty(self) -> bool:
        return True


def command(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The pager that somebody wants (LINXCTL_PAGER, SYSTEMD_PAGER, PAGER, else less); empty for none."""
    for name in ("LINXCTL_PAGER", "SYSTEMD_PAGER", "PAGER"):
        if name in environment:
            try:
                words = shlex.split(environment[name])
            except ValueError:
                words = []  # a quote that does not end: no program that could be run
            break
    else:
        words = ["less"]
    if not words or words[0] == "cat":
        return []
    import shutil

    return words if shutil.which(words[0]) else []


@contextlib.contextmanager
def paged(*, wanted: bool) -> Iterator[None]:
    """What is printed in here goes through the pager, if it is wanted and stdout is a terminal."""
    words = command() if wanted and sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else []
    if not words:
        yield
        return
    environment = {"LESS": os.environ.get("SYSTEMD_LESS", LESS), **os.environ}
    child = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
    assert child.stdin is not None
    terminal, sys.stdout = sys.stdout, _ToPager(child.stdin, encoding="utf-8", write_through=False)
    try:
        with contextlib.suppress(BrokenPipeError):  # read enough
            yield
            sys.stdout.flush()
    finally:
        with contextlib.suppress(BrokenPipeError, ValueError):
            sys.stdout.close()
        sys.stdout = terminal
        # Ctrl-C is the pager's while it shows something.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        child.wait()
        signal.signal(signal.SIGINT, before)
