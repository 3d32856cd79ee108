# SPDX-License-Identifier: MIT
"""How ledger entries stand in a file: lines of JSON, appended whole, read back strictly.

Knows what a line may hold, never what it means for the lines before it: that is linxd.ledger's.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TypeAlias

from linxd.patch import Claim, Entry, Key

Entries: TypeAlias = list[tuple[Key, Entry | None]]


class LineFile:
    """A file that grows by whole lines."""

    def __init__(self, path: str, flags: int, *, owner: str | None = None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        self._size = 0
        self._torn = False
        self.records = 0
        self.unpaid = 0
        """Records written since the next file was last worked on."""
        self.give_up_until = 0
        """After a next file that could not be written: how many records this one may have before another
        try."""
        if owner is not None and os.geteuid() == 0:
            # Root at work on a scope's ledger (a release) leaves it to the user whose directory that is.
            status, mine = os.stat(owner), os.fstat(self._fd)
            if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(self._fd, status.st_uid, status.st_gid)

    def append(self, data: bytes, records: int) -> None:
        """Write all of it or nothing. Raises OSError."""
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._size)
            self._torn = False
            raise
        self._size += len(data)
        self.records += records
        self.unpaid += records

    def content(self) -> bytes:
        with open(self._fd, "rb", closefd=False) as file:
            return file.read()

    def cut(self, size: int) -> None:
        """Drop what stands behind ``size`` bytes."""
        os.ftruncate(self._fd, size)
        self._size = size

    def stranger(self) -> str:
        """Why somebody else may have written it; "" if nobody can have."""
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if status.st_mode & 0o022:
            return "others can write it"
        if os.geteuid() not in (0, status.st_uid):
            return f"it belongs to uid {status.st_uid}"
        return ""

    def lost(self) -> bool:
        """Whether more lines would be of no use: half a line stands at the end, or the file has no name."""
        return self._torn or os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_LETTERS = {Claim.MADE: "m", Claim.TAKEN: "t", Claim.FOUND: "f"}
_PLAIN = {letter: Entry(claim) for claim, letter in _LETTERS.items()}
_CLAIMS = {letter: claim for claim, letter in _LETTERS.items()}


def encoded(line: object) -> bytes:
    """One line."""
    return _encode(line).encode("ascii") + b"\n"


def written(changes: Entries) -> list[object]:
    """Entries as they stand in the file: a letter where there is no more to say, which is nearly always."""
    return [(key, None if entry is None else _form(entry)) for key, entry in changes]


def _form(entry: Entry) -> object:
    letter = _LETTERS[entry.claim]
    if not (entry.original or entry.asked or entry.settled or entry.facts):
        return letter
    return [letter, dict(entry.original), dict(entry.asked), dict(entry.settled), dict(entry.facts)]


def change(item: object) -> tuple[Key, Entry | None]:
    """An entry out of a line, as `written` put it there. Raises ValueError."""
    match item:
        case [key, None]:
            return _key(key), None
        case [key, str(letter)] if letter in _PLAIN:
            return _key(key), _PLAIN[letter]
        case [key, [str(letter), dict(original), dict(asked), dict(settled), dict(facts)]] if (
            letter in _CLAIMS
        ):
            for texts in (original, asked, settled):
                if not all(type(value) is str for value in texts.values()):
                    raise ValueError("not an entry")
            if not all(type(value) in (str, int) for value in facts.values()):
                raise ValueError("not an entry")
            return _key(key), Entry(_CLAIMS[letter], original, asked, settled, facts)
    raise ValueError("not an entry")


def keys_of(item: object) -> list[Key]:
    """A list of keys out of a line. Raises ValueError."""
    match item:
        case list(keys):
            return [_key(key) for key in keys]
    raise ValueError("not a list of keys")


def _key(item: object) -> Key:
    match item:
        case list(members) if (
            members and type(members[0]) is str and all(type(m) in (str, int) for m in members)
        ):
            return tuple(members)
    raise ValueError("not a key")
