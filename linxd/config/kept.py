# SPDX-License-Identifier: MIT
"""What reads files, kept for as long as a daemon runs: an upgrade may replace or take away the files that it
comes from, and a reload reads with what it was begun with.

It is a file without a name, that the first process which reads leaves behind and each later one begins
from: 0.2 MB which nobody maps. It knows nothing of what is read.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from typing import Any

NUMBER = 3
"""The descriptor that it has in a process which begins from it."""
OTHER_PYTHON = 76
"""Exit code of a process that was begun by another Python than what is kept was made for."""

BEGIN = f"""\
import marshal, os, sys, zlib
data = os.pread({NUMBER}, 1 << 26, 0)
made, _, rest = data.partition(b"\\0")
if made.decode() != sys.version:
    sys.exit({OTHER_PYTHON})
kept = marshal.loads(zlib.decompress(rest))
class Kept:
    def find_spec(self, name, path=None, target=None):
        if name in kept:
            return type(sys.__spec__)(name, self, origin=kept[name][1].co_filename, is_package=kept[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__file__ = kept[module.__name__][1].co_filename
        exec(kept[module.__name__][1], module.__dict__)
sys.meta_path.insert(0, Kept())
from linxd.config.apart import main
sys.exit(main(sys.argv[1:]))
"""
"""A program for ``python3 -I -S -c``."""


def leave(number: int) -> None:
    """Write down all of linxd that this process has loaded."""
    import marshal
    import zlib

    loaded = {}
    for name, module in sys.modules.items():
        if name == "linxd" or name.startswith("linxd."):
            loader: Any = getattr(module, "__loader__", None)
            code = loader.get_code(name) if hasattr(loader, "get_code") else None
            if code is None:
                return
            loaded[name] = hasattr(module, "__path__"), code
    data = sys.version.encode() + b"\0" + zlib.compress(marshal.dumps(loaded), 1)
    os.pwrite(number, data, 0)
