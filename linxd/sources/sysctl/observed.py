# SPDX-License-Identifier: MIT
"""What was seen of the keys that matter, and which ledger entries still speak of what is there.

Data and pure functions; how it was read is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

from linxd.patch import Entry, Key
from linxd.records import dataclass, field
from linxd.sources.sysctl.model import Path, interface_of, key_of, path_of


@dataclass(frozen=True, slots=True)
class Observed:
    """The kernel's side of a diff.

    ``values``: the text of each key that could be read; ``unset``: those among them that hold no value yet
    (a secret that nobody set). ``troubles``: errno of the others, ENOENT for a key that is not there.
    ``readonly``: keys without a permission bit for writing. ``listing``: names in each directory of
    interfaces, None where there is no such directory. ``indices``: of interfaces, by name. ``disputes``:
    keys that were seen to undo each other, and how to say so. ``only``: the keys that were looked at, None
    for all.
    """

    values: Mapping[Path, str]
    troubles: Mapping[Path, int]
    unset: frozenset[Path]
    readonly: frozenset[Path]
    listing: Mapping[Path, frozenset[str] | None]
    indices: Mapping[str, int]
    disputes: Mapping[Path, str] = field(default_factory=dict)
    only: frozenset[Path] | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """``entries``: the ledger, as far as it speaks of what is there, under today's names. ``gone``: keys to
    forget; ``moved``: entries that are to stand under another key."""

    entries: Mapping[Key, Entry]
    gone: tuple[Key, ...] = ()
    moved: tuple[tuple[Key, Entry], ...] = ()


def follow(
    entries: Mapping[Key, Entry],
    indices: Mapping[str, int],
    listing: Mapping[Path, frozenset[str] | None],
) -> Followed:
    """Interfaces come, go and are renamed: their keys go with them, and so does what is known of those.

    An entry made for an interface (fact ``ifindex``) counts for that interface alone: under its new name
    after a rename, not at all for another one that has the old name now.
    """
    names = {index: name for name, index in indices.items()}
    stay: dict[Key, Entry] = {}
    gone: list[Key] = []
    moved: list[tuple[Key, Entry]] = []
    for key, entry in entries.items():
        index = entry.facts.get("ifindex")
        path = path_of(key) if index is not None else ()
        name = interface_of(path)
        if index is None or name is None:
            stay[key] = entry
            continue
        there = listing.get(path[:3])
        if (there is None or name in there) and indices.get(name, index) == index:
            stay[key] = entry
            continue
        gone.append(key)
        new = names.get(int(index))
        if new is not None and there is not None and new in there:
            moved.append((key_of((*path[:3], new, *path[4:])), entry))
    for key, entry in moved:
        stay[key] = entry
    left = {key for key, _ in moved}
    return Followed(stay, tuple(key for key in gone if key not in left), tuple(moved))
