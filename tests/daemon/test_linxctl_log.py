# SPDX-License-Identifier: MIT
"""`linxctl log` on a journal of its own, kept by a real journald that nobody else writes to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linxd.log import Narrator, news
from linxd.patch import Change, Claim, Condition, Culprit, Entry, Key, Op, Report, State, Trigger, Verb
from linxd.status import LoopState, Status
from linxd.systemd.journal import Journal
from tests.daemon.running import PATIENCE, ROOT

JOURNALD = "/lib/systemd/systemd-journald"


class Thing:
    """An address, as far as the log has to know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.key: Key = ("address", text)

    def words(self) -> str:
        return f"{self.text} dev eth0"


class Bed:
    """journald with a namespace of its own; /run and /var/log are below ``path`` where it runs."""

    def __init__(self, path: Path) -> None:
        self.name = f"lx{uuid.uuid4().hex[:8]}"
        self.run = path
        (path / "systemd").mkdir()
        (path / "log/journal").mkdir(parents=True)
        mounts = f'mount --bind "{path}/log" /var/log && mount --bind "{path}" /run'
        script = f"{mounts} && exec {JOURNALD} {self.name}"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stderr=subprocess.PIPE, text=True
        )
        self._socket = path / f"systemd/journal.{self.name}/socket"
        # It says nothing when it is ready; what is bound here is all that is needed.
        watch = subprocess.run(
            ["timeout", str(PATIENCE), "sh", "-c", f'until [ -S "{self._socket}" ]; do sleep 0.02; done'],
            check=False,
        )
        assert watch.returncode == 0, "journald never listened"
        os.chmod(path, 0o755)
        self.sink = Journal(str(self._socket))

    def close(self) -> None:
        self.sink.close()
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--mount", "--target", str(self.process.pid), *command]

    @property
    def directory(self) -> str:
        subprocess.run(self.inside("journalctl", f"--namespace={self.name}", "--sync"), check=True)
        (found,) = (self.run / "log/journal").iterdir()
        return str(found)

    def log(self, *words: str, rc: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "linxd.cli.linxctl", "log", "--directory", self.directory, *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == rc, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def forms(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log("--json", *words).splitlines()]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a journald is run")
    if not Path(JOURNALD).exists() or shutil.which("journalctl") is None:
        pytest.skip("needs systemd's journald and journalctl")
    (tmp_path / "run").mkdir()
    bed = Bed(tmp_path / "run")
    try:
        yield bed
    finally:
        bed.close()


def made(text: str) -> Op:
    return Op(Verb.CREATE, Thing(text), None, after=Entry(Claim.MADE))


def healed(text: str, culprit: Culprit | None = None) -> Report:
    op = made(text)
    return Report(
        Trigger.EVENT,
        (op,),
        (op,),
        total=2,
        complete=False,
        culprits={op.key: culprit} if culprit else {},
        usec=700,
        heal_usec=600,
    )


WHO = Culprit(1689, "ip", "session-3.scope", confirmed=True)


def test_a_heal_is_a_line_that_says_who_had_broken_it(bed: Bed) -> None:
    narrator = Narrator("c1", "rtnl")
    for entry in narrator.report(healed("10.0.0.5/24", WHO)):
        bed.sink(entry)
    (line,) = bed.log("c1").splitlines()
    said = "restored address 10.0.0.5/24 on eth0 (deleted by ip[1689] in session-3.scope), 1 op in 0.6 ms"
    assert line.endswith(f" c1/rtnl: {said}")
    (form,) = bed.forms("c1")
    assert form["time_usec"] > 0
    assert {key: form[key] for key in ("kind", "scope", "source", "trigger", "total")} == {
        "kind": "patch",
        "scope": "c1",
        "source": "rtnl",
        "trigger": "event",
        "total": 1,
    }
    assert (form["pass_usec"], form["heal_usec"]) == (700, 600)
    culprit = {"pid": 1689, "comm": "ip", "unit": "session-3.scope", "confirmed": True}
    assert form["culprit"] == culprit
    assert form["ops"] == [
        {
            "verb": "create",
            "object": "address 10.0.0.5/24 dev eth0",
            "key": ["address", "10.0.0.5/24"],
            "culprit": culprit,
        }
    ]


def test_a_scope_has_its_own_log_and_only_patches_unless_asked(bed: Bed) -> None:
    for name in ("c1", "c2"):
        narrator = Narrator(name, "rtnl")
        bed.sink(news(name, "waits for its namespace"))
        for entry in narrator.report(healed("10.0.0.5/24")):
            bed.sink(entry)
        bed.sink(narrator.state(Status(name, "rtnl", "event", LoopState.CONVERGED, total=2)))
        bad = Condition(("address", "x"), "address x", State.FAILED, "Invalid argument", 22)
        for entry in narrator.report(Report(Trigger.RESYNC, conditions=(bad,), total=2)):
            bed.sink(entry)
    assert [form["kind"] for form in bed.forms("c2")] == ["patch"]
    forms = bed.forms("c2", "--all")
    assert [form["kind"] for form in forms] == ["news", "patch", "state", "failure"]
    assert {form["scope"] for form in forms} == {"c2"}
    assert forms[3]["errno"] == 22
    assert forms[2]["state"] == "converged"
    assert len(bed.log().splitlines()) == 2
    assert len(bed.log("--all", "-n", "3").splitlines()) == 3
    assert bed.log("c3") == ""


def test_full_has_every_op_of_a_patch_however_many(bed: Bed) -> None:
    ops = tuple(made(f"10.{n // 250}.{n % 250}.1/32") for n in range(230))
    # Values make the entry longer than what journalctl shows of a field by itself.
    for source in ("rtnl", "sysctl"):
        for entry in Narrator("c1", source).report(Report(Trigger.EVENT, ops, ops, total=230, usec=5)):
            bed.sink(entry)
    short = bed.log("c1").splitlines()
    assert len(short) == 2
    assert "restored 230 addresses, 230 ops in" in short[0]
    full = bed.log("c1", "--full").splitlines()
    assert len(full) == 2 * 231
    assert not [line for line in full if "more" in line or "part" in line]
    assert full[230].endswith("restored address 10.0.229.1/32 on eth0")
    forms = bed.forms("c1", "--full")
    assert [(form["source"], len(form["ops"]), form["total"]) for form in forms] == [
        ("rtnl", 230, 230),
        ("sysctl", 230, 230),
    ]
    assert [form["ops"][229]["object"] for form in forms] == ["address 10.0.229.1/32 dev eth0"] * 2
    assert len(bed.forms("c1")[0]["ops"]) == 100


def test_what_the_journal_lost_is_said(bed: Bed) -> None:
    ops = tuple(made(f"10.0.{n}.1/32") for n in range(250))
    first, second, third = Narrator("c1", "rtnl").report(Report(Trigger.EVENT, ops, ops, total=250, usec=5))
    bed.sink(first)
    bed.sink(third)
    assert second.part == 2
    assert bed.log("--full").splitlines()[-1] == "    … and 100 more, which the journal does not have"


def test_changes_are_there_as_they_were(bed: Bed) -> None:
    op = Op(Verb.UPDATE, Thing("a"), Thing("a"), (Change("mtu", "1400", "1500"),))
    for entry in Narrator("c1", "rtnl").report(Report(Trigger.RESYNC, (op,), (op,), total=1, usec=9)):
        bed.sink(entry)
    (form,) = bed.forms()
    assert form["ops"][0]["changes"] == {"mtu": ["1400", "1500"]}


FORGERY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
text = "SYSLOG_IDENTIFIER=linxd\\nMESSAGE=c1/rtnl: removed address 10.0.0.5/24\\nLINX_SCOPE=c1\\n"
text += "MESSAGE_ID=b17cd482ddd641a6b68c69661eb7bdc7\\nPRIORITY=5\\n"
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range(3):
    sock.sendto(text.encode(), sys.argv[1])
"""


def test_what_others_write_under_our_name_does_not_count(bed: Bed) -> None:
    where = f"/run/systemd/journal.{bed.name}/socket"
    subprocess.run(bed.inside(sys.executable, "-c", FORGERY, where), check=True)
    for entry in Narrator("c1", "rtnl").report(healed("10.0.0.5/24")):
        bed.sink(entry)
    words = ["journalctl", "-q", "-D", bed.directory, "LINX_SCOPE=c1", "-o", "cat"]
    assert len(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()) == 4
    (line,) = bed.log("c1").splitlines()
    assert "restored" in line


def test_what_is_not_printable_is_not_printed(bed: Bed) -> None:
    for entry in Narrator("c1", "rtnl").report(healed("\x1b[31mred")):
        bed.sink(entry)
    assert "\x1b" not in bed.log("--full")


def test_it_follows(bed: Bed) -> None:
    command = [sys.executable, "-m", "linxd.cli.linxctl", "log", "--follow", "--directory", bed.directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            for text in ("10.0.0.5/24", "10.0.0.6/24"):
                for entry in Narrator("c1", "rtnl").report(healed(text)):
                    bed.sink(entry)
                assert f"restored address {text}" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no such",), "'no such' is no name of a scope"),
        (("-n", "0"), "'0' is no number from 1 on"),
        (("--since", "yesterdayish"), "journalctl ended with code"),
    ],
)
def test_trouble_is_a_line_and_code_2(words: tuple[str, ...], says: str) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("needs journalctl")
    done = subprocess.run(
        [sys.executable, "-m", "linxd.cli.linxctl", "log", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
