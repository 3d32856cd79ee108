# SPDX-License-Identifier: MIT
"""What is there, for a picture of it: the word of daemons, the files, and the links of each namespace as the
kernel has them. Asked scope by scope, each in a thread of its own that enters the scope's namespace.

It writes nothing, and knows nothing of how a picture is made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from linxd.cli.once import (
    Absent,
    Barred,
    Trouble,
    configured,
    default_netns,
    finished,
    go_to,
    name_of,
    visiting,
)
from linxd.cli.plan import plans
from linxd.cli.status import found
from linxd.config import DIRECTORIES, ConfigError, NetnsRef, ScopeConfig, Undeclared, load
from linxd.config.files import main_file
from linxd.config.model import HOST, NETNS_DIRECTORY
from linxd.netlink import rt, wire
from linxd.netlink.rt import LinkMsg
from linxd.netlink.socket import Requests, open_netlink
from linxd.netns import NotThere, Refused, locate
from linxd.patch import Claim, Patch, State, Verb
from linxd.records import dataclass, field
from linxd.topology import Kept, Place, Scope, Seen

RTNL = "rtnl"


@dataclass
class _Subject:
    """A scope, or the host's namespace where no scope is in it. ``word``: its daemon's, and {} where
    nothing is known of it."""

    name: str
    word: Mapping[str, Any]
    config: ScopeConfig | None
    ref: NetnsRef
    place: Place | None = None
    cookie: int = 0
    usual: str = "unknown"
    links: dict[str, Kept] = field(default_factory=dict)
    owned: frozenset[str] | None = None
    notes: list[str] = field(default_factory=list)
    barred: bool = False

    @property
    def running(self) -> bool:
        """A daemon serves it."""
        return bool(self.word.get("running"))

    @property
    def is_scope(self) -> bool:
        """It has files, a daemon, or something left behind."""
        return bool(self.word) or self.config is not None


def survey(base: str, files: Sequence[str] = ()) -> Seen:
    """All that can be seen. ``base``: where scopes keep their state. ``files``: are read for the scopes of
    their names instead of those looked up. Raises Trouble for a fault in one of them."""
    given = {name_of(file): file for file in files}
    words = found(base)
    subjects = [_subject(name, words.get(name, {}), given) for name in sorted({HOST, *words, *given})]
    refs = {subject.name: subject.ref for subject in subjects}
    for subject in subjects:
        if subject.running:
            subject.usual, subject.links = _told(subject.word)
        _apart(lambda subject: _look(subject, refs), subject)
        if subject.place is not None and subject.cookie and subject.is_scope:
            _apart(lambda subject: _compare(subject, base), subject)
    places: dict[int, Place] = {}
    scopes = []
    for subject in sorted(subjects, key=lambda subject: subject.name != HOST):
        if subject.place is not None:
            place = places.setdefault(subject.cookie or id(subject), subject.place)
            if place is not subject.place:
                subject.notes.append(f"is in the same namespace as {place.name}")
        if subject.is_scope:
            scopes.append(_scope(subject, places.get(subject.cookie)))
    return Seen(tuple(places.values()), tuple(scopes), tuple(_notes(subjects)))


def _apart(call: Callable[[_Subject], None], subject: _Subject) -> None:
    """In a thread that may go to another namespace, and ends there."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call(subject)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


# -- what is declared ---------------------------------------------------------------------------------------


def _subject(name: str, word: Mapping[str, Any], given: Mapping[str, str]) -> _Subject:
    notes: list[str] = []
    config = None
    if name in given:
        config = configured(name, given[name])
    elif word:
        try:
            config = load(name, file=_other_file(name, word), check_others=False)
        except Undeclared:
            pass
        except ConfigError as error:
            notes.append(f"what is declared can't be shown: {error.faults[0]}")
    ref = config.netns if config is not None else _ref(word.get("netns")) or default_netns(name)
    return _Subject(name, word, config, ref, notes=notes)


def _other_file(name: str, word: Mapping[str, Any]) -> str | None:
    """The file that a daemon was told to read instead of those that are looked up."""
    files = word.get("files") if word.get("running") else None
    if not isinstance(files, list) or not files or not isinstance(files[0], str):
        return None
    return files[0] if files[0] not in {f"{each}/{main_file(name)}" for each in DIRECTORIES} else None


def _ref(text: object) -> NetnsRef | None:
    """A namespace as daemons write it."""
    if not isinstance(text, str) or not text:
        return None
    if text == HOST:
        return NetnsRef(HOST)
    kind, colon, value = text.partition(":")
    return NetnsRef(kind, value) if colon and kind in ("pid", "unit") else NetnsRef("path", text)


# -- what is there ------------------------------------------------------------------------------------------


def _look(subject: _Subject, refs: Mapping[str, NetnsRef]) -> None:
    """At its links. The thread stays in the namespace."""
    try:
        namespace = go_to(subject.name, subject.ref)
        namespace.close()
        with Requests(open_netlink()) as requests:
            subject.place = _place(subject.name, requests, refs)
        subject.cookie = namespace.cookie
    except Absent as error:
        subject.place = Place(subject.name)
        subject.notes.append(str(error))
    except Barred:
        subject.barred = True
    except (Trouble, OSError) as error:
        subject.notes.append(f"can't be looked into: {error}")


