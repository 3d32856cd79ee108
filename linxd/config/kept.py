# SPDX-License-Identifier: MIT
"""What reads files, kept for as long as a daemon runs: an upgrade may replace or take away the files that it
comes from, and a reload reads with what it was begun with.

It is a file without a name, that the first process which reads leaves behind and each later one begins
from: 0.2 MB which nobody maps. It knows nothing of what is read.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import sys
import zlib
from types import ModuleType
from typing import Any

_HEADER = struct.Struct("<4xIII")
"""That of a .pyc file: the magic number, flags, the source's time and its size."""
STEP = 8192
"""Bytes that are squeezed at a time."""


def leave(number: int) -> None:
    """Write down all of linxd that this process has loaded. Raises OSError, and what a loader raises."""
    loaded = {
        name: (hasattr(module, "__path__"), _code(module))
        for name, module in sys.modules.items()
        if name == "linxd" or name.startswith("linxd.")
    }
    os.pwrite(number, sys.version.encode() + b"\0r" + marshal.dumps(loaded), 0)


def _code(module: ModuleType) -> bytes:
    """Read where it stands ready, for to have it loaded once more takes ten times as long."""
    spec = module.__spec__
    assert spec is not None
    if spec.cached is not None and spec.origin is not None:
        with contextlib.suppress(OSError), open(spec.cached, "rb") as file:
            data, source = file.read(), os.stat(spec.origin)
            # importlib's own test of whether it is that of the source.
            made = _HEADER.unpack_from(data) if len(data) > _HEADER.size else None
            if made == (0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF):
                return data[_HEADER.size :]
    loader: Any = spec.loader
    return marshal.dumps(loader.get_code(module.__name__))


async def squeeze(number: int) -> None:
    """Have what was left take half of the room, behind the same descriptor, at once for all who use it; a
    tenth of a millisecond at a time, and without a thread, whose own memory would stay. Raises OSError."""
    import asyncio  # whoever leaves it has none

    made, _, rest = os.pread(number, 256, 0).partition(b"\0")
    if rest[:1] != b"r":
        return
    other = os.memfd_create("linxd", os.MFD_CLOEXEC)
    try:
        os.write(other, made + b"\0z")
        packer = zlib.compressobj(1, zlib.DEFLATED, 13, 5)
        at = len(made) + 2
        while piece := os.pread(number, STEP, at):
            os.write(other, packer.compress(piece))
            at += len(piece)
            await asyncio.sleep(0)
        os.write(other, packer.flush())
        os.dup2(other, number, inheritable=False)
    finally:
        os.close(other)
