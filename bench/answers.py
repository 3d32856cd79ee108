#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How long a D-Bus call waits while a daemon is busy with very many routes, phase by phase.

A client in a process of its own asks for the scope's state every few milliseconds, on a bus that is there
for this alone. Beside what it waits stands how long a turn of the daemon's event loop keeps the processor,
which does not depend on who else uses the machine; below, how long the watchdog went without a ping.
`--routes N` for another number, `--where` for the places where the longest turns are spent. First with
routes that the kernel takes, then with as many that it refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linxd.bus import names
from linxd.bus.connection import Connection, Unreachable
from linxd.bus.library import Message, MessageFlag

ROOT = Path(__file__).resolve().parents[1]
SCOPE, PROPERTIES = "org.linxd1.Scope", "org.freedesktop.DBus.Properties"
EVERY = 0.002
"""Seconds between an answer and the next question."""
LONG = 0.005
"""Seconds from which on a turn of the event loop is written down."""
PATIENCE = 300.0
WATCHDOG = 20.0
"""Seconds without a ping after which its unit would have it killed."""

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_LINK = '[link.v0]\nkind = "veth"\npeer = { name = "v1" }\naddresses = ["192.0.2.5/24"]\n'


def declaration(count: int, *, refused: bool) -> str:
    """A pair of links and so many routes, over a gateway that nobody has where they are to be refused."""
    over = 'dev = "v0"\nvia = "203.0.113.9"\n' if refused else 'dev = "v0"\n'
    routes = (f'[[route]]\nto = "10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32"\n{over}' for n in range(count))
    return f'[scope]\nresync = "0"\n{_LINK}{"".join(routes)}'


# -- in the daemon's process -----------------------------------------------------------------------------


def serve(log: str, arguments: list[str]) -> int:
    """Be the daemon, and write down each long turn of the event loop: when it ended, how long it kept the
    processor, how long it took, and where the longest step of it stands."""
    from asyncio import base_events, events

    from linxd.cli import daemon

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    run_once, run = base_events.BaseEventLoop._run_once, events.Handle._run  # type: ignore[attr-defined]
    worst: tuple[float, Any] = (0.0, None)

    def measured(self: Any) -> None:
        nonlocal worst
        began = time.thread_time()
        run(self)
        spent = time.thread_time() - began
        if spent > worst[0]:
            worst = spent, self

    def turned(self: Any) -> None:
        nonlocal worst
        worst = 0.0, None
        began, at = time.thread_time(), time.monotonic()
        run_once(self)
        spent, ended = time.thread_time() - began, time.monotonic()
        # Of the time that passed, that of waiting for something to do counts for nothing.
        took = ended - max(at, _woke[0])
        if spent > LONG or took > 4 * LONG:
            line = f"{ended:.6f} {spent:.6f} {took:.6f} {worst[0]:.6f} {_place(worst[1])}\n"
            os.write(out, line.encode())

    events.Handle._run = measured  # type: ignore[method-assign]
    base_events.BaseEventLoop._run_once = turned  # type: ignore[attr-defined]
    _note_waking()
    return daemon.main(arguments)


_woke = [0.0]


def _note_waking() -> None:
    import selectors

    select = selectors.EpollSelector.select

    def selected(self: Any, timeout: float | None = None) -> Any:
        ready = select(self, timeout)
        _woke[0] = time.monotonic()
        return ready

    selectors.EpollSelector.select = selected  # type: ignore[method-assign]


def _place(handle: Any) -> str:
    """Where a step of the event loop stands when it is over."""
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return str(getattr(callback, "__qualname__", callback)).replace(" ", "_")
    where = [task.get_name()]
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            where.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return ">".join((where[0], *where[-4:])).replace(" ", "_")


# -- in the client's process -----------------------------------------------------------------------------


