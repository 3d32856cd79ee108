# SPDX-License-Identifier: MIT
"""From what a scope says of its namespace to the namespace itself: found, waited for, entered, and watched
until it ends.

It opens no netlink socket and knows no loop; what happens when a namespace ends is for its caller.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from linxd.culprit import netns_of
from linxd.records import dataclass

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h
_SO_NETNS_COOKIE = 71
_CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


class NotThere(Exception):  # noqa: N818 - an answer, seldom a fault
    """There is no such namespace, or not yet."""


class Refused(Exception):  # noqa: N818
    """It is a namespace that this scope must not touch, or none at all."""


class Ref(Protocol):
    """What a scope says of its namespace: see `linxd.config.NetnsRef`."""

    @property
    def kind(self) -> str:
        """``host``, ``path``, ``pid`` or ``unit``."""

    @property
    def value(self) -> str:
        """The path, number or name."""


@dataclass(slots=True)
class Namespace:
    """A network namespace, held open by ``fd`` until `close`; ``inode`` is that of its nsfs file, ``cookie``
    its name for good. ``pidfd``: the process it was taken from, -1 if it has a name of its own; ``number``
    is the namespace's as `netns_of` has it then. ``cgroup``: directory of the unit it belongs to. ``home``:
    whether it is the one we are in, ``host``: the one of process 1.
    """

    ref: Ref
    fd: int
    inode: tuple[int, int]
    cookie: int
    home: bool
    host: bool
    pidfd: int = -1
    number: int | None = None
    cgroup: str | None = None

    def close(self) -> None:
        """Let go of it: nothing of ours keeps it alive, sockets aside."""
        for descriptor in (self.fd, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self.pidfd = -1


# -- finding it ---------------------------------------------------------------------------------------------


def find(ref: Ref) -> Namespace:
    """The namespace as it is now. Raises NotThere, Refused, OSError.

    ``home`` is to be judged by the caller: the host's own namespace is refused for every scope but the
    host's.
    """
    pidfd, number, cgroup = -1, None, None
    try:
        match ref.kind:
            case "host":
                fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            case "path":
                fd = _open_path(ref.value)
            case "pid":
                fd, pidfd, number = _open_pid(int(ref.value))
            case "unit":
                cgroup = unit_cgroup(ref.value)
                if cgroup is None:
                    raise NotThere(f"unit {ref.value} does not run")
                fd, pidfd, number = _open_pid(_container_process(ref.value, cgroup))
            case _:
                raise Refused(f"{ref.kind} is no kind of namespace")
    except BaseException:
        if pidfd >= 0:
            os.close(pidfd)
        raise
    try:
        inode = inode_of(fd)
        # Where we are already, as a unit's process is, no privilege is needed to look.
        home = inode == path_inode("/proc/thread-self/ns/net")
        cookie = cookie_of() if home else cookie_of(fd)
        return Namespace(
            ref,
            fd,
            inode,
            cookie,
            home=home,
            host=cookie == host_cookie(),
            pidfd=pidfd,
            number=number,
            cgroup=cgroup,
        )
    except BaseException:
        for descriptor in (fd, pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        raise


def locate(ref: Ref) -> str:
    """A path at which the namespace can be opened by those who may. Raises NotThere, Refused, OSError.

    It needs no privilege, and is to be asked in the host's namespace, which it refuses.
    """
    host = netns_of("/proc/self")
    pid = 0
    match ref.kind:
        case "path":
            fd = _open_path(ref.value)
            inode = inode_of(fd)
            os.close(fd)
            if inode != path_inode("/proc/self/ns/net"):
                return ref.value
        case "pid":
            pid = int(ref.value)
        case "unit":
            cgroup = unit_cgroup(ref.value)
            if cgroup is None:
                raise NotThere(f"unit {ref.value} does not run")
            pid = _container_process(ref.value, cgroup)
    if pid:
        its = netns_of(f"/proc/{pid}")
        if its is None:
            raise NotThere(f"there is no process {pid}")
        if its != host:
            return f"/proc/{pid}/ns/net"
    raise Refused(f"{ref} is the host's own network namespace, which only the scope host may touch")


def _open_path(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"{path} is not there") from None
    except PermissionError:
        # `ip netns` lets nobody read that file, and a scope's process has no right to look past that.
        if _is_empty_file(path):
            raise NotThere(_EMPTY.format(path)) from None
        raise
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        empty = stat.S_ISREG(os.fstat(fd).st_mode) and not os.fstat(fd).st_size
        os.close(fd)
        if error.errno == errno.ENOTTY and empty:
            # `ip netns add` makes an empty file first and mounts the namespace on it then.
            raise NotThere(_EMPTY.format(path)) from None
        raise Refused(f"{path} is not a namespace") from None
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise Refused(f"{path} is a namespace, but not of the network")
    return fd


_EMPTY = "{} is an empty file, no namespace is mounted on it"


def _is_empty_file(path: str) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and not found.st_size


def _open_pid(pid: int) -> tuple[int, int, int | None]:
    """The namespace of a process, the process (not another one that has its pid by now), and the number of
    the namespace."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            raise NotThere(f"there is no process {pid}") from None
        raise
    number = netns_of(f"/proc/{pid}")
    try:
        fd = _open_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        os.close(pidfd)
        raise NotThere(f"process {pid} has ended") from None
    except BaseException:
        os.close(pidfd)
        raise
    if ended(pidfd):
        os.close(fd)
        os.close(pidfd)
        raise NotThere(f"process {pid} has ended")
    return fd, pidfd, number


