# SPDX-License-Identifier: MIT
"""The way to a daemon that needs no bus: who is answered, and what `linxd --reload` makes of it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from linxd.control import Answer, Control, ask
from tests.daemon.running import ROOT, Daemon, ip


async def _asked(directory: Path, word: str) -> Answer:
    async def greet() -> Answer:
        return Answer(True, ("good day",))

    control = Control(str(directory), {"greet": greet})
    await control.open()
    try:
        assert stat.S_IMODE((directory / "control").stat().st_mode) == 0o600
        return await asyncio.to_thread(ask, str(directory), word, seconds=5)
    finally:
        control.close()
        assert not (directory / "control").exists()


def test_a_word_is_answered(tmp_path: Path) -> None:
    assert asyncio.run(_asked(tmp_path, "greet")) == Answer(True, ("good day",))


def test_a_word_that_nobody_knows_is_not_done(tmp_path: Path) -> None:
    assert asyncio.run(_asked(tmp_path, "bow")) == Answer(False, ("knows no 'bow'",))


def test_a_socket_left_behind_by_one_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "control"))
    with pytest.raises(ConnectionRefusedError):
        ask(str(tmp_path), "greet", seconds=5)
    assert asyncio.run(_asked(tmp_path, "greet")).done


def test_one_who_asks_and_goes_disturbs_nobody(tmp_path: Path) -> None:
    async def run() -> Answer:
        async def greet() -> Answer:
            return Answer(True)

        control = Control(str(tmp_path), {"greet": greet})
        await control.open()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rude:
                rude.connect(str(tmp_path / "control"))
                rude.sendall(b"x" * 1000)
            return await asyncio.to_thread(ask, str(tmp_path), "greet", seconds=5)
        finally:
            control.close()

    assert asyncio.run(run()).done


def test_reload_waits_and_can_fail(netns_factory: Callable[[], str], tmp_path: Path) -> None:
    name = netns_factory()
    file, state = tmp_path / f"{name}.toml", tmp_path / "state"
    file.write_text('[link.lo]\naddresses = ["192.0.2.1/32"]\n')

    def reload() -> subprocess.CompletedProcess[str]:
        words = ("-m", "linxd.cli.daemon", "--scope", name, "--state-dir", str(state), "--reload")
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False
        )

    done = reload()
    assert done.returncode == 1
    assert done.stderr == f"no linxd answers for scope {name}: No such file or directory\n"
    with Daemon(name, file, state) as daemon:
        daemon.converged()
        file.write_text('[link.lo]\naddresses = ["192.0.2.2/32"]\n')
        done = reload()
        assert (done.returncode, done.stderr) == (0, "")
        assert "192.0.2.2/32" in ip(name, "address", "show", "dev", "lo")
        file.write_text('[link.lo]\nadresses = ["192.0.2.3/32"]\n')
        done = reload()
        assert done.returncode == 1
        assert done.stderr == f'{file}:2:1: link.lo.adresses: unknown key (did you mean "addresses"?)\n'
        daemon.line("reload failed, what was active stays active")
        assert daemon.stop() == 0
    assert not (state / name / "control").exists()
    assert os.listdir(state / ".lock") == []
