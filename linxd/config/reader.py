# SPDX-License-Identifier: MIT
"""Reading tables by a list of their keys: types, unknown keys, and every fault instead of the first.

It must not know which keys linxd has: those stand where their meaning does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from linxd.config.document import Node, spell
from linxd.config.faults import Fault, Path, Refused, Severity, Wrong, did_you_mean, dotted, found
from linxd.config.names import Names
from linxd.config.values import BOOLEAN, Type
from linxd.records import dataclass, field
from linxd.sources.rtnl.model import Where

T = TypeVar("T")

MOST_HINTS = 200
"""Faults after which keys are no longer compared with the known ones: that takes a millisecond each."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table: its type, and one line about it for the schema and the reference.

    ``type`` None: a table or array that its own reader takes apart; ``schema`` then says what it looks like.
    """

    type: Type[Any] | None
    doc: str
    required: bool = False
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reader:
    """Collects the faults of one scope's files, and knows iproute2's names."""

    names: Names = field(default_factory=Names)
    faults: list[Fault] = field(default_factory=list)

    errors: int = 0
    """How many of the faults refuse the whole. An object is built only if its reading left this as it
    was."""

    def error(self, node: Node, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """An error at a node's value, or at its key."""
        self._add(node, message, hint, Severity.ERROR, at_key=at_key)

    def missing(self, node: Node, key: str, message: str, hint: str = "") -> None:
        """An error about a key that a table lacks, where the table begins."""
        self._add(node, message, hint, Severity.ERROR, at_key=isinstance(node.key, str), below=(key,))

    def warning(self, node: Node, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """A warning at a node's value, or at its key."""
        self._add(node, message, hint, Severity.WARNING, at_key=at_key)

    def _add(
        self, node: Node, message: str, hint: str, severity: Severity, *, at_key: bool, below: Path = ()
    ) -> None:
        self.errors += severity is Severity.ERROR
        where = node.key_where if at_key else node.where
        path = dotted((*node.path, *below))
        self.faults.append(Fault(where.file, where.line, where.column, path, message, hint, severity))

    def parse(self, node: Node, parse: Callable[[Any], T]) -> T | None:
        """``parse`` of a node's plain value; None and a fault when it raises `Wrong` or `Refused`."""
        try:
            return parse(node.plain())
        except (Wrong, Refused) as error:
            self._refuse(node, error)
        return None

    def value(self, node: Node, kind: Type[T]) -> T | None:
        """A node's value by its type."""
        try:
            return kind.parse(node.plain(), self.names)
        except (Wrong, Refused) as error:
            self._refuse(node, error)
        return None

    def _refuse(self, node: Node, error: Wrong | Refused) -> None:
        if isinstance(error, Wrong):
            self.error(node, f"is {found(node.plain())}, want {error.want}", error.hint)
        else:
            self.error(node, error.message, error.hint)

    def is_table(self, node: Node, *, want: str, hint: str = "") -> bool:
        """Whether a node is a table; a fault if it is not."""
        if isinstance(node.value, dict):
            return True
        self.error(node, f"is {found(node.plain())}, want {want}", hint)
        return False

    def tables(self, node: Node) -> list[Node]:
        """The elements of an array of tables; a fault for what is not one."""
        if not isinstance(node.value, list):
            hint = f"write [[{spell(node)}]]" if isinstance(node.value, dict) else ""
            self.error(node, f"is {found(node.plain())}, want an array of tables", hint)
            return []
        return [item for item in node.value if self.is_table(item, want="a table")]

    def fields(
        self,
        node: Node,
        fields: Mapping[str, Field],
        *,
        unknown: Callable[[Node], bool] | None = None,
        check_required: bool = True,
    ) -> dict[str, Any]:
        """The values of a table by key, those left out or at fault missing.

        A key that ``fields`` lacks is a fault, unless ``unknown`` is asked and says that it took care of it.
        """
        values: dict[str, Any] = {}
        table = node.table()
        for key, item in table.items():
            entry = fields.get(key)
            if entry is None:
                if unknown is None or not unknown(item):
                    self.unknown(item, fields)
            elif entry.type is not None:
                value = self.value(item, entry.type)
                if value is not None:
                    values[key] = value
        if check_required:
            for key in [key for key, entry in fields.items() if entry.required and key not in table]:
                self.missing(node, key, "is required", fields[key].doc)
        return values

    def unknown(self, node: Node, known: Iterable[str], hint: str = "") -> None:
        """The fault of a key that does not exist."""
        if not hint and len(self.faults) < MOST_HINTS:
            hint = did_you_mean(str(node.key), known)
        self.error(node, "unknown key", hint, at_key=True)


ABSENT = Field(BOOLEAN, "true withdraws what an earlier file declares")


@dataclass(slots=True)
class Entries(Generic[T]):
    """Objects of one kind by identity, as declared in several files one after the other."""

    reader: Reader
    kind: str
    _found: dict[Hashable, tuple[T | None, Node]] = field(default_factory=dict)

    def add(self, key: Hashable, item: T | None, node: Node, *, shown: str) -> None:
        """An object, or with ``item`` None its withdrawal. The same identity in a later file replaces it
        whole, in the same file it is a fault."""
        before = self._found.get(key)
        if before is not None and before[1].source is node.source:
            self.reader.error(
                node, f"the same {self.kind} is declared on line {before[1].where.line} already", shown
            )
            return
        if item is None and (before is None or before[0] is None):
            self.reader.warning(node, f"withdraws {shown}, which no earlier file declares")
        self._found.pop(key, None)
        self._found[key] = (item, node)

    def items(self) -> Sequence[tuple[T, Node]]:
        """What is left, in order, with where each stands."""
        return [(item, node) for item, node in self._found.values() if item is not None]


def where_of(node: Node) -> Where:
    """Where an object is declared: its header, its table, or its key."""
    return node.where if not node.key or isinstance(node.key, int) else node.key_where
