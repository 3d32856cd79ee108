# SPDX-License-Identifier: MIT
"""Fresh Debian machines under a real systemd: made once, booted in under a second, gone afterwards.

It knows how to boot, to enter and to clean up; what is installed and what is looked for there is for the
tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LINXD_BED_CACHE", Path.home() / ".cache" / "linxd-bed"))
RELEASES = {"12": "bookworm", "13": "trixie"}
"""Debian's releases that are tested, and their code names."""
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "polkitd", "libglib2.0-bin", "python3", "python3-dbus-next",
    "iproute2", "nftables", "procps", "libcap2-bin", "passwd", "systemd-container", "curl", "iputils-ping",
    "network-manager",
)  # fmt: skip
"""What linxd depends on and recommends, for machines have no network, what tests look at them with, and what
linxd is to get along with."""
MASKED = ("NetworkManager.service", "NetworkManager-wait-online.service")
"""What runs only where a test is about it."""
TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter", "unshare")
BOOT_SECONDS = 60.0
"""For a boot that takes 0.3 s where nothing else runs."""
CALL_SECONDS = 120.0
END_SECONDS = 20.0
_numbers = itertools.count(1)


class Unavailable(Exception):  # noqa: N818 - an answer
    """Such a machine can't be had here, and why."""


def tree(release: str, packages: Sequence[str] = PACKAGES) -> Path:
    """The tree of a release with packages, made when it is not there yet (half a minute). Raises
    Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("needs root: a machine is booted")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise Unavailable(f"needs {tool}")
    suite = RELEASES[release]
    mark = hashlib.sha256(repr((suite, tuple(packages), MASKED)).encode()).hexdigest()[:12]
    made = CACHE / f"system-{suite}-{mark}"
    if made.is_dir():
        return made
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        os.chmod(work, 0o755)
        fresh = Path(work, "tree")
        command = (
            "mmdebstrap", "--variant=apt", f"--include={','.join(packages)}",
            "--aptopt=Acquire::Languages none", "--dpkgopt=path-exclude=/usr/share/locale/*",
            suite, str(fresh),
        )  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"making Debian {release} took too long") from None
        if done.returncode:
            raise Unavailable(f"Debian {release} can't be made: {done.stderr.strip()[-300:]}")
        for unit in MASKED:
            (fresh / "etc/systemd/system" / unit).symlink_to("/dev/null")
        # Two who make it at once: whoever comes second finds it made.
        with contextlib.suppress(OSError):
            fresh.rename(made)
    return made


class Machine:
    """A machine booted from a copy of a tree, which is thrown away when the machine is left.

    ``prepare`` is handed the root directory before the boot. Raises Unavailable.
    """

    def __init__(self, release: str, *, prepare: Callable[[Path], None] = lambda root: None) -> None:
        self.release = release
        self._base = tree(release)
        self._prepare = prepare
        self._stack = contextlib.ExitStack()
        self.root = Path()
        """Its root directory, seen from outside."""
        self.leader = 0
        """Its process 1, seen from outside."""

    def __enter__(self) -> Machine:
        with contextlib.ExitStack() as stack:
            self._boot(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _boot(self, stack: contextlib.ExitStack) -> None:
        # A name fit for a machine: mkdtemp(3)'s may have an underscore.
        name = f"linxd-bed-{os.getpid()}-{next(_numbers)}"
        work = Path(tempfile.gettempdir(), name)
        work.mkdir(mode=0o700)
        stack.callback(work.rmdir)
        try:
            _do("mount", "-t", "tmpfs", "-o", "mode=755", name, str(work))
        except AssertionError as error:
            raise Unavailable(f"nothing can be mounted: {error}") from None
        stack.callback(_do, "umount", str(work))
        for part in ("upper", "work", "root"):
            (work / part).mkdir()
        self.root = work / "root"
        layers = f"lowerdir={self._base},upperdir={work / 'upper'},workdir={work / 'work'}"
        try:
            _do("mount", "-t", "overlay", name, "-o", layers, str(self.root))
            stack.callback(_do, "umount", str(self.root))
        except AssertionError:
            _do("cp", "-a", "--reflink=auto", f"{self._base}/.", str(self.root))
        self._prepare(self.root)
        told = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        told.bind(str(work / "notify"))
        groups = stack.enter_context(_cgroups(name))
        console = stack.enter_context((work / "console").open("wb"))
        command = (
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--private-network",
            "--capability=all", "--notify-ready=yes", f"--machine={name}", "-D", str(self.root),
        )  # fmt: skip
        # In cgroups of its own: machines would share those of the same name else. They are what it takes for
        # its root, so it has to be there before it starts.
        joins = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
        process = subprocess.Popen(
            ("sh", "-c", f'{joins}exec "$@"', "sh", *command),
            env={**os.environ, "NOTIFY_SOCKET": str(work / "notify")},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
        # What nspawn leaves behind of a machine that did not shut down by itself.
        stack.callback(shutil.rmtree, f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)
        stack.callback(self._ended, process, groups)
        stack.callback(self._kill, process)
        ready = False
        exited = stack.enter_context(_closing(os.pidfd_open(process.pid)))
        try:
            while not ready:
                if exited in select.select([told, exited], [], [], BOOT_SECONDS)[0]:
                    raise TimeoutError
                words = told.recv(4096, socket.MSG_DONTWAIT).decode().split("\n")
                ready = "READY=1" in words
                for word in words:
                    if word.startswith("X_NSPAWN_LEADER_PID="):
                        self.leader = int(word.partition("=")[2])
        except (TimeoutError, BlockingIOError):
            said = (work / "console").read_text(errors="replace")[-800:]
            raise Unavailable(f"Debian {self.release} does not boot here: {said}") from None
        finally:
            # Newer ones tell more later, and wait for somebody to read it.
            told.close()

    @staticmethod
    def _ended(process: subprocess.Popen[bytes], groups: Sequence[str]) -> None:
        """Wait for the end, and say what keeps it if it does not come."""
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            left = []
            for group in groups:
                for directory, _, _ in os.walk(group):
                    for pid in Path(directory, "cgroup.procs").read_text().split():
                        with contextlib.suppress(OSError):
                            words = Path(f"/proc/{pid}/stat").read_text()
                            left.append(words[:60] + " " + Path(f"/proc/{pid}/stack").read_text())
            process.kill()
            process.wait()
            raise AssertionError("the machine did not end:\n" + "\n".join(left)) from None

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        # Process 1 takes all of its machine along.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader or process.pid, signal.SIGKILL)

    # -- in the machine -------------------------------------------------------------------------------------

    def command(self, *words: str, user: str | None = None) -> tuple[str, ...]:
        """What to start for a command to run in the machine, as root or as a user."""
        as_user = (
            () if user is None else ("--reuid", user, "--regid", _GROUPS.get(user, user), "--init-groups")
        )
        # nsenter waits outside for what it started inside, which is to end with it.
        end = ("setpriv", "--pdeathsig", "KILL", *as_user)
        return ("nsenter", "-t", str(self.leader), "-a", "--", *end, *words)

    def run(
        self, *words: str, user: str | None = None, stdin: str = "", seconds: float = CALL_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine."""
        return subprocess.run(
            self.command(*words, user=user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=_ENVIRONMENT,
        )

    def do(self, *words: str, user: str | None = None, stdin: str = "") -> str:
        """Run a command that must succeed; what it prints."""
        done = self.run(*words, user=user, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in the machine; `end` ends it."""
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_ENVIRONMENT,
        )

    def end(self, process: subprocess.Popen[str]) -> None:
        """End what `start` started."""
        # The command, not nsenter: that is there to wait for it. Left to others, it would be a process of
        # the machine that nobody takes away, and the machine could not end before.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in the machine, with the directories on the way to it."""
        # From inside: /run and others are mounts that are not seen from outside.
        self.do("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"',
                "sh", path, f"{mode:o}", stdin=text)  # fmt: skip


_GROUPS = {"nobody": "nogroup"}
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _cgroups(name: str) -> Iterator[Sequence[str]]:
    """A cgroup of that name in each hierarchy that systemd uses, removed with all below it at the end."""
    made = []
    for mount in _hierarchies():
        group = os.path.join(mount, name)
        try:
            os.mkdir(group)
        except OSError as error:
            raise Unavailable(f"a cgroup can't be made: {error}") from None
        made.append(group)
    try:
        yield made
    finally:
        for group in made:
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def _hierarchies() -> Iterator[str]:
    """Where the unified hierarchy, and of the old ones systemd's own, are mounted."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind == "cgroup2" or (kind == "cgroup" and re.search(r"\bname=systemd\b", options)):
                yield before.split()[4]
