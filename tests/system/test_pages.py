# SPDX-License-Identifier: MIT
"""Every page is typed into a fresh machine exactly as it is written, and shows what it says it shows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import bed, install, pages
from tests.system.bed import Machine

PAGES = sorted(
    path.relative_to(pages.ROOT).as_posix()
    for path in (pages.ROOT / "README.md", *(pages.ROOT / "docs").rglob("*.md"))
    if any(isinstance(step, pages.Command) for step in pages.steps(path.read_text()))
)
SEEN_SECONDS = 30.0
"""For what is to be seen after something that goes on by itself."""


@pytest.fixture(params=sorted(bed.RELEASES), ids=lambda release: f"debian{release}")
def fresh(request: pytest.FixtureRequest, boot: Callable[..., Machine]) -> Iterator[Machine]:
    """A machine with the package at hand, not installed."""
    try:
        package = install.package()
        with boot(request.param) as machine:
            shutil.copy(package, Path(machine.root, "root", package.name))
            yield machine
    except bed.Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_typed_as_it_is_written(page: str, fresh: Machine) -> None:
    text = (pages.ROOT / page).read_text()
    if "apt install ./linxd_" not in text:
        fresh.do("sh", "-c", "apt-get install -y /root/linxd_*.deb")
    for step in pages.steps(text):
        if isinstance(step, pages.File):
            fresh.write(step.path, step.text)
        elif isinstance(step, pages.Command):
            follow(fresh, page, step)


def follow(machine: Machine, page: str, command: pages.Command) -> None:
    """Type a command; again, for a while, as long as it shows something else."""
    script = "cd /root; export DEBIAN_FRONTEND=noninteractive; exec 2>&1; " + command.text
    end = time.monotonic() + SEEN_SECONDS
    while True:
        done = machine.run("bash", "-c", script, user=None if command.root else "nobody")
        where = f"{page}:{command.line}: {command.text}"
        if done.returncode == 0 and (command.shown is None or pages.matches(command.shown, done.stdout)):
            return
        if time.monotonic() > end or not command.shown:
            raise AssertionError(f"{where}: status {done.returncode}, and not as shown:\n{done.stdout}")
        time.sleep(0.5)


def test_there_are_pages() -> None:
    assert "docs/tutorial.md" in PAGES


def test_what_is_not_run_says_why() -> None:
    for path in (pages.ROOT / "docs").rglob("*.md"):
        for step in pages.steps(path.read_text()):
            assert not isinstance(step, pages.Skipped) or len(step.why) > 10, (path, step)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("", "", True),
        ("", "x\n", False),
        ("a", "b\n", False),
        ("a …\nb", "a 1 2\nb\n", True),
        ("a …\nb", "a 1\nc\nb\n", False),
        ("…\nb\n…", "b\n", True),
        ("…\nb\n…", "a\na\nb\nc\n", True),
        ("…\nb", "a\n", False),
        ("…", "", True),
        ("done (by ip[1]), 1 op in 3 ms", "done, 1 op in 0.2 ms\n", True),
        ("done (deleted by ip[1])", "done (deleted by nft[33] in a-b.scope)\n", True),
    ],
)
def test_what_counts_as_shown(shown: str, printed: str, same: bool) -> None:
    assert pages.matches(shown, printed) is same


def test_blocks_that_are_wrong() -> None:
    for text in ("```console\nx\n```", "```console\n# x\n"):
        with pytest.raises(ValueError, match="line"):
            list(pages.steps(text))