def _compare(subject: _Subject, base: str) -> None:
    """With its ledger and, where no daemon has said how its links are, with what is declared. The thread
    stays in the namespace."""
    try:
        with visiting(
            subject.name, subject.ref, subject.config, base, write=False, sources=(RTNL,)
        ) as pieces:
            for piece in pieces:
                mine = (Claim.MADE, Claim.TAKEN)
                entries = piece.ledger.of("link").items()
                subject.owned = frozenset(str(key[1]) for key, entry in entries if entry.claim in mine)
            if not subject.running and subject.config is not None:
                subject.usual, subject.links = _planned(finished(plans(pieces)).values())
    except Trouble as error:
        if not subject.running:
            subject.notes.append(f"whether its links are as declared can't be told: {error}")


def _place(name: str, requests: Requests, refs: Mapping[str, NetnsRef]) -> Place:
    links = tuple(rt.decode_link(*at) for at in requests.dump_all(wire.RTM_GETLINK, rt.query_links()))
    addresses = tuple(
        rt.decode_addr(*at)
        for family in (wire.AF_INET, wire.AF_INET6)
        for at in requests.dump_all(wire.RTM_GETADDR, rt.query_addrs(family))
    )
    return Place(name, links, addresses, _namespaces(name, links, requests, refs))


def _namespaces(
    name: str, links: Iterable[LinkMsg], requests: Requests, refs: Mapping[str, NetnsRef]
) -> dict[int, str]:
    """The namespaces that links speak of, by their ids here: the kernel is asked of one namespace after the
    other, the host's first, until all are known."""
    wanted = {link.link_netnsid for link in links} - {None, rt.NOT_ASSIGNED}
    known: dict[int, str] = {}
    for other, ref in _candidates(name, refs):
        if len(known) == len(wanted):
            break
        try:
            # To open it takes no privilege, to enter it does. The process' own is that of its first thread.
            path = "/proc/self/ns/net" if ref.kind == HOST else locate(ref)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (NotThere, Refused, OSError):
            continue
        try:
            (reply, *_) = requests.request(wire.RTM_GETNSID, 0, rt.encode_nsid(fd))
            number = rt.decode_nsid(reply.buf, reply.start, reply.end)
        except (OSError, ValueError):
            continue
        finally:
            os.close(fd)
        if number in wanted:
            known.setdefault(number, other)
    return known


def _candidates(name: str, refs: Mapping[str, NetnsRef]) -> Iterator[tuple[str, NetnsRef]]:
    yield from sorted(
        ((other, ref) for other, ref in refs.items() if other != name), key=lambda one: one[0] != HOST
    )
    try:
        names = sorted(os.listdir(NETNS_DIRECTORY))
    except OSError:
        return
    # By their paths, so that none is taken for a scope of that name.
    yield from ((path, NetnsRef("path", path)) for path in (f"{NETNS_DIRECTORY}/{one}" for one in names))


# -- how it stands ------------------------------------------------------------------------------------------


def _told(word: Mapping[str, Any]) -> tuple[str, dict[str, Kept]]:
    """By the word of a daemon: how its links are, and how those are that it does not mention."""
    kept = {}
    told = [one for one in word.get("conditions", ()) if one.get("source") == RTNL]
    for one in told:
        kind, _, name = str(one.get("object")).partition(" ")
        if kind == "link" and one.get("state") != State.NOTED:
            kept[name] = Kept(str(one.get("state")), str(one.get("text")).partition(": ")[2])
    usual = "unknown"
    for loop in word.get("loops", ()):
        if loop.get("source") == RTNL and loop.get("state") not in ("starting", "blocked"):
            counts = loop.get("counts", {})
            # There may be more than a daemon's word has room for.
            if sum(count for state, count in counts.items() if state != State.DONE) <= len(told):
                usual = "done"
    return usual, kept


def _planned(patches: Iterable[Patch]) -> tuple[str, dict[str, Kept]]:
    """By what would be done."""
    kept = {}
    for patch in patches:
        for op in patch.ops:
            if op.key[0] == "link" and op.verb is not Verb.DELETE:
                drifted = ", ".join(change.words() for change in op.changes)
                made = op.verb is Verb.CREATE
                kept[str(op.key[1])] = Kept("missing" if made else "drifted", "" if made else drifted)
        for one in patch.conditions:
            if one.key[0] == "link" and one.state is not State.NOTED:
                kept[str(one.key[1])] = Kept(str(one.state), one.text)
    return "done", kept


def _scope(subject: _Subject, place: Place | None) -> Scope:
    return Scope(
        subject.name,
        str(subject.word.get("state", "-")),
        running=subject.running,
        desired=None if subject.config is None else subject.config.rtnl,
        usual=subject.usual,
        links=subject.links,
        owned=subject.owned,
        place="" if place is None else place.name,
    )


def _notes(subjects: Sequence[_Subject]) -> Iterator[str]:
    barred = [subject.name for subject in subjects if subject.barred]
    if barred:
        yield f"only root can look into {_few(barred)}: shown as far as it is declared"
    unknown = [one.name for one in subjects if one.running and one.usual == "unknown"]
    if unknown:
        yield f"which links are as declared is not known of {_few(unknown)}; root may be told more"
    for subject in subjects:
        yield from (f"{subject.name}: {note}" for note in subject.notes)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