def ping(path: str, scope: str, log: str) -> int:
    """Ask for the scope's state until the bus is gone; write down when each answer came and how long it
    took."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    sock.sendall(f"\0AUTH EXTERNAL {str(os.geteuid()).encode().hex()}\r\n".encode())
    assert sock.recv(1024).startswith(b"OK ")
    sock.sendall(b"BEGIN\r\n")
    file = sock.makefile("rb")

    def asked(message: Message) -> int:
        """The type of the answer."""
        sock.sendall(bytes(message._marshall()))
        while True:
            head = file.read(16)
            if len(head) < 16:
                raise ConnectionResetError
            (body,), (fields,) = struct.unpack_from("<I", head, 4), struct.unpack_from("<I", head, 12)
            file.read((fields + 7 & ~7) + body)
            if head[1] in (2, 3):
                return head[1]

    bus = "org.freedesktop.DBus"
    asked(Message(bus, "/org/freedesktop/DBus", bus, "Hello", serial=1))
    question = Message(
        names.bus_name(scope), names.scope_path(scope), PROPERTIES, "Get", flags=MessageFlag.NO_AUTOSTART,
        signature="ss", body=[SCOPE, "State"], serial=2,
    )  # fmt: skip
    with open(log, "w", buffering=1) as out, contextlib.suppress(OSError):
        while True:
            began = time.monotonic()
            kind = asked(question)
            ended = time.monotonic()
            if kind == 2:
                out.write(f"{began:.6f} {ended - began:.6f}\n")
            time.sleep(EVERY)
    return 0


# -- the measurement -------------------------------------------------------------------------------------


@dataclass
class Phase:
    """One thing that the daemon was busy with."""

    name: str
    began: float
    ended: float = 0.0
    cpu: float = 0.0
    waits: list[float] = field(default_factory=list)
    turns: list[tuple[float, float, str]] = field(default_factory=list)
    """Seconds of the processor, seconds that passed, and where."""


class Bed:
    """A namespace, a bus, a daemon on it, and somebody who asks all the time."""

    def __init__(self, directory: Path, count: int, *, refused: bool) -> None:
        self.scope = f"lx-answers-{os.getpid()}"
        self.directory = directory
        self.count = count
        self.phases: list[Phase] = []
        self._bus = directory / "bus"
        self._file = directory / "scope.toml"
        self._file.write_text(declaration(count, refused=refused))
        self.address = f"unix:path={self._bus}"
        self._processes: list[subprocess.Popen[Any]] = []
        self.daemon: subprocess.Popen[Any] | None = None
        self.pings: list[float] = []
        """When it told the watchdog that it is well."""
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        threading.Thread(target=self._listen, daemon=True).start()
        self._spent = 0.0

    def _listen(self) -> None:
        while words := self._notify.recv(4096):
            if b"WATCHDOG=1" in words.split(b"\n"):
                self.pings.append(time.monotonic())

    def open(self) -> None:
        """Make the namespace, start the bus and the client."""
        run("ip", "netns", "add", self.scope)
        config = self.directory / "bus.conf"
        config.write_text(_BUS.format(self._bus))
        bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(bus)
        assert bus.stdout is not None
        assert bus.stdout.readline()
        words = [
            sys.executable,
            __file__,
            "--ping",
            str(self._bus),
            self.scope,
            str(self.directory / "pings"),
        ]
        self._processes.append(subprocess.Popen(words))

    def start(self) -> None:
        """Start the daemon."""
        words = [sys.executable, __file__, "--serve", str(self.directory / "turns")]
        words += [
            "--scope",
            self.scope,
            "--file",
            str(self._file),
            "--state-dir",
            str(self.directory / "state"),
        ]
        clean = {
            key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")
        }
        self.daemon = subprocess.Popen(
            words,
            cwd=ROOT,
            stderr=open(self.directory / "log", "w"),  # noqa: SIM115 - the process has it
            env={
                **clean,
                "DBUS_SYSTEM_BUS_ADDRESS": self.address,
                "NOTIFY_SOCKET": str(self.directory / "notify"),
                "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)),
            },
        )
        self._processes.append(self.daemon)

    def close(self) -> None:
        """End everything that was started."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(self.directory / "notify"))
        run("ip", "netns", "del", self.scope)

    async def phase(self, name: str, work: Awaitable[Any]) -> Any:
        """Measure what the daemon does meanwhile."""
        phase = Phase(name, time.monotonic())
        before = self._cpu()
        try:
            return await work
        finally:
            # What is cleared away afterwards belongs to it.
            await asyncio.sleep(0.5)
            phase.ended = time.monotonic()
            phase.cpu = self._cpu() - before
            self.phases.append(phase)

    def _cpu(self) -> float:
        assert self.daemon is not None
        try:
            fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return self._spent
        self._spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self._spent

    def read(self) -> None:
        """What was written down, phase by phase."""
        for began, wait in _numbers(self.directory / "pings", 2):
            for phase in self.phases:
                if phase.began <= began + wait and began <= phase.ended:
                    phase.waits.append(wait)
        for line in (self.directory / "turns").read_text().splitlines():
            at, cpu, took, longest, where = line.split(" ", 4)
            for phase in self.phases:
                if phase.began <= float(at) <= phase.ended:
                    phase.turns.append((float(cpu), float(took), f"{float(longest) * 1e3:.0f} ms {where}"))


