# SPDX-License-Identifier: MIT
"""The ledger: what it keeps through a crash at any byte, a full disk, garbage, another boot."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linxd.ledger import FileLedger, LedgerError, MemoryLedger, settle_unsure
from linxd.patch import Claim, Entry, Key
from linxd.source import Doubt, Owned

MADE = Entry(Claim.MADE)
TAKEN = Entry(Claim.TAKEN)
FOUND = Entry(Claim.FOUND, original={"value": "1"})
LINK = Entry(Claim.MADE, facts={"ifindex": 7}, asked={"mtu": "1501"}, settled={"mtu": "1500"})


def route(number: int) -> Key:
    return ("route", 4, 254, f"10.0.{number}.0/24", 0, 100)


def unsure(entry: Entry) -> Entry:
    return Entry(entry.claim, entry.original, entry.asked, entry.settled, entry.facts, sure=False)


def opened(directory: Path, *, boot_id: str = "b", cookie: int = 1) -> FileLedger:
    return FileLedger(directory, boot_id=boot_id, cookie=cookie, source="rtnl")


def state(ledger: MemoryLedger) -> tuple[dict[Key, Entry], dict[Key, Doubt]]:
    kinds = [ledger.of(kind) for kind in ("route", "link", "sysctl", "address")]
    return {key: entry for kind in kinds for key, entry in kind.items()}, dict(ledger.in_doubt())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, directory: Path) -> Iterator[MemoryLedger]:
    if request.param == "memory":
        yield MemoryLedger()
    else:
        made = opened(directory)
        yield made
        made.close()


# -- what every ledger does -------------------------------------------------------------------------------


def test_an_intention_is_unsure_until_it_is_settled(ledger: MemoryLedger) -> None:
    ledger.intend([(route(1), MADE)])
    assert ledger.get(route(1)) == unsure(MADE)
    assert ledger.in_doubt() == {route(1): Doubt(None, MADE)}
    ledger.settle([route(1)])
    assert ledger.get(route(1)) == MADE
    assert not ledger.in_doubt()


def test_a_refused_write_brings_back_what_held_before(ledger: MemoryLedger) -> None:
    ledger.put([(route(1), FOUND)])
    ledger.intend([(route(1), TAKEN), (route(2), MADE)])
    ledger.revert([route(1), route(2)])
    assert ledger.get(route(1)) == FOUND
    assert ledger.get(route(2)) is None


def test_what_is_to_be_deleted_is_shown_until_it_is_gone(ledger: MemoryLedger) -> None:
    ledger.put([(route(1), MADE)])
    ledger.intend([(route(1), None)])
    assert ledger.get(route(1)) == unsure(MADE)
    ledger.settle([route(1)])
    assert ledger.get(route(1)) is None
    assert dict(ledger.of("route")) == {}


def test_a_snapshot_stays_as_it_is(ledger: MemoryLedger) -> None:
    ledger.put([(route(1), MADE)])
    before = ledger.of("route")
    ledger.put([(route(1), None), (route(2), MADE)])
    assert dict(before) == {route(1): MADE}
    assert dict(ledger.of("route")) == {route(2): MADE}


def test_the_original_value_stays_the_one_found_first(ledger: MemoryLedger) -> None:
    key = ("sysctl", "net.ipv4.ip_forward")
    ledger.intend([(key, Entry(Claim.FOUND, original={"value": "first"}))])
    ledger.settle([key])
    ledger.intend([(key, Entry(Claim.FOUND, original={"value": "second", "other": "x"}))])
    ledger.settle([key])
    ledger.put([(key, Entry(Claim.FOUND, original={"value": "third"}))])
    entry = ledger.get(key)
    assert entry is not None
    assert entry.original["value"] == "first"
    ledger.put([(key, None)])
    ledger.put([(key, Entry(Claim.FOUND, original={"value": "anew"}))])
    entry = ledger.get(key)
    assert entry is not None
    assert entry.original == {"value": "anew"}


def test_the_last_of_two_words_about_an_object_counts(ledger: MemoryLedger) -> None:
    ledger.put([(route(1), MADE), (route(1), None)])
    assert ledger.get(route(1)) is None


def test_settling_what_was_never_intended_changes_nothing(ledger: MemoryLedger) -> None:
    ledger.put([(route(1), MADE)])
    ledger.settle([route(1), route(2)])
    ledger.revert([route(1), route(2)])
    assert state(ledger) == ({route(1): MADE}, {})


# -- writes in doubt --------------------------------------------------------------------------------------

DOUBTS = [
    # before  intended  kernel: True with our mark, False without, None absent    then
    (None, MADE, True, MADE),
    (None, MADE, False, None),
    (None, MADE, None, None),
    (None, TAKEN, True, TAKEN),
    (None, TAKEN, False, None),
    (None, FOUND, False, FOUND),
    (None, FOUND, None, FOUND),
    (MADE, LINK, True, LINK),
    (MADE, LINK, False, MADE),
    (MADE, None, True, MADE),
    (MADE, None, False, None),
    (MADE, None, None, None),
    (FOUND, None, True, FOUND),
    (FOUND, None, False, None),
]


@pytest.mark.parametrize(("before", "intended", "kernel", "then"), DOUBTS)
def test_after_a_crash_only_what_the_kernel_bears_out_counts(
    directory: Path, before: Entry | None, intended: Entry | None, kernel: bool | None, then: Entry | None
) -> None:
    crashed = opened(directory)
    crashed.put([(route(1), before)])
    crashed.intend([(route(1), intended)])
    crashed.close()
    ledger = opened(directory)
    assert ledger.in_doubt() == {route(1): Doubt(before, intended)}
    settle_unsure(ledger, lambda key, entry: kernel)
    assert ledger.get(route(1)) == then
    assert not ledger.in_doubt()
    ledger.close()
    again = opened(directory)
    assert again.get(route(1)) == then
    again.close()


def test_a_second_write_over_one_in_doubt_trusts_the_first_no_more(ledger: MemoryLedger) -> None:
    ledger.intend([(route(1), MADE)])
    ledger.intend([(route(1), LINK)])
    ledger.revert([route(1)])
    assert ledger.get(route(1)) is None


def test_an_original_value_in_doubt_is_not_lost_by_the_next_write(ledger: MemoryLedger) -> None:
    ledger.intend([(route(1), FOUND)])
    ledger.intend([(route(1), Entry(Claim.FOUND, original={"value": "ours, by now"}))])
    ledger.revert([route(1)])
    assert ledger.get(route(1)) == FOUND


# -- crashes ----------------------------------------------------------------------------------------------


def history() -> list[Callable[[Owned], None]]:
    """Calls of every kind."""
    return [
        lambda ledger: ledger.intend([(route(n), MADE) for n in range(3)]),
        lambda ledger: ledger.settle([route(0), route(1)]),
        lambda ledger: ledger.revert([route(2)]),
        lambda ledger: ledger.put([(("sysctl", "net.ipv4.ip_forward"), FOUND)]),
        lambda ledger: ledger.intend([(("link", "eth0"), LINK), (route(0), None)]),
        lambda ledger: ledger.settle([("link", "eth0")]),
        lambda ledger: ledger.intend(
            [(("sysctl", "net.ipv4.ip_forward"), None), (("link", "ü\udc80"), MADE)]
        ),
        lambda ledger: ledger.settle([route(0), ("sysctl", "net.ipv4.ip_forward"), ("link", "ü\udc80")]),
        lambda ledger: ledger.put([(route(1), None), (route(5), TAKEN)]),
        lambda ledger: ledger.intend([(route(6), MADE)]),
        lambda ledger: ledger.revert([route(6)]),
        lambda ledger: ledger.intend([(route(7), MADE)]),
    ]


def recorded(directory: Path) -> list[tuple[int, tuple[dict[Key, Entry], dict[Key, Doubt]]]]:
    """The state that holds from each size of the file on."""
    ledger = opened(directory)
    points = [(os.path.getsize(ledger.path), state(ledger))]
    for call in history():
        call(ledger)
        points.append((os.path.getsize(ledger.path), state(ledger)))
    ledger.close()
    return points


def test_cut_at_any_byte_it_is_what_it_was_after_the_last_whole_call(
    directory: Path, tmp_path: Path
) -> None:
    points = recorded(directory)
    content = (directory / "rtnl.ledger").read_bytes()
    assert points[-1][0] == len(content)
    for size in range(len(content) + 1):
        cut = tmp_path / "cut"
        cut.mkdir(exist_ok=True)
        (cut / "rtnl.ledger").write_bytes(content[:size])
        ledger = opened(cut)
        expected = [then for at, then in points if at <= size]
        assert state(ledger) == (expected[-1] if expected else ({}, {})), size
        assert bool(ledger.problem) == (not expected), size
        ledger.put([(("address", "x"), MADE)])
        held = state(ledger)
        ledger.close()
        again = opened(cut)
        assert state(again) == held, size
        assert again.problem is None
        again.close()


def test_behind_garbage_nothing_is_believed(directory: Path, tmp_path: Path) -> None:
    points = recorded(directory)
    content = (directory / "rtnl.ledger").read_bytes()
    bad = tmp_path / "bad"
    bad.mkdir()
    for position in range(len(content) - 1):
        (bad / "rtnl.ledger").write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        ledger = opened(bad)
        expected = [then for at, then in points if at <= position]
        assert ledger.problem is not None, position
        assert state(ledger) == (expected[-1] if expected else ({}, {})), position
        ledger.put([(("address", "x"), MADE)])
        held = state(ledger)
        ledger.close()
        again = opened(bad)
        assert (state(again), again.problem) == (held, None), position
        again.close()


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "null",
        '["i"]',
        '["p",{}]',
        '["p",[[["route"],"x"]]]',
        '["p",[[[4,"route"],"m"]]]',
        '["p",[[[],"m"]]]',
        '["p",[[["route",1.5],"m"]]]',
        '["p",[[["route",true],"m"]]]',
        '["p",[[["route",1],["m",{"a":1},{},{},{}]]]]',
        '["p",[[["route",1],["m",{},{},{},{"a":null}]]]]',
        '["p",[[["route",1],["m",{}]]]]',
        '["s",[],[]]',
        '["s",7]',
        '["q",[]]',
        "[" * 100_000,
        '"m"',
    ],
)
def test_json_that_is_no_line_of_a_ledger_is_garbage(directory: Path, line: str) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    ledger.close()
    with open(ledger.path, "a", encoding="ascii") as file:
        file.write(line + "\n")
    ledger = opened(directory)
    assert ledger.problem is not None
    assert "line 3" in ledger.problem
    assert state(ledger) == ({route(1): MADE}, {})
    ledger.close()


def test_killed_at_work_it_knows_all_that_was_promised(directory: Path) -> None:
    program = f"""
