# SPDX-License-Identifier: MIT
"""Numbers, words, names and times: read from TOML into the form the kernel would give back.

Each raises `Wrong` and carries its own JSON Schema; none knows which key it is used for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from linxd.config.faults import Wrong, did_you_mean, found, one_of
from linxd.config.names import Names
from linxd.records import dataclass

T = TypeVar("T")

U32 = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Type(Generic[T]):
    """``parse`` takes a plain TOML value and iproute2's names; ``schema`` is its JSON Schema."""

    parse: Callable[[Any, Names], T]
    schema: Mapping[str, Any]


# --- numbers and words -------------------------------------------------------------------------------------


def integer(low: int, high: int) -> Type[int]:
    """An integer in a range."""
    want = f"a whole number from {low} to {high}"

    def parse(value: Any, names: Names) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            quoted = (
                isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value) and low <= int(value) <= high
            )
            raise Wrong(want, "write it without quotes" if quoted else "")
        return value

    return Type(parse, {"type": "integer", "minimum": low, "maximum": high})


def flexible(low: int, high: int, *, what: str = "an integer") -> Type[int]:
    """An integer, or its text: ``"0x10"``."""
    want = f'{what} from {low} to {high}, or text such as "{high:#x}"'

    def parse(value: Any, names: Names) -> int:
        number = number_of(value)
        if number is None or not low <= number <= high:
            raise Wrong(want)
        return number

    return Type(
        parse,
        {
            "anyOf": [
                {"type": "integer", "minimum": low, "maximum": high},
                {"type": "string", "pattern": "^(0[xX][0-9a-fA-F]+|[0-9]+)$"},
            ]
        },
    )


def number_of(value: Any) -> int | None:
    """An integer out of an integer or of decimal or 0x text; None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}", value, re.ASCII):
        return int(value, 16 if value[:2] in ("0x", "0X") else 10)
    return None


def _boolean(value: Any, names: Names) -> bool:
    if not isinstance(value, bool):
        word = value.lower() if isinstance(value, str) else value
        hint = "write it without quotes" if word in ("true", "false") else ""
        if not hint and word in (0, 1, "yes", "no", "on", "off"):
            hint = "did you mean " + ("true" if word in (1, "yes", "on") else "false") + "?"
        raise Wrong("true or false", hint)
    return value


BOOLEAN: Type[bool] = Type(_boolean, {"type": "boolean"})


def word(*words: str) -> Type[str]:
    """One of a few words."""

    def parse(value: Any, names: Names) -> str:
        if not isinstance(value, str) or value not in words:
            raise Wrong(one_of(words), did_you_mean(value, words) if isinstance(value, str) else "")
        return value

    return Type(parse, {"enum": list(words)})


def choice(numbers: Mapping[str, T]) -> Type[T]:
    """One of a few words, each standing for something."""
    spelled = word(*numbers)
    return Type(lambda value, names: numbers[spelled.parse(value, names)], spelled.schema)


def _text(value: Any, names: Names) -> str:
    if not isinstance(value, str):
        raise Wrong("text in quotes")
    return value


TEXT: Type[str] = Type(_text, {"type": "string"})


def named(file: str, low: int, high: int, *, what: str) -> Type[int]:
    """A number, or a name of it in one of iproute2's files."""

    def parse(value: Any, names: Names) -> int:
        number = number_of(value)
        if number is None and isinstance(value, str):
            number = names.of(file).get(value)
            if number is None:
                hint = names.hint(file, value)
                raise Wrong(f"{what}: a number from {low} to {high}, or a known name", hint)
        if number is None or not low <= number <= high:
            raise Wrong(f"{what}: a number from {low} to {high}, or a known name")
        return number

    return Type(
        parse,
        {
            "anyOf": [
                {"type": "integer", "minimum": low, "maximum": high},
                {"type": "string", "minLength": 1},
            ]
        },
    )


# --- names of links ----------------------------------------------------------------------------------------

IFNAME_SCHEMA: Mapping[str, Any] = {
    "type": "string",
    "pattern": r"^[^\s/:%\x00-\x1f\x7f]{1,15}$",
    "not": {"enum": [".", ".."]},
}


