# SPDX-License-Identifier: MIT
"""Which keys the kernel changes along with one that is written, and what follows for the order of writes.

A table measured on kernels (the tests measure it again) and pure functions over it. It knows no procfs.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping

from linxd.records import dataclass
from linxd.sources.sysctl.model import ALL_AND_DEFAULT, Path, Setting, dotted, interface_of, place_of
from linxd.sources.sysctl.values import same


class How(enum.Enum):
    """What becomes of the other key."""

    SAME = enum.auto()
    """It gets the written value."""
    OPPOSITE = enum.auto()
    """It becomes 0 when the written value is not 0, else 1."""
    ZERO = enum.auto()
    """It becomes 0, unless 0 was written."""
    TIMES_1000 = enum.auto()
    BY_1000 = enum.auto()
    OTHERWISE = enum.auto()
    """It changes too, by a rule that depends on the machine (jiffies, the size of a packet buffer)."""
    MAYBE = enum.auto()
    """It gets the written value if nobody ever set it by itself."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """Writing ``source`` changes ``target``.

    In a source ``<dev>`` is an interface, and the same one in the target; ``*`` in a target is each one;
    ``?`` is any last member, the same in both. Only a write that changes the source's value does it.
    """

    source: Path
    target: Path
    how: How


def _table(text: str) -> tuple[Cascade, ...]:
    rows = []
    for line in filter(str.strip, text.splitlines()):
        source, how, *others = line.split()
        rows += [Cascade(tuple(source.split(".")), tuple(other.split(".")), How[how]) for other in others]
    return tuple(rows)


def _units(place: str) -> str:
    """One value in two units (net/core/neighbour.c)."""
    rows = ""
    for neigh in (f"net.ipv4.neigh.{place}", f"net.ipv6.neigh.{place}"):
        rows += f"""
            {neigh}.base_reachable_time     TIMES_1000  {neigh}.base_reachable_time_ms
            {neigh}.base_reachable_time_ms  BY_1000     {neigh}.base_reachable_time
            {neigh}.retrans_time            OTHERWISE   {neigh}.retrans_time_ms
            {neigh}.retrans_time_ms         OTHERWISE   {neigh}.retrans_time
            {neigh}.unres_qlen              OTHERWISE   {neigh}.unres_qlen_bytes
            {neigh}.unres_qlen_bytes        OTHERWISE   {neigh}.unres_qlen
            """
    return rows


MEASURED = _table(
    """
    net.ipv4.ip_forward  SAME      net.ipv4.conf.all.forwarding net.ipv4.conf.default.forwarding net.ipv4.conf.*.forwarding
    net.ipv4.ip_forward  OPPOSITE  net.ipv4.conf.all.accept_redirects
    net.ipv4.conf.all.forwarding  SAME      net.ipv4.ip_forward net.ipv4.conf.default.forwarding net.ipv4.conf.*.forwarding
    net.ipv4.conf.all.forwarding  OPPOSITE  net.ipv4.conf.all.accept_redirects
    net.ipv4.conf.default.?  MAYBE  net.ipv4.conf.*.?
    net.ipv6.conf.all.forwarding        SAME  net.ipv6.conf.default.forwarding net.ipv6.conf.*.forwarding
    net.ipv6.conf.all.disable_ipv6      SAME  net.ipv6.conf.default.disable_ipv6 net.ipv6.conf.*.disable_ipv6
    net.ipv6.conf.all.addr_gen_mode     SAME  net.ipv6.conf.default.addr_gen_mode net.ipv6.conf.*.addr_gen_mode
    net.ipv6.conf.all.ignore_routes_with_linkdown  SAME  net.ipv6.conf.default.ignore_routes_with_linkdown net.ipv6.conf.*.ignore_routes_with_linkdown
    net.ipv6.conf.all.force_forwarding  SAME  net.ipv6.conf.*.force_forwarding
    net.ipv6.route.gc_min_interval      TIMES_1000  net.ipv6.route.gc_min_interval_ms
    net.ipv6.route.gc_min_interval_ms   BY_1000     net.ipv6.route.gc_min_interval
    net.mptcp.pm_type       OTHERWISE  net.mptcp.path_manager
    net.mptcp.path_manager  OTHERWISE  net.mptcp.pm_type
    """  # noqa: E501 - a table
    + _units("<dev>")
)
"""What writing a key in a network namespace changes besides."""

HOST_WIDE = _table(
    """
    vm.dirty_bytes             ZERO  vm.dirty_ratio
    vm.dirty_ratio             ZERO  vm.dirty_bytes
    vm.dirty_background_bytes  ZERO  vm.dirty_background_ratio
    vm.dirty_background_ratio  ZERO  vm.dirty_background_bytes
    vm.overcommit_kbytes       ZERO  vm.overcommit_ratio
    vm.overcommit_ratio        ZERO  vm.overcommit_kbytes
    kernel.watchdog            SAME  kernel.nmi_watchdog kernel.soft_watchdog
    kernel.nmi_watchdog        OTHERWISE  kernel.watchdog
    kernel.soft_watchdog       OTHERWISE  kernel.watchdog
    net.ipv4.neigh.default.?   MAYBE  net.ipv4.neigh.*.?
    net.ipv6.neigh.default.?   MAYBE  net.ipv6.neigh.*.?
    """
    + _units("default")
)
"""The same of keys that exist once for the whole machine: from mm/page-writeback.c, mm/util.c,
kernel/watchdog.c, net/core/neighbour.c (neigh_proc_update)."""

TABLE = MEASURED + HOST_WIDE

FINER = ("base_reachable_time", "retrans_time", "unres_qlen", "gc_min_interval")
"""Keys of which there is a finer form, in a smaller unit."""


def _by_source() -> dict[tuple[int, str, str], tuple[Cascade, ...]]:
    """The table by what can be looked up fast: length, third from the front, last member."""
    rows: dict[tuple[int, str, str], list[Cascade]] = {}
    for row in TABLE:
        rows.setdefault((len(row.source), row.source[1], row.source[-1]), []).append(row)
    return {key: tuple(found) for key, found in rows.items()}


_ROWS = _by_source()


def rows_of(path: Path) -> Iterable[tuple[Cascade, Path]]:
    """The rows that a write of ``path`` sets off, each with its target: complete but for ``*``."""
    for last in (path[-1], "?"):
        for row in _ROWS.get((len(path), path[1], last), ()):
            place: str | None = None
            for mine, theirs in zip(path, row.source, strict=True):
                if theirs == "<dev>":
                    if mine in ALL_AND_DEFAULT:
                        break
                    place = mine
                elif theirs not in ("?", mine):
                    break
            else:
                yield (
                    row,
                    tuple(
                        place if m == "<dev>" and place else path[-1] if m == "?" else m for m in row.target
                    ),
                )


def changes_others(path: Path) -> bool:
    """Whether a write of ``path`` may change any other key."""
    return any(True for _ in rows_of(path))


def outcome(how: How, written: str) -> str | None:
    """What the other key has afterwards, None if only a look can tell."""
    match how:
        case How.SAME:
            return written
        case How.OPPOSITE:
            return "1" if same(written, "0") else "0"
        case How.ZERO:
            return None if same(written, "0") else "0"
    try:
        number = int(written)
    except ValueError:
        return None
    match how:
        case How.TIMES_1000:
            return str(number * 1000)
        case How.BY_1000:
            return str(number // 1000)
    return None


def write(now: dict[Path, str], path: Path, value: str) -> None:
    """Do to ``now`` what writing would do, as far as it can be foretold, to the keys that are in it."""
    before = now.get(path)
    now[path] = value
    if before is not None and same(before, value):
        return
    for row, target in rows_of(path):
        after = outcome(row.how, value)
        if after is None:
            continue
        for one in _meant(target, now):
            now[one] = after


def concerned(path: Path, among: Collection[Path]) -> set[Path]:
    """Those keys that a write of ``path`` changes, or may change."""
    found: set[Path] = set()
    for _, target in rows_of(path):
        found.update(_meant(target, among))
    return found


def targets(path: Path, interfaces: Iterable[str]) -> Iterable[Path]:
    """All keys that a write of ``path`` may change, given what interfaces there are."""
    for row, target in rows_of(path):
        if "*" not in row.target:
            yield target
            continue
        at = target.index("*")
        for name in interfaces:
            if name not in ALL_AND_DEFAULT:
                yield (*target[:at], name, *target[at + 1 :])


def _meant(target: Path, among: Collection[Path]) -> Iterable[Path]:
    if "*" not in target:
        return (target,) if target in among else ()
    head, last = target[:3], target[-1]
    return [
        path
        for path in among
        if path[-1] == last
        and path[:3] == head
        and len(path) == len(target)
        and path[3] not in ALL_AND_DEFAULT
    ]


def rank(path: Path, value: str) -> int:
    """Writes are made in this order: a key that changes others before those it changes.

    Of a value in two units the coarse one goes first, for the fine one says it exactly; of two keys that
    set each other to 0, the one that is to be 0 goes last, for it mostly needs no write by then.
    """
    if any(row.how in (How.SAME, How.OPPOSITE) for row, _ in rows_of(path)):
        return 0
    finer = path[-1] in FINER
    match place_of(path):
        case "all":
            return 1
        case "default":
            return 2 if finer else 3
    if finer:
        return 4
    return 6 if same(value, "0") and any(row.how is How.ZERO for row, _ in rows_of(path)) else 5


def partner(path: Path) -> Path | None:
    """The key that is another form of this one: each of the two changes the other."""
    for row, target in rows_of(path):
        if "*" not in row.target and any(back == path for _, back in rows_of(target)):
            return target
    return None


def is_twin(path: Path) -> bool:
    """Whether the key and its partner are one and the same value under two names."""
    other = partner(path)
    return other is not None and any(row.how is How.SAME and to == other for row, to in rows_of(path))


def giver(path: Path) -> tuple[Path, bool] | None:
    """The key through which the first value of ``path`` is to be given back, if it is not itself.

    The flag tells that this holds only for a first value of 0: it can't be written, but it comes about when
    the other one of the pair is set.
    """
    if path[-1] in FINER:
        other = partner(path)
        return None if other is None else (other, False)
    for row, target in rows_of(path):
        if row.how is How.ZERO:
            return target, True
    return None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two declared keys that can't both hold, whatever is written first."""

    one: Path
    other: Path
    text: str


