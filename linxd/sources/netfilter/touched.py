# SPDX-License-Identifier: MIT
"""Which parts of a table may have changed since they were last compared.

It grows by what events say and says how much has to be compared; it must not know how.
"""

from __future__ import annotations

from linxd.records import dataclass, field


@dataclass(slots=True)
class Touched:
    """Parts of one table. ``everything``: no matter what else it says. ``sets``: identities of the elements,
    None for all of them. ``parts``: a set, object, flowtable or chain came or went. ``chains``: how many
    rules at the beginning and at the end are as they were."""

    everything: bool = False
    head: bool = False
    parts: bool = False
    chains: dict[str, tuple[int, int]] = field(default_factory=dict)
    sets: dict[str, set[bytes] | None] = field(default_factory=dict)

    def element(self, name: str, identity: bytes) -> None:
        """An element of a set."""
        known = self.sets.setdefault(name, set())
        if known is not None:
            known.add(identity)

    def rules(self, name: str, first: int, last: int) -> None:
        """Rules of a chain, but for so many at the beginning and at the end."""
        known = self.chains.get(name)
        self.chains[name] = (first, last) if known is None else (min(first, known[0]), min(last, known[1]))

    def same(self, name: str) -> tuple[int, int]:
        """How many rules at the beginning and at the end of a chain need not be compared."""
        return (0, 0) if self.everything or self.parts else self.chains.get(name, (0, 0))

    def chain(self, name: str) -> bool:
        """Whether the chain's rules have to be compared."""
        return self.everything or self.parts or name in self.chains

    def elements(self, name: str) -> set[bytes] | None:
        """The elements of a set that have to be compared, None for all."""
        if self.everything or self.parts:
            return None
        return self.sets.get(name, set())

    @property
    def inner(self) -> bool:
        """Whether only rules of chains and elements of sets have to be compared."""
        return not (self.everything or self.head or self.parts)

    def __bool__(self) -> bool:
        return self.everything or self.head or self.parts or bool(self.chains) or bool(self.sets)


ALL = Touched(everything=True)
"""Compare all there is. Never to be added to."""
