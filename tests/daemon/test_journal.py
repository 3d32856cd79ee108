# SPDX-License-Identifier: MIT
"""What arrives at the journal's socket, and at that of whoever started us."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from linxd.log import Entry
from linxd.systemd.journal import Journal, connected
from linxd.systemd.notify import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(10)
        yield sock


def fields(data: bytes) -> list[tuple[str, str]]:
    """A datagram of the native protocol, read as journald reads it."""
    found = []
    while data:
        line, _, rest = data.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found.append((key.decode(), value.decode()))
        data = rest
    return found


def test_an_entry_has_all_its_fields_with_several_values_repeated(listener: socket.socket) -> None:
    journal = Journal(listener.getsockname())
    journal(
        Entry(
            "c1/rtnl: restored 2 routes",
            ("restored a", "restored b"),
            {"LINX_SCOPE": "c1", "LINX_OP": ("{a}", "{b}")},
            5,
            "00112233445566778899aabbccddeeff",
        )
    )
    assert fields(listener.recv(65536)) == [
        ("MESSAGE", "c1/rtnl: restored 2 routes\n  restored a\n  restored b"),
        ("MESSAGE_ID", "00112233445566778899aabbccddeeff"),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "linxd"),
        ("LINX_SCOPE", "c1"),
        ("LINX_OP", "{a}"),
        ("LINX_OP", "{b}"),
    ]
    journal.close()


def test_an_entry_too_large_for_a_datagram_goes_in_a_sealed_file(listener: socket.socket) -> None:
    journal = Journal(listener.getsockname())
    large = "x" * (32 << 20)
    journal(Entry("large", (), {"LINX_OP": (large,)}))
    data, ancillary, _, _ = listener.recvmsg(1, socket.CMSG_SPACE(4))
    assert data == b""
    descriptor = int.from_bytes(ancillary[0][2][:4], "little")
    with open(descriptor, "rb") as file:
        file.seek(0)
        assert ("LINX_OP", large) in fields(file.read())
    journal.close()


def test_a_journal_that_is_gone_or_full_holds_nobody_up(tmp_path: Path, listener: socket.socket) -> None:
    for path in (str(tmp_path / "nobody"), listener.getsockname()):
        journal = Journal(path)
        for _ in range(20):
            journal(Entry("x" * 100_000))
        journal.close()


def test_whether_stderr_is_the_journal_is_told_by_its_inode() -> None:
    seen = os.fstat(2)
    assert connected({"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino}"})
    assert not connected({"JOURNAL_STREAM": f"{seen.st_dev}:{seen.st_ino + 1}"})
    assert not connected({"JOURNAL_STREAM": "nonsense"})
    assert not connected({})


def test_whoever_started_us_is_told_and_a_status_once(listener: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "2500000"})
    assert notifier
    assert notifier.watchdog == 2.5
    notifier.send(READY="1", STATUS="up")
    assert listener.recv(4096) == b"READY=1\nSTATUS=up"
    for _ in range(2):
        notifier.status("converged:\n14 objects")
    notifier.status("blocked")
    assert listener.recv(4096) == b"STATUS=converged: 14 objects"
    assert listener.recv(4096) == b"STATUS=blocked"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none")}):
        notifier = Notifier(environment)
        notifier.send(READY="1")
    assert not Notifier({})
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog == 0.0
    assert Notifier({"WATCHDOG_USEC": "x"}).watchdog == 0.0


def test_an_abstract_socket_is_one_with_an_at_sign() -> None:
    name = f"linxd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(10)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send(READY="1")
        assert sock.recv(4096) == b"READY=1"
