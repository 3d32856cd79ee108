# SPDX-License-Identifier: MIT
"""The links of a namespace by index and by name, as every other kind of object needs them.

A declared link that was renamed from outside keeps its declared name here, so that what stands on it is
still recognised. Knows no socket and no ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from linxd.netlink.rt import LinkMsg

FIRST_INDEX = 1 << 16
"""Indices from here on are of our choosing. The kernel counts up and starts anew at two thousand million
only (net/core/dev.c dev_index_reserve), so that an index in the ledger never comes to mean a stranger's
link."""


LAST_INDEX = 1 << 30
"""Links with higher ones are not counted on from: the numbers end at 2**31 - 1."""


class LinkTable:
    """Links as last seen. One table, kept by the source over passes and corrected by each look and each
    event: also by those that come while a pass looks at the rest."""

    __slots__ = ("_alias", "_highest", "_index", "_newer", "by_index", "moves")

    def __init__(self, links: Iterable[LinkMsg] = ()) -> None:
        self.by_index: dict[int, LinkMsg] = {}
        self.moves = 0
        """Grows whenever a link comes, goes or is renamed. Who bears whose name is as before if it has not
        grown."""
        self._index: dict[str, int] = {}
        self._alias: dict[int, str] = {}
        self._highest: int | None = None
        """The highest index below LAST_INDEX, None when it has to be looked for."""
        self._newer: set[int] | None = None
        """Indices of which something was learnt while all links are read."""
        self.replace(links)

    def begin(self) -> None:
        """All links are about to be read, for `replace`. Whatever is learnt of one of them meanwhile is
        newer."""
        self._newer = set()

    def replace(self, links: Iterable[LinkMsg]) -> None:
        """These are all links that there are, but for what was learnt since `begin`."""
        newer, self._newer = self._newer or set(), None
        known = [self.by_index[ifindex] for ifindex in newer if ifindex in self.by_index]
        self.by_index, self._index, self._alias = {}, {}, {}
        self.moves += 1
        self._highest = None
        for link in links:
            if link.ifindex not in newer:
                self.put(link)
        for link in known:
            self.put(link)

    def put(self, link: LinkMsg) -> None:
        """Take note of a link, or of its present form."""
        if self._newer is not None:
            self._newer.add(link.ifindex)
        before = self.by_index.get(link.ifindex)
        if before is None or before.name != link.name:
            self.moves += 1
            if before is not None and self._index.get(before.name) == link.ifindex:
                del self._index[before.name]
        self.by_index[link.ifindex] = link
        if self._highest is not None and self._highest < link.ifindex < LAST_INDEX:
            self._highest = link.ifindex
        self._index[link.name] = link.ifindex
        if link.ifindex in self._alias and self._alias[link.ifindex] == link.name:
            del self._alias[link.ifindex]

    def drop(self, ifindex: int) -> None:
        """The link is gone."""
        if self._newer is not None:
            self._newer.add(ifindex)
        link = self.by_index.pop(ifindex, None)
        self.moves += 1
        if ifindex == self._highest:
            self._highest = None
        self._alias.pop(ifindex, None)
        if link is not None and self._index.get(link.name) == ifindex:
            del self._index[link.name]

    def recognise(self, known: Mapping[str, int]) -> None:
        """Links of ours by declared name and index: one that bears another name now keeps the declared
        one."""
        self._alias = {
            ifindex: name
            for name, ifindex in known.items()
            if name not in self._index and ifindex in self.by_index and self.by_index[ifindex].name != name
        }

    def find(self, name: str) -> LinkMsg | None:
        """The link declared under this name, under whatever name it goes now."""
        ifindex = self.index(name)
        return None if ifindex is None else self.by_index.get(ifindex)

    def index(self, name: str) -> int | None:
        """Its ifindex, None when it is not there."""
        ifindex = self._index.get(name)
        if ifindex is not None:
            return ifindex
        return next((index for index, alias in list(self._alias.items()) if alias == name), None)

    def name(self, ifindex: int) -> str:
        """Its declared name, else its kernel name, else ``if7`` (as ip(8) writes an index without a
        name)."""
        alias = self._alias.get(ifindex)
        if alias is not None:
            return alias
        link = self.by_index.get(ifindex)
        return link.name if link is not None else f"if{ifindex}"

    def free_index(self, known: Iterable[int] = ()) -> int:
        """An index for a new link: one that no link has, that none of ``known`` had, and that the kernel,
        which counts upwards from 1, will not give to anybody else's."""
        if self._highest is None:
            self._highest = max((index for index in self.by_index if index < LAST_INDEX), default=0)
        return max(FIRST_INDEX - 1, self._highest, *(index for index in known if index < LAST_INDEX)) + 1
