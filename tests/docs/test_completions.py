# SPDX-License-Identifier: MIT
"""The shells complete what linxctl takes: no word more, no word less."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "packaging/completions"


def test_they_are_as_the_parser_is(tmp_path: Path) -> None:
    subprocess.run(["/usr/bin/python3", ROOT / "tools/completions", tmp_path], check=True)
    for name in ("linxctl.bash", "_linxctl"):
        fresh, kept = (tmp_path / name).read_text(), (KEPT / name).read_text()
        assert fresh == kept, f"{name} is not what linxctl takes any more: make completions"


def bash(*words: str, cwd: Path | None = None, before: str = "") -> list[str]:
    """What bash offers for the last word."""
    script = f"""
        source {KEPT}/linxctl.bash
        compopt() {{ :; }}
        {before}
        COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
        _linxctl
        [ ${{#COMPREPLY[@]}} = 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-euc", script, "bash", "linxctl", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.split("\n")[:-1])


def test_bash_completes_commands() -> None:
    offered = set(bash(""))
    assert {"list", "status", "diff", "log", "--version"} <= offered
    assert bash("stat") == ["status"]
    assert bash("--ver") == ["--version"]
    assert bash("--debug", "stat") == ["status"]


def test_bash_completes_each_commands_options() -> None:
    for name in (word for word in bash("") if not word.startswith("-")):
        for option in bash(name, "--"):
            assert option in _help(name)
    assert bash("log", "--fo") == ["--follow"]
    assert bash("apply", "--on") == ["--once"]


@functools.cache
def _help(command: str) -> str:
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "linxd.cli.linxctl", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def test_bash_completes_scopes_and_files(tmp_path: Path) -> None:
    scopes = "_linxctl_scopes() { printf '%s\\n' c1 c2 host; }"
    assert bash("status", "", before=scopes) == ["c1", "c2", "host"]
    assert bash("diff", "c", before=scopes) == ["c1", "c2"]
    (tmp_path / "c9.toml").touch()
    (tmp_path / "there").mkdir()
    assert bash("diff", "--file", "c", before=scopes, cwd=tmp_path) == ["c9.toml"]
    assert bash("check", "", before=scopes, cwd=tmp_path) == ["c1", "c2", "c9.toml", "host", "there"]
    assert bash("status", "--state-dir", "", cwd=tmp_path) == ["there"]
    assert bash("log", "--since", "", before=scopes) == []


def test_zsh_takes_it() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    subprocess.run(["zsh", "-n", KEPT / "_linxctl"], check=True)
    # _arguments itself says what is wrong with a specification.
    script = f"""
        autoload -Uz compinit && compinit -u -D
        fpath=({KEPT} $fpath); autoload -Uz _linxctl
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "PS1=; autoload -Uz compinit && compinit -u -D; source {KEPT}/_linxctl 2>/dev/null"
        zpty -w z "compdef _linxctl linxctl; echo rea''dy"
        zpty -m -r z out '*ready*'
        zpty -n -w z $'linxctl log --fo\\t'
        zpty -m -r z out '*--follow*' && print offered
        zpty -d z
    """
    done = subprocess.run(["zsh", "-fc", script], capture_output=True, text=True, check=False, timeout=20)
    assert "offered" in done.stdout, done
