# SPDX-License-Identifier: MIT
"""Timers follow the clock that counts suspend, and nothing else: in a time namespace whose boot clock is
eleven days ahead, looks at everything and pauses come and end as they do elsewhere.

The jump itself, at resume, is tested on the alarm in tests/core; no test may set the machine's clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.torture.bed import Daemon, Namespace, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces are made")

AHEAD = ("unshare", "--time", "--boottime", "1000000", "--fork", "--kill-child=KILL")
DECLARED = """
[scope]
resync = "1s"
[link.e0]
txqueuelen = 700
[[neighbour]]
address = "10.0.0.9"
dev = "e0"
proxy = true
"""


def test_timers_are_right_where_the_boot_clock_is_ahead(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*AHEAD, "true"], check=False).returncode:
        pytest.skip("there are no time namespaces")
    file = tmp_path / "scope.toml"
    file.write_text(DECLARED)
    file.chmod(0o600)

    def proxied() -> bool:
        return "10.0.0.9" in namespace.ip("neigh", "show", "proxy")

    with Namespace() as namespace:
        namespace.batch(["link add e0 type veth peer name f0", "link set e0 up"])
        with Daemon(namespace.name, file, tmp_path, before=AHEAD) as daemon:
            daemon.wait_for("/rtnl: converged")
            # The kernel says nothing of this: a look at everything finds it.
            namespace.ip("neigh", "del", "proxy", "10.0.0.9", "dev", "e0")
            until(proxied, lambda: f"no look at everything came\n{daemon.said}")
            # A pause ends by itself, and not before it began.
            assert daemon.ask("pause 3").done
            namespace.ip("link", "set", "e0", "txqueuelen", "77")
            daemon.wait_for("link e0 is pending: has drifted; paused")
            assert "qlen 77" in namespace.ip("link", "show", "e0")
            until(
                lambda: "qlen 700" in namespace.ip("link", "show", "e0"),
                lambda: f"the pause does not end\n{daemon.said}",
            )
            assert os.readlink(f"/proc/{os.getpid()}/ns/time") != os.readlink(
                f"/proc/{_child(daemon.pid)}/ns/time"
            )


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
