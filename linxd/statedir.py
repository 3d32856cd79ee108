# SPDX-License-Identifier: MIT
"""Where a scope keeps what outlives its process, and the lock that keeps it the only one in its namespace.

It knows files and names, not what is in a ledger, nor how a namespace is found.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

ROOT = "/run/linxd-state"
STATUS = "status.json"
LEDGER = ".ledger"
COMPILED = "compiled"
"""Rulesets as the kernel has them, which can be made again."""
LOCKS = ".lock"
"""Below the root; no scope is called so."""


def root(option: str | None = None) -> str:
    """The directory of all scopes' state: as asked for, as the environment says, or the system's."""
    return option or os.environ.get("LINXD_STATE_DIR") or ROOT


def prepare(base: str, scope: str) -> str:
    """The directory of a scope's state, made if need be, open to nobody else. Raises OSError."""
    os.makedirs(base, 0o755, exist_ok=True)
    path = os.path.join(base, scope)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return path


def scopes(base: str) -> tuple[str, ...]:
    """The scopes that have a directory, by name."""
    try:
        with os.scandir(base) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            return tuple(name for name in names if not name.startswith("."))
    except OSError:
        return ()


def ledgers(base: str, scope: str) -> tuple[str, ...]:
    """The sources of which a scope has a ledger."""
    try:
        names = os.listdir(os.path.join(base, scope))
    except OSError:
        return ()
    return tuple(sorted(name.removesuffix(LEDGER) for name in names if name.endswith(LEDGER)))


def write_status(directory: str, status: Mapping[str, object]) -> None:
    """Leave word of how a scope is, for those who have no bus to ask on. Raises OSError."""
    path = os.path.join(directory, STATUS)
    fresh = f"{path}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:
        json.dump(status, file)
    os.replace(fresh, path)


def read_status(base: str, scope: str) -> dict[str, Any] | None:
    """What `write_status` left; None where there is nothing that can be read."""
    try:
        descriptor = os.open(os.path.join(base, scope, STATUS), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor) as file:
            status = json.load(file)
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def remove(base: str, scope: str) -> None:
    """Remove a scope's directory, with the word of how it was; ledgers are to be dropped before."""
    path = os.path.join(base, scope)
    for name in (STATUS, f"{STATUS}.new"):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(path, name))
    import shutil  # with four compressors behind it, which nobody else needs

    shutil.rmtree(os.path.join(path, COMPILED), ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(path)


class Busy(Exception):  # noqa: N818 - an answer, not a fault
    """Another process serves this namespace, or another namespace as this scope."""

    def __init__(self, pid: int, scope: str, *, elsewhere: bool = False) -> None:
        text = f"this network namespace is served by linxd[{pid}] as scope {scope} already"
        if elsewhere:
            text = f"scope {scope} is served by linxd[{pid}] already, in another network namespace"
        super().__init__(text)
        self.pid = pid
        self.scope = scope


class Lock:
    """The lock on a namespace, by its cookie, for as long as it is held. It ends with the process.

    Locks have a directory of their own: those who run as another user than root may write there, and not
    where scopes keep what they own.
    """

    def __init__(self, base: str, cookie: int, scope: str) -> None:
        """Raises Busy, OSError."""
        directory = os.path.join(base, LOCKS)
        with contextlib.suppress(FileExistsError):
            os.makedirs(base, 0o755, exist_ok=True)
            os.mkdir(directory, 0o755)
        self._path = os.path.join(directory, str(cookie))
        while True:
            self._fd, ours = _open(self._path)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                held = os.pread(self._fd, 4096, 0)
                os.close(self._fd)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                pid, name = _holder(held)
                raise Busy(pid, name) from None
            if ours and _same(self._fd, self._path):
                break
            # It was removed by its last holder between our open and our lock; or it was left by another
            # user's process that was killed, and can't be written to.
            if not ours and _same(self._fd, self._path):
                os.unlink(self._path)
            os.close(self._fd)
        # Others have to see who holds it, whatever the umask is.
        os.fchmod(self._fd, 0o644)
        os.ftruncate(self._fd, 0)
        try:
            os.pwrite(self._fd, f"{os.getpid()} {scope}\n".encode(), 0)
        except OSError as error:
            # A full file system must not keep anybody from being healed: the lock is held all the same, and
            # whoever asks learns that it is, if not by whom.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, self._path) from None

    def release(self) -> None:
        """Let others in."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def occupy(base: str, scope: str) -> int:
    """Lock a scope's directory: of two processes in two namespaces, each would take what the other has
    written there for left over. Returns a descriptor, whose closing lets others in. Raises Busy, OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(os.path.join(base, scope), flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno != errno.EWOULDBLOCK:
            raise
        pids = (pid for pid, name, _ in holders(base) if name == scope and pid != os.getpid())
        pid = next(pids, 0)
        raise Busy(pid, scope, elsewhere=True) from None
    return descriptor


def _open(path: str) -> tuple[int, bool]:
    """A lock's file, and whether it can be written to. Raises OSError."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644), True
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags), False


def holders(base: str) -> Iterator[tuple[int, str, int]]:
    """Who holds a lock now: pid, scope and the namespace's cookie. Looks, and takes no lock even for a
    moment."""
    directory = os.path.join(base, LOCKS)
    try:
        names = os.listdir(directory)
        with open("/proc/locks") as locks:
            held = {fields[5] for fields in map(str.split, locks) if fields[1] == "FLOCK"}
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            cookie = int(name)
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                seen = os.fstat(descriptor)
                if f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}" in held:
                    yield (*_holder(file.read(4096)), cookie)


def _same(descriptor: int, path: str) -> bool:
    mine = os.fstat(descriptor)
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


def _holder(text: bytes) -> tuple[int, str]:
    pid, _, scope = text.decode("utf-8", "replace").strip().partition(" ")
    return (int(pid), scope) if pid.isdigit() else (0, "?")
