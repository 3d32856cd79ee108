# SPDX-License-Identifier: MIT
"""Addresses between the wire and text, in the one spelling used everywhere: lower case, compressed.

It must not know which message an address stands in.
"""

from __future__ import annotations

from socket import inet_ntop, inet_pton

from linxd.netlink.wire import AF_INET, AF_INET6, WireError


def address_text(packed: bytes) -> str:
    """``10.0.0.5`` for four bytes, ``fd00::5`` for sixteen. Raises WireError for any other number."""
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed)
    if len(packed) == 16:
        return inet_ntop(AF_INET6, packed)
    raise WireError(f"an address of {len(packed)} bytes")


def address_bytes(text: str) -> bytes:
    """The reverse. Raises OSError for what is no address."""
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def prefix_bytes(text: str) -> tuple[bytes, int]:
    """Address and length of ``A/LEN``. Raises OSError or ValueError."""
    address, _, length = text.partition("/")
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address), int(length)


def mac_text(packed: bytes) -> str:
    """``02:00:00:00:00:09``; as many bytes as the link has."""
    return packed.hex(":")


def mac_bytes(text: str) -> bytes:
    """The reverse. Raises ValueError."""
    return bytes.fromhex(text.replace(":", ""))
