# SPDX-License-Identifier: MIT
"""A scope's files read by a process of its own, which ends with that: what it takes to read them (TOML, its
checks, the words of every key) is a tenth of what a daemon would keep in memory, and very many objects that
are read do not hold up what heals meanwhile.

The process is this Python with this linxd, wherever it lies, and nothing else. Nothing is imported here
that is not needed to begin it: the rest of a daemon is imported while it reads.
"""

from __future__ import annotations

import os
import sys

from linxd.child import Child

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from linxd.config.model import ScopeConfig

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_DEBUG = "debug"
LATER = 2.0
"""Seconds after which there is time for what does not matter to anybody."""
_WHOLE = b"="
"""The first byte of an answer; what an error says begins with a letter."""
_NUMBER = 3
"""The descriptor that it has in a process which begins from it."""
_UNUSABLE = 76
"""Exit code of a process that can't begin with what was kept: it is not whole yet, or another Python's."""

_FIRST = """\
import gc, sys
gc.disable()
sys.path.append(sys.argv.pop(1))
from linxd.config.apart import main
sys.exit(main(sys.argv[1:]))
"""
"""A program for ``python3 -I -S -c``: Python's own modules, and behind them those beside this linxd, be that
in a directory or in an archive. It ends before it pays to look for cycles: of what very many routes take to
be read that would be a quarter."""

_BEGIN = f"""\
import gc, marshal, os, sys, zlib
gc.disable()
made, _, data = os.pread({_NUMBER}, 1 << 26, 0).partition(b"\\0")
try:
    assert made.decode() == sys.version
    kept = marshal.loads(zlib.decompress(data[1:]) if data[:1] == b"z" else data[1:])
except Exception:
    sys.exit({_UNUSABLE})
class Kept:
    def find_spec(self, name, path=None, target=None):
        if name in kept:
            return type(sys.__spec__)(name, self, is_package=kept[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        code = marshal.loads(kept[module.__name__][1])
        module.__file__ = code.co_filename
        exec(code, module.__dict__)
sys.meta_path.insert(0, Kept())
from linxd.config.apart import main
sys.exit(main(sys.argv[1:]))
"""
"""A program for ``python3 -I -S -c`` that reads with what was kept (`linxd.config.kept`)."""


class NotRead(Exception):  # noqa: N818 - reads as what happened
    """The files could not be read for a reason that is not in them; the text says which."""


