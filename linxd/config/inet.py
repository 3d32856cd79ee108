# SPDX-License-Identifier: MIT
"""IP and link-layer addresses: read from TOML into the one spelling that the kernel's tools print.

Each raises `Wrong` or `Refused` and carries its own JSON Schema; none knows which key it is used for.
"""

from __future__ import annotations

import functools
import re
import socket
from typing import Any

from linxd.config.faults import Refused, Wrong, did_you_mean
from linxd.config.names import Names
from linxd.config.values import Type
from linxd.records import dataclass
from linxd.sources.rtnl.model import AF_INET, AF_INET6

FAMILIES = {"inet": AF_INET, "inet6": AF_INET6}
BITS = {AF_INET: 32, AF_INET6: 128}
FAMILY_WORDS = {AF_INET: "IPv4", AF_INET6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Prefix:
    """An address with a length. ``given``: the length was written, not implied."""

    family: int
    address: str
    length: int
    given: bool = True

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


def canonical(text: str) -> tuple[int, str] | None:
    """Family and the form in which the kernel's tools print an address; None if it is none.

    inet_ntop's form rather than `ipaddress`'s: the two disagree on IPv4-mapped addresses.
    """
    family = AF_INET6 if ":" in text else AF_INET
    try:
        return family, socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None


def masked(family: int, address: str, length: int) -> str:
    """The address with its host bits clear."""
    packed = socket.inet_pton(family, address)
    bits = len(packed) * 8
    number = int.from_bytes(packed, "big") >> (bits - length) << (bits - length)
    return socket.inet_ntop(family, number.to_bytes(len(packed), "big"))


def link_local(address: str) -> bool:
    """Whether an IPv6 address is in fe80::/10, which every link has."""
    return address[:3] in ("fe8", "fe9", "fea", "feb") and len(address.partition(":")[0]) == 4


def split(value: Any, want: str) -> Prefix:
    """``A`` or ``A/LEN``, host bits and all. Raises `Wrong`."""
    if not isinstance(value, str):
        raise Wrong(want)
    text, slash, length_text = value.partition("/")
    known = canonical(text)
    if known is None:
        raise Wrong(want, _why_no_address(text))
    family, address = known
    if not slash:
        return Prefix(family, address, BITS[family], given=False)
    number = length_text.isascii() and length_text.isdigit() and len(length_text) <= 3
    if not number or int(length_text) > BITS[family]:
        hint = ""
        mask = canonical(length_text)
        if mask is not None and mask[0] == family == AF_INET:
            ones = bin(int.from_bytes(socket.inet_pton(AF_INET, mask[1]), "big")).count("1")
            hint = (
                f"did you mean {address}/{ones}?"
                if masked(AF_INET, "255.255.255.255", ones) == mask[1]
                else ""
            )
        raise Wrong(f"{want}; a length is from 0 to {BITS[family]} in {FAMILY_WORDS[family]}", hint)
    return Prefix(family, address, int(length_text))


def _why_no_address(text: str) -> str:
    if "%" in text:
        return "say the link with dev, not after %"
    if text != text.strip():
        return "there is a blank around it"
    octets = text.split(".")
    if len(octets) == 4 and all(re.fullmatch(r"[0-9]+", octet, re.ASCII) for octet in octets):
        if any(int(octet) > 255 for octet in octets):
            return "no part goes above 255"
        return "leading zeros are ambiguous: leave them out"
    return ""


_ADDRESS_PATTERN = r"[0-9a-fA-F:.]+"


def _address(value: Any, names: Names) -> Prefix:
    prefix = split(value, "an address such as 10.0.0.1 or fd00::1")
    if prefix.given:
        raise Wrong("an address without a length", f'did you mean "{prefix.address}"?')
    return prefix


ADDRESS: Type[Prefix] = Type(_address, {"type": "string", "pattern": f"^{_ADDRESS_PATTERN}$"})


def _interface_address(value: Any, names: Names) -> Prefix:
    return split(value, "an address with its length such as 10.0.0.5/24 or fd00::5/64")


INTERFACE_ADDRESS: Type[Prefix] = Type(
    _interface_address, {"type": "string", "pattern": f"^{_ADDRESS_PATTERN}(/[0-9]{{1,3}})?$"}
)


def network(value: Any, want: str) -> Prefix:
    """``A`` or ``A/LEN`` whose host bits must be clear. Raises `Wrong`, or `Refused` with the masked
    form."""
    prefix = split(value, want)
    host = (1 << BITS[prefix.family] - prefix.length) - 1
    if host and int.from_bytes(socket.inet_pton(prefix.family, prefix.address), "big") & host:
        clear = masked(prefix.family, prefix.address, prefix.length)
        raise Refused(f"{prefix} has host bits set", f'did you mean "{clear}/{prefix.length}"?')
    return prefix


ANY = Prefix(0, "", 0, given=False)
"""``default`` or ``all``, of whatever family the rest says."""


def _destination(value: Any, names: Names) -> Prefix:
    if value == "default":
        return ANY
    # An address begins so; no slip of "default" does, or has one of these in it.
    looks = isinstance(value, str) and (value[:1].isdigit() or ":" in value)
    slip = "" if looks or not isinstance(value, str) else did_you_mean(value, ("default",))
    if slip:
        raise Wrong('"default", or an address with or without a length such as 10.1.0.0/16', slip)
    return network(value, '"default", or an address with or without a length such as 10.1.0.0/16')


DESTINATION: Type[Prefix] = Type(
    _destination, {"type": "string", "pattern": f"^(default|{_ADDRESS_PATTERN}(/[0-9]{{1,3}})?)$"}
)


def _selector(value: Any, names: Names) -> Prefix:
    if value in ("all", "default", "any"):
        return ANY
    return network(value, '"all", or an address with or without a length such as 10.1.0.0/16')


SELECTOR: Type[Prefix] = Type(
    _selector, {"type": "string", "pattern": f"^(all|default|any|{_ADDRESS_PATTERN}(/[0-9]{{1,3}})?)$"}
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """``family_said``: written as "inet6 fe80::1"."""

    family: int
    address: str
    family_said: bool = False


def _gateway(value: Any, names: Names) -> Gateway:
    want = "an address without a length such as 10.0.0.1, fe80::1 or inet6 fe80::1"
    if not isinstance(value, str):
        raise Wrong(want)
    return _gateway_in(value, want)


@functools.lru_cache(maxsize=256)  # many routes have few gateways
def _gateway_in(value: str, want: str) -> Gateway:
    family_word, _, rest = value.partition(" ")
    said = FAMILIES.get(family_word)
    prefix = split(rest.strip() if said is not None else value, want)
    if prefix.given:
        raise Wrong(want, f'did you mean "{prefix.address}"?')
    if said is not None and said != prefix.family:
        raise Wrong(f"an {FAMILY_WORDS[said]} address after {family_word}")
    return Gateway(prefix.family, prefix.address, family_said=said is not None)


GATEWAY: Type[Gateway] = Type(
    _gateway, {"type": "string", "pattern": f"^((inet|inet6) +)?{_ADDRESS_PATTERN}$"}
)


LLADDR_BYTES = (4, 6, 8, 16, 20)
"""Tunnels over IPv4, Ethernet, FireWire, tunnels over IPv6, InfiniBand."""


def _lladdr(value: Any, names: Names) -> str:
    want = "a link-layer address such as 02:00:00:00:00:09"
    if not isinstance(value, str):
        raise Wrong(want)
    dotted_quad = canonical(value) if "." in value else None
    if dotted_quad is not None and dotted_quad[0] == AF_INET:
        # Tunnels over IPv4 have an IPv4 address here (iproute2's ll_addr_a2n reads it so).
        return ":".join(f"{byte:02x}" for byte in socket.inet_pton(AF_INET, dotted_quad[1]))
    members = value.split(":")
    if len(members) in LLADDR_BYTES and all(
        re.fullmatch(r"[0-9a-fA-F]{1,2}", part, re.ASCII) for part in members
    ):
        return ":".join(f"{int(part, 16):02x}" for part in members)
    dashed = re.fullmatch(r"(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}", value, re.ASCII)
    raise Wrong(want, f'did you mean "{value.replace("-", ":").lower()}"?' if dashed else "")


LLADDR: Type[str] = Type(
    _lladdr, {"type": "string", "pattern": r"^(([0-9a-fA-F]{1,2}:)+[0-9a-fA-F]{1,2}|[0-9]+(\.[0-9]+){3})$"}
)