def _open_of(pid: int) -> int:
    """The namespace of a process. Others' may be opened by those only who might trace them, but ours is
    known without that."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        if netns_of(f"/proc/{pid}") != netns_of("/proc/thread-self"):
            raise
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def ended(pidfd: int) -> bool:
    """Whether the process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def unit_cgroup(unit: str, roots: tuple[str, ...] = _CGROUP_ROOTS) -> str | None:
    """The cgroup directory of a unit of the system's manager. None if it doesn't run.

    Units stand in slices and in nothing else: what lies below a service is in other hands, and may bear any
    name.
    """
    wanted = {unit, f"_{unit}"}
    for root in roots:
        pending = [root]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            for name in names:
                if name in wanted:
                    return os.path.join(directory, name)
                if name.endswith(".slice"):
                    pending.append(os.path.join(directory, name))
    return None


def _container_process(unit: str, cgroup: str) -> int:
    """The oldest process of a unit that is not in the host's namespace, where a supervisor sits."""
    host = netns_of("/proc/1") or netns_of("/proc/self")
    oldest: tuple[int, int] | None = None
    for pid in processes(cgroup):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                started = int(file.read().rpartition(b")")[2].split()[19])
        except (OSError, IndexError, ValueError):
            continue
        if netns_of(f"/proc/{pid}") not in (None, host):
            oldest = min(oldest or (started, pid), (started, pid))
    if oldest is None:
        raise NotThere(f"no process of {unit} is in a network namespace of its own")
    return oldest[1]


def processes(cgroup: str) -> Iterator[int]:
    """The processes in a cgroup and below it."""
    for directory, _, files in os.walk(cgroup):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError), open(os.path.join(directory, "cgroup.procs")) as file:
                # 0 stands for processes of other pid namespaces than ours.
                yield from (int(line) for line in file if line.strip() != "0")


# -- being in it --------------------------------------------------------------------------------------------


