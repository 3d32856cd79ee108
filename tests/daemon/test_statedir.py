# SPDX-License-Identifier: MIT
"""One process to a namespace, and word of how a scope is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from linxd.statedir import Busy, Lock, holders, ledgers, prepare, read_status, remove, scopes, write_status


def test_the_second_is_told_who_is_the_first(tmp_path: Path) -> None:
    base = str(tmp_path / "state")
    lock = Lock(base, 4711, "c1")
    with pytest.raises(Busy) as busy:
        Lock(base, 4711, "c2")
    assert (busy.value.pid, busy.value.scope) == (os.getpid(), "c1")
    assert str(busy.value) == (
        f"this network namespace is served by linxd[{os.getpid()}] as scope c1 already"
    )
    assert list(holders(base)) == [(os.getpid(), "c1", 4711)]
    Lock(base, 4712, "c2").release()
    lock.release()
    assert list(holders(base)) == []
    Lock(base, 4711, "c2").release()
    assert list(Path(base).rglob("*")) == [Path(base, ".lock")]


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from linxd.statedir import Lock; lock = Lock(sys.argv[1], 1, 'c1'); print(flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Busy) as busy:
            Lock(str(tmp_path), 1, "c2")
        assert busy.value.pid == process.pid
        process.send_signal(signal.SIGKILL)
    assert list(holders(str(tmp_path))) == []
    Lock(str(tmp_path), 1, "c2").release()


def test_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    base = str(tmp_path / "state")
    path = prepare(base, "c1")
    assert prepare(base, "c1") == path
    assert os.stat(path).st_mode & 0o777 == 0o700
    assert scopes(base) == ("c1",)
    assert scopes(str(tmp_path / "none")) == ()
    (Path(path) / "rtnl.ledger").touch()
    assert ledgers(base, "c1") == ("rtnl",)


def test_what_is_left_as_word_can_be_read(tmp_path: Path) -> None:
    path = prepare(str(tmp_path), "c1")
    assert read_status(str(tmp_path), "c1") is None
    write_status(path, {"state": "converged"})
    assert read_status(str(tmp_path), "c1") == {"state": "converged"}
    (Path(path) / "status.json").write_text("[")
    assert read_status(str(tmp_path), "c1") is None
    remove(str(tmp_path), "c1")
    assert scopes(str(tmp_path)) == ()
