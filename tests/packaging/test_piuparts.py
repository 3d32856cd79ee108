# SPDX-License-Identifier: MIT
"""piuparts finds nothing: installed, upgraded, removed, installed again and purged in a tree of each
release, the package leaves no file, no broken link and no process.

There is no network and no systemd in such a tree; what happens to what runs is for tests/system.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import bed, install

SECONDS = 500.0
BROKEN = re.compile(r"WARN: Broken symlinks:\n((?:  .*\n)+)")


@pytest.fixture(params=sorted(bed.RELEASES), ids=lambda release: f"debian{release}")
def release(request: pytest.FixtureRequest) -> str:
    if shutil.which("piuparts") is None:
        pytest.skip("needs piuparts")
    return str(request.param)


@pytest.fixture
def tree(release: str, tmp_path: Path) -> Iterator[Path]:
    """A release whose archive has linxd as it is, and nothing else."""
    try:
        base, package = bed.tree(release), install.package()
    except bed.Unavailable as error:
        pytest.skip(str(error))
    for part in ("upper", "work", "root"):
        (tmp_path / part).mkdir()
    root = tmp_path / "root"
    layers = f"lowerdir={base},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "piuparts", "-o", layers, root],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    try:
        archive = root / "srv/archive"
        archive.mkdir()
        shutil.copy(package, archive)
        index = subprocess.run(
            ["dpkg-scanpackages", "."], cwd=archive, capture_output=True, text=True, check=True
        )
        (archive / "Packages").write_text(index.stdout)
        for source in (root / "etc/apt/sources.list.d").iterdir():
            source.unlink()
        (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/archive ./\n")
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


def test_nothing_is_left(tree: Path, release: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    work = tmp_path / "chroots"
    work.mkdir()
    done = subprocess.run(
        [
            "piuparts", f"--distribution={bed.RELEASES[release]}", f"--existing-chroot={tree}",
            f"--tmpdir={work}", f"--log-file={log}", "--keep-sources-list", "--no-eatmydata",
            "--skip-minimize", "--pedantic-purge-test", "--install-remove-install", install.next_package(),
        ],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    said = log.read_text()
    assert done.returncode == 0, said[-5000:]
    for passed in ("Installation and purging test", "Installation, upgrade and purging tests", "All tests"):
        assert f"PASS: {passed}." in said
    # Some that are broken are the release's own.
    broken = [set(found.split("\n")) for found in BROKEN.findall(said)]
    assert all(found == broken[0] for found in broken)
    assert "linx" not in "".join("".join(found) for found in broken)