import sys
from linxd.ledger import FileLedger
from linxd.patch import Claim, Entry
ledger = FileLedger({str(directory)!r}, boot_id="b", cookie=1, source="rtnl")
number = 0
while True:
    keys = [("route", number, n) for n in range(50)]
    ledger.intend((key, Entry(Claim.MADE)) for key in keys)
    print("intended", number, flush=True)
    ledger.settle(keys)
    print("settled", number, flush=True)
    ledger.put((("route", number - 5, n), None) for n in range(50))
    number += 1
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().split() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        said += [
            line.split() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")
        ]
    ledger = opened(directory)
    assert ledger.problem is None
    last = max(int(number) for word, number in said if word == "settled")
    for number in range(last - 3, last + 1):
        for n in range(50):
            entry = ledger.get(("route", number, n))
            assert entry == MADE
    assert all(key[1] > last for key in ledger.in_doubt())  # type: ignore[operator]
    assert len(ledger) <= 7 * 50
    ledger.close()


# -- whose file it is -------------------------------------------------------------------------------------


def test_only_its_owner_can_read_it(directory: Path) -> None:
    ledger = opened(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(ledger.path).st_mode) == 0o600
    ledger.close()


@pytest.mark.parametrize(
    ("boot_id", "cookie", "words"), [("c", 1, "another boot"), ("b", 2, "another network")]
)
def test_of_another_boot_or_namespace_it_starts_empty_and_says_so(
    directory: Path, boot_id: str, cookie: int, words: str
) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    ledger.close()
    other = opened(directory, boot_id=boot_id, cookie=cookie)
    assert len(other) == 0
    assert other.problem is None
    assert other.note is not None
    assert words in other.note
    other.close()
    back = opened(directory)
    assert len(back) == 1
    back.close()
    other = opened(directory, boot_id=boot_id, cookie=cookie)
    other.put([(route(2), MADE)])
    other.close()
    back = opened(directory)
    assert len(back) == 0
    back.close()


