# SPDX-License-Identifier: MIT
"""A message bus of a test's own, which can be stopped and started again, and what goes on on it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">{message}</limit>
  <limit name="max_completed_connections">{connections}</limit>
  <limit name="max_connections_per_user">{connections}</limit>
  <limit name="max_names_per_connection">1000</limit>
  <limit name="max_replies_per_connection">50000</limit>
</busconfig>
"""


class Bus:
    """A `dbus-daemon`. ``address`` stays the same when it is started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "bus"
        self.address = f"unix:path={self._socket}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, connections: int = 2000, message: int = 64 << 20) -> None:
        """Start it, and wait until it listens."""
        config = self._directory / "bus.conf"
        config.write_text(_CONFIG.format(socket=self._socket, connections=connections, message=message))
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()
        # Others than root are to come in, too.
        self._socket.chmod(0o777)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
            self._socket.unlink(missing_ok=True)


@pytest.fixture
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """A bus that runs."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("there is no dbus-daemon")
    directory = tmp_path_factory.mktemp("bus")
    # pytest keeps its directories to itself; a caller without privileges must reach the socket.
    for one in (directory, directory.parent, directory.parent.parent):
        one.chmod(0o755)
    made = Bus(directory)
    made.start()
    yield made
    made.stop()