class Reading:
    """Files that are being read since this was made. ``name``, ``file``: as `linxd.config.load` has it.
    ``debug``: an error that is linxd's own comes with its traceback, on stderr. ``kept``: what a first one
    has left behind to read with; without it the first one, which leaves it."""

    def __init__(
        self, name: str, file: str | None = None, *, debug: bool = False, kept: int | None = None
    ) -> None:
        self._said = [name, _DEBUG if debug else "", *([] if file is None else [file])]
        self._first = kept is None
        self._over = False
        self.kept = -1 if kept is None else kept
        """A descriptor, the caller's to close; -1 where there is none."""
        self._begin(["-c", _FIRST, _ROOT] if kept is None else ["-c", _BEGIN])

    def _begin(self, program: list[str]) -> None:
        words = [sys.executable, "-I", "-S", *program, *self._said]
        if sys.dont_write_bytecode:
            words.insert(1, "-B")
        if sys.pycache_prefix is not None:
            words[1:1] = ["-X", f"pycache_prefix={sys.pycache_prefix}"]
        self._error: OSError | None = None
        self._process: Child | None = None
        self._pipe = -1
        try:
            if self.kept < 0:
                self.kept = os.memfd_create("linxd", os.MFD_CLOEXEC)
            self._pipe, theirs = os.pipe()
            try:
                fds = {1: theirs, _NUMBER: self.kept} | ({2: 2} if self._said[1] == _DEBUG else {})
                self._process = Child(words, fds=fds)
            finally:
                os.close(theirs)
        except OSError as error:
            self._error = error
        if self._over:
            self.end()

    def end(self) -> None:
        """Nobody needs it any more: there is nothing to wait for."""
        self._over = True
        if self._process is not None:
            self._process.kill()

    def result(self) -> ScopeConfig:
        """What is declared, waited for. To be asked once, by any thread. Raises `ConfigError` as
        `linxd.config.load` does, and `NotRead`."""
        data = self._answer()
        if not self._first and self._process is not None and self._process.result() == _UNUSABLE:
            # There is no other way than with what is there now.
            self._begin(["-c", _FIRST, _ROOT])
            data = self._answer()
        if self._process is None:
            said = self._error.strerror if self._error is not None else ""
            raise NotRead(f"no process to read the files can be started: {said}")
        whole = data[:1] == _WHOLE
        if not whole or not self._first:
            ended = self._process.result()
            if not whole:
                said = f"ended with {ended}" if ended >= 0 else f"was ended by signal {-ended}"
                said = f"the process that read the files {said}"
                raise NotRead(data.decode(errors="replace") or said)
        from linxd import __version__
        from linxd.config.packed import Foreign, unpack

        try:
            return unpack(data[1:])
        except Foreign as error:
            text = f"{__version__} runs, and linxd {error} is installed: restart it before it reloads"
            raise NotRead(text) from None
        except (EOFError, TypeError, ValueError):
            raise NotRead("the process that read the files ended before it had told all of it") from None

    def _answer(self) -> bytes:
        if self._pipe < 0:
            return b""
        with open(self._pipe, "rb") as pipe:
            return pipe.read()

    async def ended(self) -> None:
        """Wait until the process is gone, after what is kept is whole; and a little later, when what begins
        has begun, have that take less room."""
        import asyncio
        import contextlib

        from linxd.collector import trim
        from linxd.config.kept import squeeze

        if self._process is not None:
            await self._process.wait()
            await asyncio.sleep(LATER)
            with contextlib.suppress(OSError):
                await squeeze(self.kept)
            trim()


class Again:
    """A scope's files, read whenever this is called, by any thread, one call after the other. ``kept``: what
    the first one has left behind."""

    def __init__(self, name: str, file: str | None = None, *, debug: bool = False, kept: int) -> None:
        self._said = name, file, debug, kept
        self._reading: Reading | None = None
        self._closed = False

    def __call__(self) -> ScopeConfig:
        """What is declared by now. Whatever goes wrong is a fault: raises `ConfigError`."""
        from linxd.config.faults import ConfigError, Fault

        name, file, debug, kept = self._said
        self._reading = reading = Reading(name, file, debug=debug, kept=kept)
        if self._closed:
            reading.end()
        try:
            return reading.result()
        except NotRead as error:
            raise ConfigError([Fault("", 0, 0, "", str(error))]) from None

    def close(self) -> None:
        """End what is read now, and whatever is begun after this."""
        self._closed = True
        if self._reading is not None:
            self._reading.end()


def main(words: list[str]) -> int:
    """The process: a scope's name, "debug" or "", and the file if one was named."""
    from linxd.config.faults import ConfigError
    from linxd.config.loading import load
    from linxd.config.packed import pack

    name, more, *file = words
    try:
        try:
            data = pack(load(name, file=file[0] if file else None))
        except ConfigError as error:
            data = pack(error)
    except Exception as error:
        if more == _DEBUG:
            raise
        _tell(f"{type(error).__name__}: {error}".encode(errors="replace"))
        return 70
    _tell(_WHOLE + data)
    if not os.fstat(_NUMBER).st_size:
        from linxd.config.kept import leave

        leave(_NUMBER)
    return 0


def _tell(data: bytes) -> None:
    try:
        with open(1, "wb") as pipe:
            pipe.write(data)
    except BrokenPipeError:
        pass  # nobody waits for it any more
