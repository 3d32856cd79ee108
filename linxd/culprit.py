# SPDX-License-Identifier: MIT
"""Who wrote: from a netlink port id, or a pid that the kernel names, to a process, its command and its unit.

Two steps, because the writer may be gone within a millisecond: a glimpse at once, certainty later. It reads
/proc and knows no event, no object and no namespace but the one it was made in.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Collection, Iterable

from linxd.patch import Culprit
from linxd.records import dataclass, ready

PID_MAX = 1 << 22
"""PID_MAX_LIMIT (include/linux/threads.h): port ids above are no pids. Second sockets get them."""
NEWEST = 24
"""How many of the newest processes a glimpse looks at for one that came to be just now in a container."""

_SETTLED_AFTER, _SETTLED_FOR, _SETTLED_MOST = 10.0, 1.0, 64
"""A process of that age, in seconds, is taken for the one that it was so many seconds ago."""
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_CAP_NET_ADMIN = 1 << 12
_PF_KTHREAD = 0x00200000
_PROC_PID_INIT_INO = 0xEFFFFFFC  # include/linux/proc_ns.h: the pid namespace that the machine started with
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one moment.

    ``nspid``: its pid in each pid namespace from ours down to its own. ``started``: seconds of
    CLOCK_BOOTTIME, 0.0 of one that ended before that could be read. ``netns`` names its network namespace as
    `netns_of` does, None when it has left it (a process that ends). ``cgroups`` as `cgroup_paths`.
    """

    pid: int
    nspid: tuple[int, ...]
    comm: str
    started: float
    kernel: bool
    net_admin: bool
    netns: int | None
    cgroups: tuple[str, ...]

    @property
    def unit(self) -> str | None:
        """Its systemd unit."""
        return unit_of(self.cgroups)

    @property
    def innermost(self) -> int:
        """Its pid as it sees it itself."""
        return self.nspid[-1]


@dataclass(frozen=True, slots=True)
class Glimpse(Culprit):
    """A port id and the process seen behind it at once, not yet proved. Its words are those of a guess.

    ``pid`` is the port id. ``read_at``: seconds of CLOCK_BOOTTIME. ``socket``: inode of the netlink socket
    that had the port id then, None when there was none any more.
    """

    process: Process | None = None
    read_at: float = 0.0
    socket: int | None = None

    def words(self) -> str:
        """Who it seems to be; a number alone where nobody was seen."""
        name = "process" if self.process is None else self.process.comm
        return f"{name}[{self.pid}] (unconfirmed)"


