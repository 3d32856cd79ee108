# SPDX-License-Identifier: MIT
"""What measurements stand on: namespaces and processes that are gone afterwards, however that comes about.

It knows nothing of what is measured. Everything made here is made through a `Bed`, and ends with it.
"""

from __future__ import annotations

import atexit
import compileall
import contextlib
import ctypes
import functools
import gc
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0
"""Seconds after which what has not come won't come."""
NO_BUS = "unix:path=/nonexistent/bus"
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
_CLONE_NEWNET = 0x40000000
_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


_STARTER = """\
#!/usr/bin/python3
import sys
from linxd.cli.{0} import main
sys.exit(main())
"""


class Unavailable(Exception):  # noqa: N818 - no fault: it can't be measured here
    """Something can't be had on this machine; the text says why."""


def run(
    *command: str, text: str | None = None, env: Mapping[str, str] | None = None, seconds: float = 600
) -> str:
    """A command's output. Raises RuntimeError with its own words, TimeoutExpired."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=seconds,
        env=None if env is None else {**os.environ, **env},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, all threads, to the nanosecond: the clock that
    clock_getcpuclockid(3) makes of a pid."""
    return time.clock_gettime((~pid << 3) | 2)


def switches(pid: int) -> int:
    """How often a process has gone to sleep so far, all threads: each of these is a wake-up."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


@functools.cache
def installed() -> Path:
    """A directory with the package as installing it leaves it: compiled, and started by a script each. Out
    of the tree itself every start would compile it anew wherever that may not be written down."""
    directory = Path(tempfile.mkdtemp(prefix="linxd-bench-installed-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "linxd", directory / "linxd", ignore=skip)
    if not compileall.compile_dir(directory / "linxd", quiet=1):
        raise RuntimeError("linxd does not compile")
    for name, module in (("linxd-daemon", "daemon"), ("linxctl", "linxctl")):
        (directory / name).write_text(_STARTER.format(module))
        (directory / name).chmod(0o755)
    return directory


def memory_of(pid: int) -> dict[str, int]:
    """Bytes of memory by the names of /proc/PID/smaps_rollup: ``Pss`` shares what is shared evenly,
    ``Private_Clean`` and ``Private_Dirty`` are this process' alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in map(str.split, lines)}


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """This thread is in a namespace meanwhile; sockets stay in the one that they were made in."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(there)
        os.close(home)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _die_with_parent() -> None:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is started meanwhile has all processors but the first, which is kept for who looks on."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus - {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def looking_on() -> Iterator[None]:
    """This thread has the first processor, before everybody else, so that what it sees it sees at once."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy, param)
        os.sched_setaffinity(0, cpus)


class Daemon:
    """A real `linxd` on a namespace."""

    def __init__(self, process: subprocess.Popen[bytes], scope: str, state: Path, log: Path) -> None:
        self.process, self.scope, self.state, self.log = process, scope, state, log

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def word(self) -> dict[str, Any]:
        """How it says that it is; empty where it has said nothing yet."""
        try:
            word = json.loads((self.state / self.scope / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return word if isinstance(word, dict) and word.get("pid") == self.pid else {}

    def converged(self, seconds: float = PATIENCE) -> Self:
        """Wait until all is as declared."""

        def there() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(self._trouble())
            return self.word().get("state") == "converged"

        until(there, self._trouble, seconds=seconds)
        return self

    def _trouble(self) -> str:
        if self.process.poll() is not None:
            return f"linxd ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}"
        return f"linxd does not converge: {self.log.read_text()[-2000:]}"

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


def until(true: Callable[[], bool], what: Callable[[], str], *, seconds: float = PATIENCE) -> None:
    """Wait for a state of things that nothing announces. Raises RuntimeError."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(what())
        time.sleep(0.01)


class Bed:
    """A directory, namespaces and processes, all of which end when it is left."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.directory = Path("/nonexistent")

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="linxd-bench-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        with deaf():
            self._stack.close()

    def namespace(self) -> str:
        """A new namespace; its name."""
        name = f"lx-bench-{os.getpid()}-{next(self._numbers)}"
        run("ip", "netns", "add", name)
        self._stack.callback(_remove, name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def remove(self, name: str) -> None:
        """A namespace goes early."""
        _remove(name)

    def closes(self, fd: int) -> None:
        """A descriptor that is closed with the bed."""
        self._stack.callback(os.close, fd)

    def socket(self, netns: str, protocol: int) -> socket.socket:
        """A netlink socket in a namespace, with room for a flood of events."""
        with inside(netns):
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._stack.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        sock.bind((0, 0))
        return sock

    def start(
        self,
        command: Sequence[str],
        *,
        netns: str | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        talks: bool = False,
    ) -> subprocess.Popen[bytes]:
        """A process, ended with the bed, and all that it starts. ``talks``: with pipes to and from it."""
        words = [*(("ip", "netns", "exec", netns) if netns else ()), *command]
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        with open(log or os.devnull, "ab") as err:
            process = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=err, cwd=ROOT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._stack.callback(end, process)
        return process

    def bus(self) -> str:
        """The address of a bus of our own. Raises Unavailable."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        config = directory / "bus.conf"
        config.write_text(_BUS.format(directory / "bus"))
        try:
            process = self.start(
                ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
                talks=True,
            )
        except FileNotFoundError:
            raise Unavailable("dbus-daemon is not installed") from None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Unavailable("dbus-daemon does not start")
        return f"unix:path={directory / 'bus'}"

    def daemon(self, scope: str, text: str, *, bus: str = NO_BUS, notify: str = "") -> Daemon:
        """A `linxd` for a namespace, with a declaration; not waited for. ``notify``: the address of a socket
        on which it says that it is ready, as to a service manager."""
        directory = self.directory / f"{scope}.{next(self._numbers)}"
        directory.mkdir(mode=0o700)
        file, log = directory / f"{scope}.toml", directory / "log"
        file.write_text(text)
        file.chmod(0o600)
        command = [str(installed() / "linxd-daemon"), "--scope", scope, "--file", str(file)]
        env = alone(bus) | ({"NOTIFY_SOCKET": notify} if notify else {})
        process = self.start([*command, "--state-dir", str(directory / "state")], env=env, log=log)
        return Daemon(process, scope, directory / "state", log)


def alone(bus: str = NO_BUS) -> dict[str, str]:
    """The environment of a linxd that is under no service manager and, if none is said, on no bus."""
    for name in ("NOTIFY_SOCKET", "JOURNAL_STREAM"):
        os.environ.pop(name, None)
    return {"DBUS_SYSTEM_BUS_ADDRESS": bus, "PYTHONPATH": str(installed())}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _remove(name: str) -> None:
    if not os.path.exists(f"/run/netns/{name}"):
        return
    done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in done.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """What clears away is not interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def obedient() -> None:
    """SIGTERM and SIGHUP clear away as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def progress(text: str) -> None:
    """Where it stands, for who waits."""
    print(f"  … {text}", file=sys.stderr, flush=True)
