# SPDX-License-Identifier: MIT
"""On a terminal long output goes through a pager, with its colours; elsewhere it does not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.daemon.running import ROOT


def on_a_terminal(state: Path, *words: str, **environment: str) -> str:
    """What `linxctl WORDS` shows on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "linxd.cli.linxctl", *words, "--state-dir", str(state)],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:
        pass  # the last one on the other side has closed it
    os.close(ours)
    process.wait(10)
    return shown.decode()


def test_a_terminal_gets_a_pager_with_colours(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, "list", PAGER="sed s/^/paged:/")
    assert "paged:" in shown
    assert "\x1b[2mSCOPE" in shown


def test_without_a_pager_if_asked_or_if_there_is_none(tmp_path: Path) -> None:
    for environment in ({"PAGER": "cat"}, {"PAGER": ""}, {"PAGER": "/no/such/pager"}, {"PAGER": "less '"}):
        shown = on_a_terminal(tmp_path, "list", **environment)
        assert "SCOPE" in shown
    assert "paged:" not in on_a_terminal(tmp_path, "--no-pager", "list", PAGER="sed s/^/paged:/")


def test_a_pager_that_is_left_early_is_no_trouble(tmp_path: Path) -> None:
    assert "Traceback" not in on_a_terminal(tmp_path, "list", PAGER="true")
