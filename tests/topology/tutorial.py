# SPDX-License-Identifier: MIT
"""The tutorial's example as `linxctl topology` sees it: its files, out of the page, on a machine of a test's
own. Run as a program it writes docs/topology.json and docs/topology.svg anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linxd.topology import from_json, svg
from tests.daemon.running import ROOT
from tests.topology.machine import Machine

PAGE = ROOT / "docs/tutorial.md"
FORM, DRAWING = ROOT / "docs/topology.json", ROOT / "docs/topology.svg"


def files() -> Iterator[tuple[str, str]]:
    """The first form of each scope's file, by scope."""
    known = set()
    for path, text in re.findall(r"```toml\n# /etc/linxd/(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        scope = Path(path).stem
        if path in ("host.toml", f"netns/{scope}.toml") and scope not in known:
            known.add(scope)
            yield scope, text


def seen() -> tuple[dict[str, Any], str]:
    """What `linxctl topology` says of it, for programs and for people."""
    with Machine() as machine:
        machine("ip", "netns", "add", "web")
        for scope, text in files():
            machine.declare(scope, text)
        with machine.daemon("host"), machine.daemon("web"):
            return machine.picture(), machine.linxctl("topology")


def drawing(form: dict[str, Any]) -> str:
    """The file that shows it."""
    return "\n".join(svg(from_json(form))) + "\n"


def main() -> None:
    """Write both files."""
    form, text = seen()
    FORM.write_text(json.dumps(form, indent=2) + "\n")
    DRAWING.write_text(drawing(form))
    print(text, end="")


if __name__ == "__main__":
    main()
