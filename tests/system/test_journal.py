# SPDX-License-Identifier: MIT
"""What the journal tells of a heal: fields for programs, words for people, and the catalogue's."""

from __future__ import annotations

import errno
import json

from linxd import log
from tests.system.bed import ROOT, Machine
from tests.system.follow import Journal
from tests.system.test_service import DECLARED, declare, start, unit

# Deletes the address by a socket of its own and stays until it is told to go: a short-lived command may be
# gone before anybody can look at it.
SABOTAGE = """
import socket, struct, sys
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
body = struct.pack("=BBBBi", socket.AF_INET, 32, 0, 0, 1)
body += struct.pack("=HH4s", 8, 2, socket.inet_aton("192.0.2.1"))
sock.send(struct.pack("=IHHII", 16 + len(body), 21, 5, 1, 0) + body)
sys.exit(struct.unpack_from("=i", sock.recv(4096), 16)[0] and 1 or sys.stdin.read() and 0)
"""


def test_every_field_of_a_heal(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    machine.write("/usr/local/lib/sabotage.py", SABOTAGE)
    start(machine, scope)
    culprit = f"saboteur-{scope}.service"
    machine.do("mkfifo", f"/run/go-{scope}")
    with Journal(machine) as journal:
        machine.do(
            "systemd-run", f"--unit={culprit}", f"-pStandardInput=file:/run/go-{scope}",
            f"-pNetworkNamespacePath=/run/netns/{scope}", "python3", "/usr/local/lib/sabotage.py",
        )  # fmt: skip
        # Its input is opened only once somebody writes.
        with_writer = machine.start("sh", "-c", f"exec sleep infinity > /run/go-{scope}")
        entry = journal.of(unit(scope), "restored address")
        pid = machine.do("systemctl", "show", "-P", "MainPID", culprit).strip()
        machine.end(with_writer)
    message = entry["MESSAGE"]
    assert message.startswith(
        f"{scope}/rtnl: restored address 192.0.2.1/32 on lo (deleted by python3[{pid}] in {culprit}), 1 op"
    )
    assert entry["MESSAGE_ID"] == log.PATCH_ID
    assert entry["PRIORITY"] == "5"
    assert entry["SYSLOG_IDENTIFIER"] == "linxd"
    assert entry["_SYSTEMD_UNIT"] == unit(scope)
    assert entry["LINX_SCOPE"] == scope
    assert entry["LINX_SOURCE"] == "rtnl"
    assert entry["LINX_TRIGGER"] == "event"
    assert entry["LINX_OPS"] == "1"
    assert entry["LINX_CULPRIT_PID"] == pid
    assert entry["LINX_CULPRIT_COMM"] == "python3"
    assert entry["LINX_CULPRIT_UNIT"] == culprit
    assert entry["LINX_CULPRIT_CONFIRMED"] == "1"
    assert int(entry["LINX_PASS_USEC"]) > 0
    assert int(entry["LINX_HEAL_USEC"]) > 0
    op = json.loads(entry["LINX_OP"])
    assert op["verb"] == "create"
    assert op["object"] == "address 192.0.2.1/32 dev lo"
    assert op["culprit"] == {"pid": int(pid), "comm": "python3", "unit": culprit, "confirmed": True}


def test_a_failure_has_its_errno(machine: Machine, scope: str) -> None:
    # The kernel's own words for a value that it knows no module for.
    refused = '"net.ipv4.tcp_congestion_control" = "none-such"'
    declare(machine, scope, DECLARED.replace("[sysctl]", f"[sysctl]\n{refused}"))
    start(machine, scope)
    said = machine.do(
        "journalctl", "-o", "json", "--no-pager", "-u", unit(scope), f"MESSAGE_ID={log.FAILURE_ID}"
    )
    entry = json.loads(said.splitlines()[0])
    assert entry["MESSAGE"].startswith(f"{scope}/sysctl: sysctl net.ipv4.tcp_congestion_control failed: ")
    assert entry["PRIORITY"] == "4"
    assert entry["ERRNO"] == str(errno.ENOENT)
    assert entry["LINX_SOURCE"] == "sysctl"
    assert entry["LINX_TRIGGER"] == "start"


def test_the_catalogue_explains_each_kind_of_entry(machine: Machine, scope: str) -> None:
    declare(machine, scope)
    start(machine, scope)
    said = machine.do("journalctl", "-x", "--no-pager", "-u", unit(scope), f"MESSAGE_ID={log.PATCH_ID}")
    assert f"Subject: The network of {scope} was put right" in said
    assert "Documentation: man:linxd(8)" in said
    assert f"linxctl pause {scope} --for 10m" in said
    said = machine.do("journalctl", "-x", "--no-pager", "-u", unit(scope), f"MESSAGE_ID={log.STATE_ID}")
    assert f"Subject: rtnl of {scope} is converged" in said
    known = machine.do("journalctl", "--list-catalog")
    for number in (log.PATCH_ID, log.FAILURE_ID, log.STATE_ID, log.NEWS_ID):
        assert number in known


def test_the_catalogue_knows_every_kind_of_entry() -> None:
    text = (ROOT / "units" / "linxd.catalog").read_text()
    numbers = {line.split()[1] for line in text.splitlines() if line.startswith("-- ")}
    assert numbers == {getattr(log, name) for name in dir(log) if name.endswith("_ID")}
