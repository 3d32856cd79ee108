# SPDX-License-Identifier: MIT
"""How the value of a link attribute is written in a file, shown to people and carried on the wire.

A form knows nothing of which attribute it is for.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

from linxd.records import dataclass, field
from linxd.sources.rtnl.model import Value

Resolve = Callable[[str], int]
NameOf = Callable[[int], str]

_SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _bytes(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _spelled(value: object) -> str | None:
    """An address as the kernel's tools print it; None for what is none."""
    try:
        return _text(_bytes(value)) if isinstance(value, str) else None
    except (OSError, ValueError):
        return None


class Form:
    """One way to hold a value. ``parse`` raises ValueError with what was expected."""

    def parse(self, value: object) -> Value:
        """A value from a file, in its normal form."""
        raise NotImplementedError

    def show(self, value: Value) -> str:
        """The value as iproute2 prints it."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return " ".join(value) if isinstance(value, tuple) else str(value)

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        """The attribute's payload. ``resolve`` gives a link's index."""
        raise NotImplementedError

    def unpack(self, payload: bytes, name_of: NameOf) -> Value | None:
        """The value in a payload, in its normal form."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """What JSON Schema can say about it."""
        raise NotImplementedError


def whole(value: object, low: int, high: int, what: str = "a whole number") -> int:
    """An integer in a range; a boolean is not one."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} from {low} to {high}")
    return value


@dataclass(frozen=True, slots=True)
class Integer(Form):
    """An unsigned number of ``size`` bytes; ``big`` is network byte order. ``scale``: the wire counts that
    many to one of ours. ``words``: names for some values, which iproute2 knows."""

    size: int = 4
    low: int = 0
    high: int | None = None
    big: bool = False
    scale: int = 1
    words: Mapping[str, int] = field(default_factory=dict)

    @property
    def highest(self) -> int:
        return ((1 << 8 * self.size) - 1) // self.scale if self.high is None else self.high

    def parse(self, value: object) -> int:
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        also = "".join(f' or "{word}"' for word in self.words)
        try:
            return whole(value, self.low, self.highest)
        except ValueError as error:
            raise ValueError(f"{error}{also}") from None

    def show(self, value: Value) -> str:
        for word, number in self.words.items():
            if number == value:
                return word
        return str(value)

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return struct.pack((">" if self.big else "=") + _SIZES[self.size], int(value) * self.scale)

    def unpack(self, payload: bytes, name_of: NameOf) -> int:
        return int.from_bytes(payload[: self.size], "big" if self.big else sys.byteorder) // self.scale

    def schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.low, "maximum": self.highest}
        return {"anyOf": [number, {"enum": sorted(self.words)}]} if self.words else number


@dataclass(frozen=True, slots=True)
class Signed(Form):
    """A signed 32-bit number."""

    low: int = -(1 << 31)
    high: int = (1 << 31) - 1

    def parse(self, value: object) -> int:
        return whole(value, self.low, self.high)

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return struct.pack("=i", value)

    def unpack(self, payload: bytes, name_of: NameOf) -> int:
        return int.from_bytes(payload[:4], sys.byteorder, signed=True)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Switch(Form):
    """True or false, as a number of ``size`` bytes."""

    size: int = 1
    inverted: bool = False

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return int(bool(value) != self.inverted).to_bytes(self.size, sys.byteorder)

    def unpack(self, payload: bytes, name_of: NameOf) -> bool:
        return bool(int.from_bytes(payload[: self.size], sys.byteorder)) != self.inverted

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Present(Switch):
    """True by the attribute being there at all: a switch that the kernel takes once and only one way."""

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return b""

    def unpack(self, payload: bytes, name_of: NameOf) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Bit(Switch):
    """One bit of an attribute of 32 bits (or 16); with ``masked``, of a struct of flags and mask. The bits
    that are not meant keep their value in the kernel where there is a mask; the others travel together."""

    bit: int = 1
    masked: bool = False
    big: bool = False

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        bits = self.bit if bool(value) != self.inverted else 0
        if self.masked:
            return struct.pack("=II", bits, self.bit)
        return bits.to_bytes(self.size, "big" if self.big else sys.byteorder)

    def unpack(self, payload: bytes, name_of: NameOf) -> bool:
        size = 4 if self.masked else self.size
        number = int.from_bytes(payload[:size], "big" if self.big else sys.byteorder)
        return bool(number & self.bit) != self.inverted


@dataclass(frozen=True, slots=True)
class Choice(Form):
    """One of a few words. ``words``: their numbers on the wire."""

    words: Mapping[str, int]
    size: int = 1
    big: bool = False

    def parse(self, value: object) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        raise ValueError("one of " + ", ".join(f'"{word}"' for word in self.words))

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return self.words[value].to_bytes(self.size, "big" if self.big else sys.byteorder)

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        number = int.from_bytes(payload[: self.size], "big" if self.big else sys.byteorder)
        return next((word for word, value in self.words.items() if value == number), str(number))

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Text(Form):
    """A string of at most ``longest`` bytes."""

    longest: int = 255

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or len(value.encode()) > self.longest or "\0" in value:
            raise ValueError(f"a string of at most {self.longest} bytes")
        return value

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return str(value).encode() + b"\0"

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        return payload.split(b"\0", 1)[0].decode(errors="replace")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.longest}