def test_a_file_that_others_can_write_is_not_believed(directory: Path) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    ledger.close()
    os.chmod(ledger.path, 0o622)
    other = opened(directory)
    assert len(other) == 0
    assert other.problem is not None
    assert "others can write it" in other.problem
    assert stat.S_IMODE(os.stat(other.path).st_mode) == 0o600
    other.close()


def test_a_link_in_its_place_is_not_followed(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    directory.mkdir(mode=0o700)
    (directory / "rtnl.ledger").symlink_to(target)
    ledger = opened(directory)
    assert len(ledger) == 0
    assert ledger.problem is not None
    with contextlib.suppress(LedgerError):
        ledger.put([(route(1), MADE)])
    assert target.read_text() == "mine"
    ledger.close()


def test_dropped_it_is_gone(directory: Path) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    ledger.drop()
    assert list(directory.iterdir()) == []
    with pytest.raises(LedgerError):
        ledger.put([(route(1), MADE)])


def test_an_object_named_twice_stands_for_no_other(directory: Path) -> None:
    ledger = opened(directory)
    ledger.intend([(route(1), MADE), (route(2), MADE)])
    ledger.settle([route(1), route(1)])
    held = state(ledger)
    ledger.close()
    again = opened(directory)
    assert state(again) == held
    assert set(again.in_doubt()) == {route(2)}
    again.close()


# -- no room ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes: a write across is short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_without_room_nothing_is_intended_and_nothing_lost(directory: Path, room: int) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    size = os.path.getsize(ledger.path)
    with files_up_to(size + room):
        with pytest.raises(LedgerError, match="can't be written"):
            ledger.intend([(route(2), MADE)])
        with pytest.raises(LedgerError):
            ledger.put([(route(1), None)])
    assert os.path.getsize(ledger.path) == size
    assert state(ledger) == ({route(1): MADE}, {})
    ledger.intend([(route(2), MADE)])
    held = state(ledger)
    ledger.close()
    again = opened(directory)
    assert (state(again), again.problem) == (held, None)
    again.close()


def test_without_room_outcomes_hold_in_memory_and_are_caught_up(directory: Path) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    ledger.intend([(route(2), MADE), (route(3), MADE), (route(1), None)])
    crashed = Path(ledger.path).read_bytes()
    with files_up_to(10):
        ledger.settle([route(2), route(1)])
        ledger.revert([route(3)])
        assert state(ledger) == ({route(2): MADE}, {})
        assert Path(ledger.path).read_bytes() == crashed
        with pytest.raises(LedgerError):
            ledger.intend([(("link", "x" * 500), MADE)])
    ledger.put([(route(4), MADE)])
    held = state(ledger)
    ledger.close()
    again = opened(directory)
    assert state(again) == held == ({route(2): MADE, route(4): MADE}, {})
    again.close()


def test_a_directory_that_can_t_be_made_blocks_until_it_can(tmp_path: Path) -> None:
    way = tmp_path / "way"
    way.write_text("")
    ledger = opened(way / "state")
    assert "Not a directory" in str(ledger.problem)
    with pytest.raises(LedgerError):
        ledger.intend([(route(1), MADE)])
    assert ledger.get(route(1)) is None
    way.unlink()
    ledger.intend([(route(1), MADE)])
    assert str(ledger.problem) == "None"
    ledger.settle([route(1)])
    ledger.close()
    again = opened(way / "state")
    assert again.get(route(1)) == MADE
    again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a full and a read-only file system are mounted")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_on_a_full_or_read_only_file_system(directory: Path, how: str) -> None:
    program = f"""
import os, subprocess, sys
from linxd.ledger import FileLedger, LedgerError
from linxd.patch import Claim, Entry
where, how = {str(directory)!r}, {how!r}
os.mkdir(where)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", where], check=True)
ledger = FileLedger(where, boot_id="b", cookie=1, source="rtnl")
ledger.intend([(("route", 1), Entry(Claim.MADE)), (("route", 2), Entry(Claim.MADE))])
if how == "full":
    with open(where + "/filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(512)): pass
        except OSError: pass
else:
    subprocess.run(["mount", "-o", "remount,ro", where], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "--bind", where, where], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
    os.chdir("/")
    ledger.close()
    ledger = FileLedger(where, boot_id="b", cookie=1, source="rtnl")
    print(ledger.problem)
try:
    ledger.intend([(("route", "x" * 5000), Entry(Claim.MADE))])
    print("no error")
except LedgerError as error:
    print(error.strerror)
ledger.revert([("route", 1)])
ledger.settle([("route", 2)])
print(ledger.get(("route", 1)), len(ledger))
"""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if how == "full":
        assert "No space left on device" in lines[0]
        assert lines[1] == "None 1"
    else:
        assert "Read-only file system" in lines[0]
        assert "Read-only file system" in lines[1]


def test_removed_under_our_feet_it_is_written_anew(directory: Path) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE)])
    os.unlink(ledger.path)
    directory.rmdir()
    ledger.put([(route(2), MADE)])
    ledger.close()
    again = opened(directory)
    assert state(again) == ({route(1): MADE, route(2): MADE}, {})
    again.close()


