# SPDX-License-Identifier: MIT
"""Nothing in the pages is there to be typed that no test types: each block belongs to a sort that one
executes, and what belongs to none of them is executed here.

Blocks `console`, and files whose first line is their path, are typed into fresh machines by
tests/system/test_pages.py, which finds the pages by itself.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import linxd.config
from linxd.config import declare, load
from linxd.ledger import MemoryLedger
from linxd.loop import Loop

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PATH = re.compile(r"(?:#|//) /\S+\n")
DIAGRAMS = ("docs/architecture.md", "docs/topology.md")
"""Pages with blocks that are drawings."""


def blocks(sort: str) -> Iterator[tuple[str, str]]:
    """Each block of a sort with the name of its page."""
    for page in PAGES:
        for found, text in BLOCK.findall(page.read_text()):
            if found == sort:
                yield page.relative_to(ROOT).as_posix(), text


def test_every_block_is_of_a_sort_that_is_executed() -> None:
    sorts = {found for page in PAGES for found, _ in BLOCK.findall(page.read_text())}
    assert sorts <= {"console", "toml", "ini", "nft", "sh", "python", ""}
    for page, text in [*blocks("ini"), *blocks("nft")]:
        assert PATH.match(text), (page, text)
    # A shell's transcript has to be one of a page that is typed, or the one that is read below.
    for page, text in blocks(""):
        assert page in DIAGRAMS or page == "README.md" or not re.search(r"^[#$] ", text, re.M), (page, text)


def test_every_shell_block_is_of_podmans_page_and_run_there() -> None:
    """By tests/containers, in a machine with podman."""
    page = ROOT / "docs/podman.md"
    assert {name for name, _ in blocks("sh")} == {"docs/podman.md"}
    there = set()
    for section in page.read_text().split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        there |= {(heading, number) for number in range(len(re.findall(r"^```sh$", section, re.M)))}
    run = set()
    for node in ast.walk(ast.parse((ROOT / "tests/containers/test_podman.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "commands":
            words = [each.value for each in node.args if isinstance(each, ast.Constant)]
            run.add((words[0], words[1] if len(words) > 1 else 0))
    assert run == there


@pytest.mark.parametrize(("page", "text"), [each for each in blocks("toml") if not PATH.match(each[1])])
def test_a_declaration_that_is_no_readers_file_loads(page: str, text: str, tmp_path: Path) -> None:
    scope = "host" if "[[attach]]" in text else "c1"
    file = tmp_path / f"{scope}.toml"
    file.write_text(text)
    file.chmod(0o600)
    load(scope, file=file)


def test_the_transcript_of_the_front_page_is_what_linxctl_and_linxd_take() -> None:
    [text] = [text for page, text in blocks("") if page == "README.md"]
    command = text.splitlines()[0]
    assert command == "# linxd --scope c1 --file c1.toml"
    done = subprocess.run(
        [sys.executable, "-m", "linxd.cli.daemon", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert {"--scope", "--file"} <= set(re.findall(r"--\w+", done.stdout))


def test_every_target_of_make_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name for page in PAGES for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.M)
    }
    assert {"demo", "check", "deb"} <= named <= targets


def test_every_test_that_is_named_is_there() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:tests|bench|packaging)/[\w/]+\.\w+|\btest_\w+\.py", page.read_text())
    }
    assert "test_kills.py" in named
    missing = [name for name in named if not (ROOT / name).exists() and not [*ROOT.glob(f"tests/*/{name}")]]
    assert missing == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces are made")
def test_the_demonstration_heals_all() -> None:
    done = subprocess.run(
        [ROOT / "examples/demo.sh"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [healed] = re.findall(r"^Healed (\d+) of (\d+)\. Nothing foreign was touched\.", done.stdout, re.M)
    assert healed[0] == healed[1] != "0"


# -- Python -------------------------------------------------------------------------------------------------

SOURCE = runpy.run_path(str(ROOT / "examples/custom_source.py"))


def test_the_python_of_the_pages_is_all_executed() -> None:
    assert [page for page, _ in blocks("python")] == ["docs/configuration.md", *["docs/library.md"] * 3]


def test_loading_and_declaring(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [text] = [text for page, text in blocks("python") if page == "docs/configuration.md"]
    # There is no such file: what is wrong is printed.
    exec(text, {})
    assert "c1.toml" in capsys.readouterr().out
    # Where there is one, the rest is done.
    monkeypatch.setattr(linxd.config, "load", lambda name: declare(name, {}))
    names: dict[str, object] = {}
    exec(text, names)
    config = names["config"]
    assert isinstance(config, linxd.config.ScopeConfig)
    assert [key[1:] for key in config.rtnl.addresses] == [("eth0", "10.0.0.5", 24)]


def library(number: int) -> str:
    """One of the blocks of the page on the library."""
    return [text for page, text in blocks("python") if page == "docs/library.md"][number]


class Whole(SOURCE["Symlinks"]):  # type: ignore[misc]
    """The example's source as a base, for what the page leaves out (`...`)."""

    def __class_getitem__(cls, _: object) -> type:
        return cls


async def executed(text: str, names: dict[str, Any], link: Path) -> None:
    """Execute what awaits as a page has it, until a link is there."""
    code = compile(text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = asyncio.ensure_future(eval(code, names))
    try:
        async with asyncio.timeout(20):
            while not link.is_symlink():
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_source_of_ones_own_in_a_loop(tmp_path: Path) -> None:
    lines = [line for line in library(0).splitlines() if ": ..." not in line]
    assert len(lines) == len(library(0).splitlines()) - 2
    names = {**SOURCE, "ObjectSource": Whole, "desired": SOURCE["declared"](str(tmp_path), ["a=/x"])}
    asyncio.run(executed("\n".join(lines), names, tmp_path / "a"))
    assert os.readlink(tmp_path / "a") == "/x"


def test_a_loop_takes_what_is_said() -> None:
    said = re.findall(r"(\w+)(?:=[^,)]*)?[,)]", library(1).partition("(")[2])
    assert said == list(inspect.signature(Loop).parameters)


def test_without_a_loop(tmp_path: Path) -> None:
    desired = SOURCE["declared"](str(tmp_path), ["a=/x"])
    names = {**SOURCE, "MemoryLedger": MemoryLedger, "source": SOURCE["Symlinks"](), "desired": desired}
    asyncio.run(executed(library(2), names, tmp_path / "a"))