@dataclass(frozen=True, slots=True)
class Names(Form):
    """A list of names; their order does not matter."""

    def parse(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("a list of names")
        for item in value:
            if not item or len(item.encode()) > 127 or re.search(r"[\s/:\0]", item):
                raise ValueError(
                    f"names of at most 127 bytes without blanks, slashes and colons; {item!r} is none"
                )
        if len(set(value)) != len(value):
            raise ValueError("each name once")
        return tuple(sorted(value))

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Mac(Form):
    """An Ethernet address, kept in lower case."""

    def parse(self, value: object) -> str:
        text = value.lower().replace("-", ":") if isinstance(value, str) else ""
        if not _MAC.fullmatch(text):
            raise ValueError('an Ethernet address such as "02:00:00:00:00:01"')
        return text

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return bytes.fromhex(str(value).replace(":", ""))

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        return payload[:6].hex(":")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$"}


@dataclass(frozen=True, slots=True)
class Address(Form):
    """An IP address of one family, 4 or 6. The unspecified one stands for "none" on the wire."""

    family: int = 4

    def parse(self, value: object) -> str:
        spelled = _spelled(value)
        if spelled is None or (":" in spelled) != (self.family == 6):
            raise ValueError(f"an IPv{self.family} address")
        return spelled

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return _bytes(str(value))

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        return _text(payload[: 4 if self.family == 4 else 16])

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": f"ipv{self.family}"}


@dataclass(frozen=True, slots=True)
class AnyAddress(Form):
    """An IP address of either family, each with an attribute of its own (see `Attribute.number6`)."""

    def parse(self, value: object) -> str:
        spelled = _spelled(value)
        if spelled is None:
            raise ValueError("an IPv4 or IPv6 address")
        return spelled

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return _bytes(str(value))

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        return _text(payload)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}


@dataclass(frozen=True, slots=True)
class AddressList(Form):
    """A list of IPv4 addresses, as numbered attributes in a nest."""

    most: int = 16

    def parse(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > self.most:
            raise ValueError(f"a list of at most {self.most} IPv4 addresses")
        one = Address(4)
        return tuple(one.parse(item) for item in value)

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return b"".join(struct.pack("=HH4s", 8, n, socket.inet_aton(item)) for n, item in enumerate(value))

    def unpack(self, payload: bytes, name_of: NameOf) -> tuple[str, ...]:
        return tuple(socket.inet_ntoa(payload[at + 4 : at + 8]) for at in range(0, len(payload) - 7, 8))

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "format": "ipv4"}, "maxItems": self.most}


@dataclass(frozen=True, slots=True)
class LinkName(Form):
    """Another link of the namespace, by name; its index on the wire."""

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value.encode()) < 16:
            raise ValueError("the name of a link")
        return value

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return struct.pack("=I", resolve(str(value)))

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        index = int.from_bytes(payload[:4], sys.byteorder)
        return name_of(index) if index else ""

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": 15}


@dataclass(frozen=True, slots=True)
class Ports(Form):
    """A range of ports, "LOW-HIGH"."""

    def parse(self, value: object) -> str:
        match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
        if match is None or not int(match[1]) <= int(match[2]) <= 65535:
            raise ValueError('a range of ports such as "32768-61000"')
        return f"{int(match[1])}-{int(match[2])}"

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        low, high = str(value).split("-")
        return struct.pack(">HH", int(low), int(high))

    def unpack(self, payload: bytes, name_of: NameOf) -> str:
        low, high = struct.unpack(">HH", payload[:4])
        return f"{low}-{high}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9]{1,5}-[0-9]{1,5}$"}


@dataclass(frozen=True, slots=True)
class QosMap(Form):
    """VLAN priorities to packet priorities or back, as "FROM:TO" entries in ascending order. An entry to 0
    is none: the kernel does not tell of it (vlan_fill_info in net/8021q/vlan_netlink.c)."""

    low: int = 0xFFFFFFFF
    high: int = 0xFFFFFFFF
    """The highest priorities that may be mapped, and be mapped to; the kernel cuts off what is above."""

    def parse(self, value: object) -> tuple[str, ...]:
        pairs: dict[int, int] = {}
        for item in value if isinstance(value, list) else [None]:
            match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", item) if isinstance(item, str) else None
            if match is None:
                raise ValueError('a list of "FROM:TO" such as ["1:2", "3:4"]')
            low, high = int(match[1]), int(match[2])
            if low > self.low or high > self.high:
                raise ValueError("VLAN priorities from 0 to 7")
            pairs[low] = high
        return tuple(f"{low}:{high}" for low, high in sorted(pairs.items()) if high)

    def over(self, value: tuple[str, ...], observed: tuple[str, ...]) -> tuple[str, ...]:
        """What makes ``observed`` to ``value``: an entry that is in a request is changed, every other one
        stays, so that those to be gone are mapped to 0."""
        kept = {item.partition(":")[0] for item in value}
        gone = (item.partition(":")[0] for item in observed)
        return (*value, *(f"{low}:0" for low in gone if low not in kept))

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        pairs = (item.split(":") for item in value)
        return b"".join(struct.pack("=HHII", 12, 1, int(low), int(high)) for low, high in pairs)

    def unpack(self, payload: bytes, name_of: NameOf) -> tuple[str, ...]:
        pairs = sorted(struct.unpack_from("=II", payload, at + 4) for at in range(0, len(payload) - 11, 12))
        return tuple(f"{low}:{high}" for low, high in pairs)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "pattern": "^[0-9]+:[0-9]+$"}}


@dataclass(frozen=True, slots=True)
class Key(Form):
    """A tunnel key: a number, written as itself or as a dotted quad."""

    def parse(self, value: object) -> int:
        quad = _spelled(value)
        if quad is not None and ":" not in quad:
            return int.from_bytes(_bytes(quad), "big")
        return whole(value, 0, 0xFFFFFFFF, "a number")

    def pack(self, value: Any, resolve: Resolve) -> bytes:
        return struct.pack(">I", value)

    def unpack(self, payload: bytes, name_of: NameOf) -> int:
        return int.from_bytes(payload[:4], "big")

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 0xFFFFFFFF},
                {"type": "string", "format": "ipv4"},
            ]
        }