def enter(fd: int) -> None:
    """Take the calling thread into a network namespace. Raises OSError.

    For a process: before it has a second thread. Those that come later follow it.
    """
    # The type is named because units restrict setns(2) to it.
    if sys.version_info >= (3, 12):
        os.setns(fd, _CLONE_NEWNET)
    elif ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def leave() -> None:
    """Take the calling thread into a new network namespace, which lives as long as anything is in it. Raises
    OSError."""
    if sys.version_info >= (3, 12):
        os.unshare(_CLONE_NEWNET)
    elif ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def cookie_of(fd: int | None = None) -> int:
    """SO_NETNS_COOKIE of a namespace, of the calling thread's for None. Raises OSError (before Linux 5.14).

    It is read off a socket of AF_UNIX, which can write nothing there.
    """
    if fd is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    found: list[int | OSError] = []

    def visit() -> None:
        try:
            enter(fd)
            found.append(cookie_of())
        except OSError as error:
            found.append(error)

    # A thread of its own goes there and does not come back: ours can't end up in the wrong place.
    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    (result,) = found
    if isinstance(result, OSError):
        raise result
    return result


def open_host() -> int | None:
    """A file descriptor of the host's namespace: that of process 1 or, where nobody may look at that, the
    one that we are in; so it is to be asked before another is entered."""
    for process in ("1", "self"):
        try:
            return os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def elsewhere() -> bool:
    """Whether we are in another namespace than the host's."""
    return netns_of("/proc/self") != netns_of("/proc/1")


def host_cookie() -> int | None:
    """The cookie of the namespace of process 1, which is the host's. None where we are elsewhere and may not
    look."""
    if netns_of("/proc/self") == netns_of("/proc/1"):
        return cookie_of()
    try:
        fd = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return cookie_of(fd)
    except PermissionError:
        return None
    finally:
        os.close(fd)


VOLATILE = "this one"
"""The boot that everything in a file system of memory is from."""


def boot_id(directory: str | os.PathLike[str]) -> str:
    """The name of the boot that what lies in ``directory`` is from, if it was written in this one; for a
    directory that is not there yet, the next one above counts.

    What lies in memory is from no other boot, and that is all that is asked then: a container's manager may
    lay another boot's name over the kernel's (systemd-nspawn does), which a service does not see that has
    /proc mounted anew for its protection, and what one of them had written would be nothing to the other.
    """
    path = os.path.realpath(directory)
    while True:
        try:
            device = os.stat(path).st_dev
            break
        except OSError:
            path = os.path.dirname(path)
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            fields, _, system = line.partition(" - ")
            major, _, minor = fields.split(" ", 3)[2].partition(":")
            if os.makedev(int(major), int(minor)) == device and system.startswith(("tmpfs ", "ramfs ")):
                return VOLATILE
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


# -- asked of it later -------------------------------------------------------------------------------------


def inode_of(fd: int) -> tuple[int, int]:
    """What names an open namespace as long as it lives."""
    seen = os.fstat(fd)
    return seen.st_dev, seen.st_ino


def path_inode(path: str, *, follow: bool = True) -> tuple[int, int] | None:
    """What a path names now, None for nothing. ``follow``: through symbolic links."""
    try:
        seen = os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def cgroup_name(namespace: Namespace) -> str | None:
    """The cgroup of the unit that the namespace belongs to, as /proc/PID/cgroup writes it."""
    if namespace.cgroup is None:
        return None
    for root in sorted(_CGROUP_ROOTS, key=len, reverse=True):
        if namespace.cgroup.startswith(root + "/"):
            return namespace.cgroup.removeprefix(root)
    return None


def is_replaced(namespace: Namespace) -> bool:
    """Whether another namespace stands under the same name now."""
    if namespace.ref.kind == "unit" and namespace.cgroup is not None:
        # Numbers are given again, but ours is not: we are in it.
        with contextlib.suppress(NotThere):
            pid = _container_process(namespace.ref.value, namespace.cgroup)
            return netns_of(f"/proc/{pid}") not in (None, namespace.number)
        return False
    if namespace.ref.kind != "path":
        return False
    try:
        fd = _open_path(namespace.ref.value)
    except (NotThere, Refused, OSError):
        return False
    try:
        return inode_of(fd) != namespace.inode
    finally:
        os.close(fd)