# -- size -------------------------------------------------------------------------------------------------


def test_it_stays_in_proportion_to_what_it_holds(directory: Path) -> None:
    ledger = opened(directory)
    keys = [route(number) for number in range(500)]
    for _ in range(40):
        ledger.intend((key, MADE) for key in keys)
        ledger.settle(keys)
        ledger.intend((key, None) for key in keys)
        ledger.settle(keys)
    assert os.path.getsize(ledger.path) < 200_000
    held = state(ledger)
    ledger.close()
    assert [path.name for path in directory.iterdir() if path.suffix == ".ledger"] == ["rtnl.ledger"]
    again = opened(directory)
    assert state(again) == held
    again.close()


def test_nothing_new_writes_nothing(directory: Path) -> None:
    ledger = opened(directory)
    ledger.put([(route(1), MADE), (("sysctl", "a"), FOUND)])
    before = Path(ledger.path).read_bytes()
    ledger.put([(route(1), MADE), (("sysctl", "a"), FOUND), (route(2), None)])
    ledger.intend([(route(1), MADE)])
    ledger.settle([route(1)])
    assert Path(ledger.path).read_bytes() == before
    assert not ledger.in_doubt()
    ledger.close()


def test_no_descriptor_is_left(directory: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    ledger = opened(directory)
    for number in range(3000):
        ledger.put([(route(number % 3), MADE if number % 2 else None)])
    ledger.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