def contradictions(values: Mapping[Path, str]) -> tuple[Contradiction, ...]:
    """The pairs among declared keys of which each undoes the other. Globs are to be expanded before."""
    found = []
    for path, value in values.items():
        other = partner(path)
        if other is None or other not in values or dotted(path) > dotted(other):
            continue
        first = {path: value, other: values[other]}
        orders = (_after(first, path, other), _after(first, other, path))
        if not any(orders):
            text = f"{dotted(path)} = {value} and {dotted(other)} = {values[other]}"
            found.append(
                Contradiction(path, other, f"{text} contradict each other: setting one sets the other")
            )
    return tuple(found)


def _after(wanted: Mapping[Path, str], first: Path, second: Path) -> bool:
    """Whether both hold once they are written in this order. What can't be foretold is taken to hold."""
    now = {first: "", second: ""}
    write(now, first, wanted[first])
    write(now, second, wanted[second])
    return now[first] == "" or same(now[first], wanted[first])


def declared_contradictions(settings: Iterable[Setting]) -> tuple[Contradiction, ...]:
    """The same for what files declare: a glob speaks for every interface that is named elsewhere, and for
    one more."""
    values: dict[Path, str] = {}
    globs = []
    names = {"*"}
    for setting in settings:
        if "*" in setting.path:
            globs.append(setting)
            continue
        values[setting.path] = setting.value
        name = interface_of(setting.path)
        if name is not None:
            names.add(name)
    for setting in globs:
        at = setting.path.index("*")
        for name in sorted(names):
            values.setdefault((*setting.path[:at], name, *setting.path[at + 1 :]), setting.value)
    return contradictions(values)
