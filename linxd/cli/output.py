# SPDX-License-Identifier: MIT
"""What all commands print alike: JSON, and the parsers that commands add themselves to."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def print_json(value: Any) -> None:
    """One document, indented on a terminal, one line elsewhere."""
    json.dump(value, sys.stdout, indent=2 if sys.stdout.isatty() else None)
    print()
