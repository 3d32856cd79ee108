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

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
_DEBUG = "debug"


class NotRead(Exception):  # noqa: N818 - reads as what happened
    """The files could not be read for a reason that is not in them; the text says which."""


class Reading:
    """Files that are being read since this was made. ``name``, ``file``: as `linxd.config.load` has it.
    ``debug``: an error that is linxd's own comes with its traceback, on stderr."""

    def __init__(self, name: str, file: str | None = None, *, debug: bool = False) -> None:
        words = ["-I", "-S", _PROGRAM, name, file or "", *([_DEBUG] if debug else [])]
        if sys.dont_write_bytecode:
            words.insert(0, "-B")
        if sys.pycache_prefix is not None:
            words[:0] = ["-X", f"pycache_prefix={sys.pycache_prefix}"]
        self._error: OSError | None = None
        self._pipe, theirs = os.pipe()
        try:
            self._process = Child([sys.executable, *words], fds={1: theirs} | ({2: 2} if debug else {}))
        except OSError as error:
            self._error = error
        finally:
            os.close(theirs)

    def result(self) -> ScopeConfig:
        """What is declared, waited for. To be asked once, by any thread. Raises `ConfigError` as
        `linxd.config.load` does, and `NotRead`."""
        with open(self._pipe, "rb") as pipe:
            data = pipe.read()
        if self._error is not None:
            raise NotRead(f"no process to read the files can be started: {self._error.strerror}")
        ended = self._process.result()
        if ended:
            raise NotRead(
                data.decode(errors="replace")
                or f"the process that read the files ended with {ended if ended > 0 else f'signal {-ended}'}"
            )
        from linxd import __version__
        from linxd.config.packed import Foreign, unpack

        try:
            return unpack(data)
        except Foreign as error:
            text = (
                f"linxd {error} is installed, and {__version__} runs: to be restarted before it can reload"
            )
            raise NotRead(text) from None


def read(name: str, file: str | None = None, *, debug: bool = False) -> ScopeConfig:
    """Read the files now, and wait for it. Whatever goes wrong is a fault: raises `ConfigError`."""
    from linxd.config.faults import ConfigError, Fault

    try:
        return Reading(name, file, debug=debug).result()
    except NotRead as error:
        raise ConfigError([Fault("", 0, 0, "", str(error))]) from None


def main(words: list[str]) -> int:
    """The process: a scope's name, and the file that was named, or ""."""
    from linxd.config.faults import ConfigError
    from linxd.config.loading import load
    from linxd.config.packed import pack

    name, file, *more = words
    ended = 0
    try:
        try:
            data = pack(load(name, file=file or None))
        except ConfigError as error:
            data = pack(error)
    except Exception as error:
        if _DEBUG in more:
            raise
        data, ended = f"{type(error).__name__}: {error}".encode(errors="replace"), 70
    try:
        with open(1, "wb") as pipe:
            pipe.write(data)
    except BrokenPipeError:
        ended = 1  # nobody waits for it any more
    return ended
