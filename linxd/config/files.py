# SPDX-License-Identifier: MIT
"""Which files declare a scope, and reading them only where nobody but their owner can have written them.

It opens files and knows no key in them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence

from linxd.config.faults import Fault, Refused
from linxd.config.model import HOST, valid_name
from linxd.records import dataclass, field

DIRECTORIES = ("/etc/linxd", "/run/linxd", "/usr/lib/linxd")
"""Where files are looked up; earlier ones win."""
ROOT: Collection[int] = (0,)
LARGEST = 64 << 20
"""Bytes of a file that is read at all."""
_LINKS = 40
"""Symbolic links that are followed, as the kernel does (MAXSYMLINKS)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of one scope. ``main`` None: nothing is declared, because there is no file or because it is
    masked by ``masked``. ``drop_ins`` are in the order of merging."""

    name: str
    main: str | None
    masked: str | None = None
    drop_ins: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, the main file first."""
        return () if self.main is None else (self.main, *self.drop_ins)


def main_file(name: str) -> str:
    """Where a scope's main file is below one of the directories."""
    return "host.toml" if name == HOST else f"netns/{name}.toml"


def find(name: str, directories: Sequence[str] = DIRECTORIES) -> Found:
    """The files that declare a scope. Raises OSError where a directory of drop-ins can't be listed."""
    relative = main_file(name)
    main = next(
        (path for path in (os.path.join(base, relative) for base in directories) if _there(path)), None
    )
    if main is None:
        return Found(name, None)
    if _masks(main):
        return Found(name, None, masked=main)
    by_name: dict[str, str] = {}
    for base in directories:
        folder = os.path.join(base, relative + ".d")
        try:
            entries = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.endswith(".toml") and not entry.startswith("."):
                by_name.setdefault(entry, os.path.join(folder, entry))
    drop_ins = (by_name[entry] for entry in sorted(by_name))
    return Found(name, main, drop_ins=tuple(path for path in drop_ins if not _masks(path)))


def declared_names(directories: Sequence[str] = DIRECTORIES) -> tuple[str, ...]:
    """Scopes that have a file which is not masked: ``host`` first, the others by name. Directories that
    can't be read count as empty."""
    found: set[str] = set()
    for base in directories:
        try:
            entries = os.listdir(os.path.join(base, "netns"))
        except OSError:
            continue
        found.update(entry[:-5] for entry in entries if entry.endswith(".toml") and valid_name(entry[:-5]))
    names = [HOST, *sorted(found)]
    return tuple(name for name in names if _has_main(name, directories))


def _has_main(name: str, directories: Sequence[str]) -> bool:
    relative = main_file(name)
    main = next(
        (path for path in (os.path.join(base, relative) for base in directories) if _there(path)), None
    )
    return main is not None and not _masks(main)


def _there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # it can't be looked at: reading it says why
    return True


def _masks(path: str) -> bool:
    """An empty file or a link to /dev/null."""
    try:
        seen = os.stat(path)
    except OSError:
        return False
    return stat.S_ISCHR(seen.st_mode) or (stat.S_ISREG(seen.st_mode) and seen.st_size == 0)


@dataclass(slots=True)
class Opener:
    """Reads files, and looks at who could have written them.

    ``owners``: user ids that a file and the directories on the way to it may belong to; none of them may be
    writable by anybody else. None: not looked at.
    """

    owners: Collection[int] | None = ROOT
    _directories: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> str:
        """A file's text. Raises `Refused`."""
        try:
            if self.owners is not None:
                self._check_way(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            hint = "files are readable by group linxd" if isinstance(error, PermissionError) else ""
            raise Refused(f"can't be read: {error.strerror}", hint) from None
        try:
            self._check_file(os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(LARGEST + 1)
        except OSError as error:
            raise Refused(f"can't be read: {error.strerror}") from None
        finally:
            os.close(descriptor)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise Refused(f"is not UTF-8: byte {data[error.start]:#04x} on line {line}") from None

    def _check_file(self, seen: os.stat_result) -> None:
        if not stat.S_ISREG(seen.st_mode):
            raise Refused("is not a regular file")
        if self.owners is not None:
            _refuse(_written_by_others(seen, self.owners, sticky=False))
        if seen.st_size > LARGEST:
            raise Refused(f"has {seen.st_size} bytes, want at most {LARGEST}")

    def included(self, said_in: str, name: str, roots: Sequence[str]) -> tuple[str, str]:
        """The file that another one names, relative to it: its path and its text. Raises `Refused` for what
        is outside ``roots`` after symbolic links."""
        if not name or "\0" in name:
            raise Refused("names no file")
        path = os.path.normpath(os.path.join(os.path.dirname(said_in), name))
        real = os.path.realpath(path)
        if not any(within(real, os.path.realpath(root)) for root in roots):
            raise Refused(f"{real} is outside {' and '.join(roots)}")
        try:
            return path, self.read(path)
        except Refused as error:
            raise Refused(f"{path} {error.message}", error.hint) from None

    def _check_way(self, path: str) -> None:
        assert self.owners is not None
        way = list(_way(os.path.abspath(path)))
        for directory in dict.fromkeys(way):
            last = directory == way[-1]
            key = directory + ("/" if last else "")
            if key not in self._directories:
                why = _written_by_others(os.stat(directory), self.owners, sticky=not last)
                self._directories[key] = f"is in {directory}, which {why}" if why else ""
            _refuse(self._directories[key])


def _refuse(why: str) -> None:
    if why:
        raise Refused(why, "files and directories belong to root and are writable by nobody else")


def _way(path: str) -> Iterator[str]:
    """Every directory that is passed on the way to a file, its own last; symbolic links are followed."""
    pending = path.split("/")[::-1]
    at = "/"
    links = 0
    while pending:
        member = pending.pop()
        if member in ("", "."):
            continue
        if member == "..":
            at = os.path.dirname(at)
            continue
        yield at
        full = os.path.join(at, member)
        try:
            target = os.readlink(full)
        except OSError:
            at = full
            continue
        links += 1
        if links > _LINKS:
            raise Refused("leads through too many symbolic links")
        if target.startswith("/"):
            at = "/"
        pending += target.split("/")[::-1]


def _written_by_others(seen: os.stat_result, owners: Collection[int], *, sticky: bool) -> str:
    """Who besides the owners may write, in words; "" if nobody. ``sticky``: a directory such as /tmp, in
    which nobody can touch another's entry, is fine."""
    if seen.st_uid not in owners:
        return f"belongs to user {seen.st_uid}"
    if seen.st_mode & 0o022 and not (sticky and seen.st_mode & stat.S_ISVTX):
        return f"has mode {stat.S_IMODE(seen.st_mode):04o}: its group or everybody can write to it"
    return ""


def within(path: str, root: str) -> bool:
    """Whether a path is below a directory, both without symbolic links."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def unreadable(path: str, error: Refused) -> Fault:
    """The fault of a file that can't be read or must not be trusted."""
    return Fault(path, 0, 0, "", error.message, error.hint)