def _numbers(path: Path, count: int) -> Iterator[list[float]]:
    for line in path.read_text().splitlines():
        numbers = [float(word) for word in line.split()]
        if len(numbers) == count:
            yield numbers


def run(*command: str) -> str:
    """Run a command; its output. Raises with its own words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


async def phases(bed: Bed, *, refused: bool) -> None:
    """Have the daemon do everything that takes long, or that takes long when the kernel refuses it all."""
    name, path = names.bus_name(bed.scope), names.scope_path(bed.scope)
    client = Connection(bed.address)
    await client.open()

    async def ask(member: str, signature: str = "", *body: Any) -> Any:
        return await client.call(name, path, SCOPE, member, signature, body, seconds=PATIENCE)

    async def until_there() -> None:
        while True:
            with contextlib.suppress(Exception):
                await client.call(name, path, "org.freedesktop.DBus.Peer", "Ping", seconds=PATIENCE)
                return
            await asyncio.sleep(0.02)

    async def converged() -> None:
        assert await ask("WaitConverged", "tt", 0, int(PATIENCE * 1e6)) == [True]

    async def pages(member: str, signature: str, *filters: Any) -> None:
        offset, total = 0, 1
        while offset < total:
            page, total, *_ = await ask(member, signature, *filters, offset, 1000)
            offset += len(page)
            if not page:
                break

    async def flush() -> None:
        await asyncio.to_thread(
            run, "ip", "-n", bed.scope, "route", "flush", "dev", "v0", "root", "10.0.0.0/8"
        )

    async def flushed_and_healed() -> None:
        await flush()
        await ask("Reconcile")
        await converged()

    async def looked() -> None:
        """A pass over them all is over: each was tried."""
        while True:
            [counts] = await client.call(name, path, PROPERTIES, "Get", "ss", (SCOPE, "Counts"))
            if counts.value["failed"] + counts.value["pending"] >= bed.count:
                return
            await asyncio.sleep(0.1)

    async def reconciled() -> None:
        await ask("Reconcile")

    async def resume() -> None:
        await ask("Resume")
        await converged()

    async def stop() -> None:
        assert bed.daemon is not None
        bed.daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(Unreachable):
            await asyncio.to_thread(bed.daemon.wait, PATIENCE)

    bed.start()
    await until_there()
    if refused:
        await bed.phase("first pass", looked())
        await bed.phase("Reconcile", reconciled())
        await bed.phase("ListObjects, every page", pages("ListObjects", "suu", ""))
        await bed.phase("Plan of everything, every page", pages("Plan", "uu"))
        await bed.phase("Reload", ask("Reload"))
        await bed.phase("stop", stop())
        client.close()
        return
    await bed.phase("first pass", converged())
    await bed.phase("Reconcile", ask("Reconcile"))
    await bed.phase("ListObjects, every page", pages("ListObjects", "suu", ""))
    await bed.phase("Describe", ask("Describe"))
    await bed.phase("Reload", ask("Reload"))
    await ask("Pause", "t", 3_600_000_000)
    await bed.phase("paused, all flushed", flush())
    await bed.phase("Reconcile's look while paused", ask("Plan", "uu", 0, 1))
    await bed.phase("Plan of everything, every page", pages("Plan", "uu"))
    await bed.phase("ListObjects, all drifted", pages("ListObjects", "suu", ""))
    await bed.phase("Resume and heal", resume())
    await bed.phase("Plan of nothing", ask("Plan", "uu", 0, 1000))
    await bed.phase("all flushed and healed", flushed_and_healed())
    await bed.phase("stop", stop())
    client.close()


def measure(count: int, *, refused: bool = False, where: bool = False) -> dict[str, list[float]]:
    """Waits in seconds, by phase; prints a table."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        bed = Bed(Path(directory), count, refused=refused)
        bed.open()
        try:
            asyncio.run(phases(bed, refused=refused))
        finally:
            bed.close()
        bed.read()
    kind = "routes that the kernel refuses" if refused else "routes"
    print(f"\nanswers while {count:,} {kind} are dealt with, in ms; turns of the daemon's event loop")
    head = ("", "took, s", "CPU, s", "answers", "p99", "longest wait", "longest turn's CPU", "its time")
    print(f"  {head[0]:<32}" + "".join(f"{title:>20}" for title in head[1:]))
    for phase in bed.phases:
        waits = sorted(phase.waits) or [float("nan")]
        cpu = max((turn[0] for turn in phase.turns), default=0.0)
        took = max((turn[1] for turn in phase.turns), default=0.0)
        row = [
            f"{phase.ended - phase.began - 0.5:.1f}", f"{phase.cpu:.1f}", str(len(phase.waits)),
            f"{waits[round((len(waits) - 1) * 0.99)] * 1e3:.1f}", f"{waits[-1] * 1e3:.1f}",
            f"{cpu * 1e3:.1f}", f"{took * 1e3:.1f}",
        ]  # fmt: skip
        print(f"  {phase.name:<32}" + "".join(f"{cell:>20}" for cell in row))
        if where:
            for spent, passed, place in sorted(phase.turns, reverse=True)[:6]:
                print(f"      {spent * 1e3:6.1f} of {passed * 1e3:6.1f} ms: {place}")
            for spent, passed, place in sorted(phase.turns, key=lambda turn: turn[0] - turn[1])[:3]:
                print(f"      took {passed * 1e3:6.1f} ({spent * 1e3:6.1f}) ms: {place}")
    gap = max((later - sooner for sooner, later in itertools.pairwise(bed.pings)), default=0.0)
    print(f"  between two pings to the watchdog, which bites after {WATCHDOG:.0f} s: {gap:.1f} s at most")
    return {phase.name: phase.waits for phase in bed.phases}


def main() -> int:
    """Measure and print."""
    match sys.argv[1:]:
        case ["--serve", log, *rest]:
            return serve(log, rest)
        case ["--ping", path, scope, log]:
            return ping(path, scope, log)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", type=int, nargs="*", default=[20_000, 100_000])
    parser.add_argument("--where", action="store_true", help="where the longest turns are spent")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("answers: needs root, to make network namespaces")
    if shutil.which("dbus-daemon") is None:
        print("answers: not run: there is no dbus-daemon")
        return 0
    # Ended from outside, it leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    for count in options.routes:
        measure(count, where=options.where)
    for count in options.routes:
        measure(count, refused=True, where=options.where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