def ifname(text: Any, *, of_link: bool = True) -> str:
    """A name that the kernel accepts for a link (net/core/dev.c dev_valid_name). Raises `Wrong`.

    ``of_link`` False: a rule's iif or oif, which may be any name a link could have had.
    """
    if not isinstance(text, str):
        raise Wrong(_NAME)
    return _ifname(text, of_link)


_NAME = "an interface name"


@functools.lru_cache(maxsize=1024)  # many routes lead to few links
def _ifname(text: str, of_link: bool) -> str:
    want = _NAME
    size = len(text.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= 15:
        raise Wrong(f"{want} of 1 to 15 bytes", f"this has {size}" if text else "")
    if text in (".", ".."):
        raise Wrong(f'{want}, which "." and ".." are not')
    # isspace() of the kernel takes 0xa0 for a blank, which is also the second byte of some letters in UTF-8.
    bad = next(
        (c for c in text if c in "/:%" or c.isspace() or ord(c) < 32 or ord(c) == 127 or 0xA0 in c.encode()),
        "",
    )
    if bad and 0xA0 in bad.encode():
        raise Wrong(f"{want} without {found(bad)}", "one of its bytes is 0xa0, a blank to the kernel")
    if bad:
        raise Wrong(f"{want} without {found(bad)}")
    if of_link and text in ("all", "default"):
        raise Wrong(f"{want}, which {text} is not: the kernel keeps it for /proc/sys/net/*/conf/{text}")
    return text


INTERFACE: Type[str] = Type(lambda value, names: ifname(value), IFNAME_SCHEMA)
ANY_INTERFACE: Type[str] = Type(lambda value, names: ifname(value, of_link=False), IFNAME_SCHEMA)


# --- time --------------------------------------------------------------------------------------------------

_UNITS = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_SPAN = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]+)\s*")

DURATION_SCHEMA: Mapping[str, Any] = {
    "type": "string",
    "pattern": r"^(0|(\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*(" + "|".join(sorted(_UNITS)) + r")\s*)+)$",
}


def seconds(value: Any, *, low: float, high: float, zero: bool = False) -> float:
    """A time span as systemd.time(7) writes it, in seconds. Raises `Wrong`. ``zero``: "0" is allowed
    besides."""
    want = 'a time span such as "30s", "2min" or "1h"' + (', or "0"' if zero else "")
    if not isinstance(value, str):
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        raise Wrong(
            want, f'did you mean "{value}s"?' if plain and value else 'write "0"' if plain and zero else ""
        )
    if zero and value.strip() == "0":
        return 0.0
    total, at = 0.0, 0
    while match := _SPAN.match(value, at):
        unit = _UNITS.get(match[2])
        if unit is None:
            raise Wrong(want, did_you_mean(match[2], _UNITS))
        total += float(match[1]) * unit
        at = match.end()
    if not at or at != len(value):
        raise Wrong(want, "say the unit" if re.fullmatch(r"[0-9.]+", value, re.ASCII) else "")
    if not low <= total <= high:
        raise Wrong(f"{want}, from {low:g}s to {high:g}s")
    return total


def span(low: int, high: int, *, what: str) -> Type[tuple[int, int]]:
    """One number, or two with a dash between: ``80``, ``"80-90"``."""
    want = f'{what} from {low} to {high}, or two such as "{low}-{high}"'

    def parse(value: Any, names: Names) -> tuple[int, int]:
        parts: Sequence[Any] = value.split("-") if isinstance(value, str) else (value,)
        numbers = [number_of(part.strip() if isinstance(part, str) else part) for part in parts]
        if len(numbers) not in (1, 2):
            raise Wrong(want)
        first, last = numbers[0], numbers[-1]
        if first is None or last is None or not low <= first <= last <= high:
            backward = first is not None and last is not None and last < first
            raise Wrong(want, "the first is the lower one" if backward else "")
        return first, last

    return Type(
        parse,
        {
            "anyOf": [
                {"type": "integer", "minimum": low, "maximum": high},
                {"type": "string", "pattern": r"^\s*[0-9]+\s*(-\s*[0-9]+\s*)?$"},
            ]
        },
    )