class Identifier:
    """Names writers to the network namespace that the process is in when this is made.

    ``ours``: further port ids of this process. ``cgroup``: asked for the container's own cgroup as
    /proc/PID/cgroup writes it, None where there is none.
    """

    def __init__(
        self,
        *,
        ours: Collection[int] = (),
        cgroup: Callable[[], str | None] = lambda: None,
        proc: str = "/proc",
    ) -> None:
        self._proc = proc
        self._ours = ours
        self._cgroup = cgroup
        self._settled: dict[int, Glimpse] = {}
        ready(Process, Glimpse)
        self._netns = netns_of(f"{proc}/thread-self")
        self._init_pidns = _pid_namespace(f"{proc}/self") == _PROC_PID_INIT_INO

    # -- from a port id -------------------------------------------------------------------------------------

    def begin(self, portid: int, *, read_at: float | None = None) -> Callable[[], Glimpse] | None:
        """See of the writer what can't wait, a fifth of a glimpse; what is returned sees the rest, a little
        later. None where the port id tells nothing, or is ours.

        ``read_at``: when its message was read, in seconds of CLOCK_MONOTONIC.
        """
        if not 0 < portid <= PID_MAX or portid == os.getpid() or portid in self._ours:
            return None
        moment = time.clock_gettime(time.CLOCK_BOOTTIME)
        if read_at is not None:
            moment -= time.monotonic() - read_at
        known = self._settled.get(portid)
        if known is not None and moment - known.read_at < _SETTLED_FOR:
            return lambda: known
        netns = netns_of(f"{self._proc}/{portid}")
        status = self._status(portid) if netns in (None, self._netns) else b""
        return functools.partial(self._rest, portid, moment, netns, status)

    def glimpse(self, portid: int, *, read_at: float | None = None) -> Glimpse | None:
        """What can be seen of the writer now, in some 60 µs. As `begin`."""
        rest = self.begin(portid, read_at=read_at)
        return None if rest is None else rest()

    def _rest(self, portid: int, moment: float, netns: int | None, status: bytes) -> Glimpse:
        # Whoever bears the pid now that nobody bore it before is somebody else.
        process = self._process(portid, netns, status) if status else None
        if process is None or not self._may_be(process, portid, moment):
            process = self._newest(portid, moment)
        glimpse = Glimpse(portid, process=process, read_at=moment, socket=self._socket(portid))
        if process is not None and moment - process.started > _SETTLED_AFTER and process.started:
            # A daemon that writes all the time need not be looked at each time.
            if len(self._settled) >= _SETTLED_MOST:
                self._settled.clear()
            self._settled[portid] = glimpse
        return glimpse

    def confirm(self, glimpses: Iterable[Glimpse]) -> list[Culprit]:
        """What is certain about each, in order: one walk over /proc for all, some 15 µs a process.

        A process is named only if it alone has the port id for its innermost pid while nothing speaks
        against it: it is in our pid namespace or of the container, is no kernel thread, started before the
        event, has CAP_NET_ADMIN, is in our network namespace, and it and its socket went, or stayed,
        together.
        """
        glimpses = list(glimpses)
        wanted = {glimpse.pid for glimpse in glimpses}
        alive: dict[int, list[Process]] = {portid: [] for portid in wanted}
        if any(wanted):
            for name in os.listdir(self._proc):
                if name.isdigit() and (innermost := self._innermost(name)) in wanted:
                    process = self._process(int(name), netns_of(f"{self._proc}/{name}"))
                    if process is not None and process.innermost == innermost:
                        alive[innermost].append(process)
        return [self._judge(glimpse, alive[glimpse.pid]) for glimpse in glimpses]

    def identify(self, portid: int, *, read_at: float | None = None) -> Culprit | None:
        """Both steps at once, for those who are in no hurry."""
        glimpse = self.glimpse(portid, read_at=read_at)
        return None if glimpse is None else self.confirm([glimpse])[0]

    def _judge(self, glimpse: Glimpse, alive: list[Process]) -> Culprit:
        seen = {} if glimpse.process is None else {_life(glimpse.process): glimpse.process}
        suspects = {
            life: process
            for life, process in {**{_life(process): process for process in alive}, **seen}.items()
            if self._may_be(process, glimpse.pid, glimpse.read_at)
            and (len(process.nspid) == 1 or self._inside(process))
        }
        if len(suspects) != 1:
            return Culprit(glimpse.pid)
        ((life, suspect),) = suspects.items()
        lives = any(_life(process) == life and process.netns is not None for process in alive)
        if lives and (glimpse.socket is None or self._socket(glimpse.pid) != glimpse.socket):
            # The writer has closed its socket, as one does that ends; this one lives on.
            return Culprit(glimpse.pid)
        return Culprit(suspect.pid, suspect.comm, suspect.unit, confirmed=True)

    def _may_be(self, process: Process, portid: int, moment: float) -> bool:
        return (
            process.innermost == portid
            and not process.kernel
            and process.net_admin
            and process.started <= moment
            and process.netns in (None, self._netns)
        )

    def _inside(self, process: Process) -> bool:
        """Whether a process of another pid namespace is of the container: in its network namespace, or,
        where it has left that already because it ends, in its cgroup."""
        if process.netns is not None:
            return process.netns == self._netns
        cgroup = self._cgroup()
        return cgroup is not None and any(
            path == cgroup or path.startswith(cgroup + "/") for path in process.cgroups
        )

    def _look(self, pid: int, portid: int, moment: float) -> Process | None:
        """The process if it may be the writer. What rules out most comes first, in a single system call."""
        netns = netns_of(f"{self._proc}/{pid}")
        if netns not in (None, self._netns):
            return None
        process = self._process(pid, netns)
        return process if process is not None and self._may_be(process, portid, moment) else None

    def _newest(self, portid: int, moment: float) -> Process | None:
        """A process of the container's that is about to end is among the newest, in all likelihood."""
        try:
            last = int(_read(f"{self._proc}/loadavg").rsplit(None, 1)[1])
        except (OSError, ValueError, IndexError):
            return None
        for pid in range(last, max(0, last - NEWEST), -1):
            process = self._look(pid, portid, moment)
            if process is not None and len(process.nspid) > 1:
                return process
        return None

    def _socket(self, portid: int) -> int | None:
        """Inode of the rtnetlink socket with that port id in our network namespace."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in _read(f"{self._proc}/thread-self/net/netlink").splitlines()[1:]:
                fields = line.split()
                if fields[1] == b"0" and int(fields[2]) == portid:
                    return int(fields[9])
        return None

    # -- from the kernel's own word -------------------------------------------------------------------------

    def by_pid(self, pid: int, comm: str | bytes) -> Culprit | None:
        """The process that the kernel names by its global pid and its command, as nftables does
        (NFTA_GEN_PROC_PID)."""
        if pid <= 0 or (self._init_pidns and pid == os.getpid()):
            return None
        name, unit = sanitised(comm), None
        # In a pid namespace of our own that number is not one of our /proc's.
        if self._init_pidns:
            with contextlib.suppress(OSError):
                cgroup = _read(f"{self._proc}/{pid}/cgroup")
                if sanitised(_read(f"{self._proc}/{pid}/comm").removesuffix(b"\n")) == name:
                    unit = unit_of(cgroup_paths(cgroup))
        return Culprit(pid, name, unit, confirmed=True)

    # -- /proc ----------------------------------------------------------------------------------------------

    def _innermost(self, pid: str) -> int:
        """The innermost pid of a process; 0 if it is gone."""
        try:
            status = _read(f"{self._proc}/{pid}/status")
            start = status.index(b"\nNStgid:") + 8
            return int(status[start : status.index(b"\n", start)].split()[-1])
        except (OSError, ValueError, IndexError):
            return 0

    def _status(self, pid: int) -> bytes:
        """What is said of a process first; empty if it is gone."""
        try:
            return _read(f"{self._proc}/{pid}/status")
        except OSError:
            return b""

    def _process(self, pid: int, netns: int | None, status: bytes = b"") -> Process | None:
        """What there is to know of a process in a network namespace; None if it is gone before enough was
        read. ``status``: what was said of it first, where that is known.

        The order matters: what the last reads tell of one that ends meanwhile can be done without.
        """
        base = f"{self._proc}/{pid}"
        status = status or self._status(pid)
        if not status:
            return None
        cgroup = stat = b""
        with contextlib.suppress(OSError):
            cgroup = _read(f"{base}/cgroup")
            stat = _read(f"{base}/stat")
        try:
            lines = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
            # After the command, which may hold anything, parentheses too (proc_pid_stat(5)).
            fields = stat[stat.rindex(b")") + 2 :].split() if stat else []
            return Process(
                pid=pid,
                nspid=tuple(map(int, lines[b"NStgid"].split())),
                comm=sanitised(_unescaped(lines[b"Name"])),
                started=int(fields[19]) * _TICK if fields else 0.0,
                kernel=bool(fields and int(fields[6]) & _PF_KTHREAD),
                net_admin=bool(int(lines[b"CapEff"], 16) & _CAP_NET_ADMIN),
                netns=netns,
                cgroups=cgroup_paths(cgroup),
            )
        except (ValueError, LookupError):
            return None


def _unescaped(name: bytes) -> bytes:
    """A command as it is, from its form in /proc/PID/status (fs/proc/array.c proc_task_name)."""
    return name.replace(b"\\n", b"\n").replace(b"\\\\", b"\\") if b"\\" in name else name


def netns_of(base: str) -> int | None:
    """A number that names the network namespace of a process (``/proc/PID``) as long as it lives, without
    the right to trace it that /proc/PID/ns/net asks for; None once the process has left it.

    Each namespace has procfs entries of its own (fs/proc/proc_net.c); the inode of one of them will do.
    """
    try:
        return os.stat(f"{base}/net/netlink").st_ino
    except OSError:
        return None


def _pid_namespace(base: str) -> int:
    try:
        return os.stat(f"{base}/ns/pid").st_ino
    except OSError:
        return 0


def _life(process: Process) -> tuple[int, float]:
    return process.pid, process.started


def cgroup_paths(cgroup: bytes) -> tuple[str, ...]:
    """The paths in a /proc/PID/cgroup in which systemd keeps its units: the unified hierarchy's, then its
    own of the old ones."""
    unified, own = [], []
    for line in cgroup.decode("utf-8", "surrogateescape").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if line.startswith("0::"):
            unified.append(path.removesuffix(" (deleted)"))
        elif controllers == "name=systemd":
            own.append(path)
    return (*unified, *own)


def unit_of(cgroups: Iterable[str]) -> str | None:
    """The systemd unit that cgroup paths speak of: the last service or scope on the first path that has
    one."""
    for path in cgroups:
        for member in reversed(path.split("/")):
            if member.endswith((".service", ".scope")):
                # A name that a file of the kernel's could have gets a "_" in front (cg_escape of systemd).
                name = member.removeprefix("_")
                return name if _UNIT_NAME.fullmatch(name) else sanitised(name)
    return None


def sanitised(text: str | bytes) -> str:
    """A name that others chose, fit for one line of a log: what is not printable, or has a meaning there, is
    escaped as ``\\x1b``."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable() and not any(character in text for character in '\\[](),"'):
        return text
    return "".join(
        character
        if character.isprintable() and character not in '\\[](),"'
        else "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in text
    )


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, 1 << 16)
        if len(data) < 4096:
            return data
        parts = [data]
        while data := os.read(descriptor, 1 << 16):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)
