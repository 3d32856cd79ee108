# SPDX-License-Identifier: MIT
"""The manual pages say what docs/ says, and man(1) understands them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("linxctl.1", "linxd.8", "linxd.toml.5", "org.linxd1.5")


def test_they_are_as_the_documentation_is(tmp_path: Path) -> None:
    subprocess.run(["/usr/bin/python3", ROOT / "tools/manpages", tmp_path], check=True)
    for name in PAGES:
        fresh, kept = (tmp_path / name).read_text(), (ROOT / "docs/man" / name).read_text()
        assert fresh == kept, f"{name} is not what docs/ says any more: make man"


@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_complain_about(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    command = ["groff", "-man", "-ww", "-Tutf8", "-K", "utf8", "-z", ROOT / "docs/man" / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
