# SPDX-License-Identifier: MIT
"""A machine's network for a test: a host's namespace with a /run of its own, in which scopes are found as
they are on a real one. Nothing of it reaches the machine that it runs on.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.daemon.running import ROOT, Daemon

NOBODY = 65534
STATE = Path("/run/linxd-state")
PATIENCE = 60.0
_UNSHARE = ("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
_START = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/linxd/netns
ip link set lo up
echo ready
read end
"""
_T = TypeVar("_T")


class Machine:
    """Namespaces of the network, of processes and of mounts, and a process that holds them."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-euc", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        pid = self._holder.pid
        self.init = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        self.inside = ("nsenter", "--target", str(self.init), "--net", "--pid", "--mount", "--wd=.")
        self.run = Path(f"/proc/{self.init}/root/run")

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate()

    def __call__(self, *words: str, uid: int = 0, rc: int = 0) -> str:
        """Run a command; its output."""
        who = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups") if uid else ()
        done = subprocess.run(
            [*self.inside, *who, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=PATIENCE,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def ip(self, *lines: str) -> None:
        """Several `ip` commands."""
        for line in lines:
            self("ip", *line.split())

    def linxctl(self, *words: str, uid: int = 0, rc: int = 0, env: tuple[str, ...] = ()) -> str:
        """Run linxctl; its output."""
        argv = (sys.executable, "-m", "linxd.cli.linxctl", *words)
        return self("env", "PYTHONDONTWRITEBYTECODE=1", *env, *argv, uid=uid, rc=rc)

    def picture(self, *words: str) -> dict[str, Any]:
        """What `linxctl topology --json` says."""
        form: dict[str, Any] = json.loads(self.linxctl("topology", "--json", *words))
        return form

    def links(self, *words: str) -> dict[str, Any]:
        """The links in it, by their ids."""
        return {link["id"]: link for link in self.picture(*words)["links"]}

    def declare(self, scope: str, text: str) -> None:
        """Write a scope's file."""
        path = self.run / "linxd" / ("host.toml" if scope == "host" else f"netns/{scope}.toml")
        path.write_text(text)

    @contextlib.contextmanager
    def daemon(
        self, scope: str, file: str | None = None, *, ready: str = "/rtnl: converged"
    ) -> Iterator[Daemon]:
        """A daemon for a scope, once it has said that it is ready, until it is left."""
        with Daemon(scope, file, STATE, before=self.inside) as daemon:
            daemon.line(ready)
            try:
                yield daemon
            finally:
                pid = json.loads((self.run / STATE.name / scope / "status.json").read_text())["pid"]
                self("kill", str(pid))
                daemon.end()


def until(look: Callable[[], _T], wanted: Callable[[_T], bool]) -> _T:
    """What was seen when it was as wanted."""
    end = time.monotonic() + PATIENCE
    while not wanted(seen := look()):
        assert time.monotonic() < end, seen
    return seen
