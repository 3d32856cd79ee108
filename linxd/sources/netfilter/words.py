# SPDX-License-Identifier: MIT
"""Elements and hooks in the words of nft, for plans and journals; nothing is ever made from these words.

What has no simple spelling is shown in hexadecimal. It must not know what the words are for.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

from linxd.netlink.text import address_text
from linxd.netlink.wire import attr_map, attrs, text_of
from linxd.sources.netfilter import names as n
from linxd.sources.netfilter.decode import comment
from linxd.sources.netfilter.elements import key_bytes
from linxd.sources.netfilter.expressions import verdict_chain
from linxd.sources.netfilter.state import Hook, Set

_BE32 = struct.Struct(">I")
_BE64 = struct.Struct(">Q")
_SBE32 = struct.Struct(">i")


def _decimal(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big"))


def _native(raw: bytes) -> str:
    return str(int.from_bytes(raw, sys.byteorder))


def _hex(raw: bytes) -> str:
    return "0x" + (raw.hex() or "0")


_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 50: "esp", 51: "ah", 58: "ipv6-icmp", 132: "sctp"}

_TYPES: dict[int, tuple[int, Callable[[bytes], str]]] = {
    7: (4, address_text),
    8: (16, address_text),
    9: (6, lambda raw: raw.hex(":")),
    10: (2, _hex),
    12: (1, lambda raw: _PROTOCOLS.get(raw[0], str(raw[0]))),
    13: (2, _decimal),
    19: (4, lambda raw: f"0x{int.from_bytes(raw, sys.byteorder):08x}"),
    24: (4, _native),
    25: (4, _native),
    41: (16, lambda raw: '"' + text_of(raw) + '"'),
}
"""nft's own numbers of its data types (include/datatype.h, enum datatypes): length and spelling."""
_TYPE_BITS = 6
_ADDRESSES = (7, 8)


def _parts(type: int) -> list[int]:
    """The types in a concatenation, six bits each."""
    parts = []
    while type:
        parts.append(type & (1 << _TYPE_BITS) - 1)
        type >>= _TYPE_BITS
    return parts[::-1]


def _attribute(home: Set, type: int) -> int:
    return next((_BE32.unpack(value)[0] for at, value in home.attrs if at == type), 0)


def _value(type: int, raw: bytes) -> str:
    parts = _parts(type)
    if not all(part in _TYPES for part in parts) or not parts:
        return _hex(raw)
    if len(parts) == 1:
        length, spell = _TYPES[parts[0]]
        return spell(raw) if len(raw) == length else _hex(raw)
    words = []
    for part in parts:
        length, spell = _TYPES[part]
        if len(raw) < length:
            return _hex(raw)
        words.append(spell(raw[:length]))
        raw = raw[length + 3 & ~3 :]
    return " . ".join(words)


def _interval(type: int, first: bytes, after: bytes) -> str:
    """An interval of one value: from ``first`` to before ``after``."""
    if type == 41:
        return '"' + text_of(first) + '*"'
    last = (int.from_bytes(after, "big") - 1).to_bytes(len(after), "big")
    if first == last:
        return _value(type, first)
    return _range(type, first, last)


def _range(type: int, first: bytes, last: bytes) -> str:
    """``10.0.0.0/25`` where addresses are those of one prefix, else both ends."""
    if type in _ADDRESSES:
        low = int.from_bytes(first, "big")
        count = int.from_bytes(last, "big") - low + 1
        if count > 0 and count & count - 1 == 0 and low & count - 1 == 0:
            return f"{_value(type, first)}/{len(first) * 8 - count.bit_length() + 1}"
    return f"{_value(type, first)}-{_value(type, last)}"


def _concat_range(type: int, first: bytes, last: bytes) -> str:
    words = []
    for part in _parts(type):
        if part not in _TYPES:
            return f"{_hex(first)}-{_hex(last)}"
        length = _TYPES[part][0]
        low, high = first[:length], last[:length]
        step = length + 3 & ~3
        first, last = first[step:], last[step:]
        words.append(_value(part, low) if low == high else _range(part, low, high))
    return " . ".join(words)


def element_words(home: Set, identity: bytes) -> str:
    """``10.0.0.0/25``, ``22 : accept``, ``192.0.2.7 . 80 comment "web"``."""
    type = _attribute(home, n.NFTA_SET_KEY_TYPE)
    keys = key_bytes(identity)
    if not keys:
        text = "*"
    elif home.paired:
        after = keys[1] if len(keys) > 1 else b"\1" + bytes(len(keys[0]))
        try:
            text = _interval(type, keys[0], after)
        except (ValueError, OverflowError):
            text = "-".join(map(_hex, keys))
    elif len(keys) > 1:
        text = _concat_range(type, keys[0], keys[1])
    else:
        text = _value(type, keys[0])
    body = home.elements.get(identity, b"")
    if home.paired and keys:
        body = next((payload for _, payload in attrs(body, 0, len(body))), b"")
    return text + _rest(home, body)


def _rest(home: Set, body: bytes) -> str:
    found = attr_map(body, 0, len(body))
    text = ""
    timeout = found.get(n.NFTA_SET_ELEM_TIMEOUT)
    if timeout is not None:
        text += f" timeout {_BE64.unpack(timeout)[0] // 1000}s"
    note = comment(found.get(n.NFTA_SET_ELEM_USERDATA, b""))
    if note:
        text += f' comment "{note}"'
    data = found.get(n.NFTA_SET_ELEM_DATA)
    if data is not None:
        text += " : " + data_words(_attribute(home, n.NFTA_SET_DATA_TYPE), data)
    elif n.NFTA_SET_ELEM_OBJREF in found:
        text += f' : "{text_of(found[n.NFTA_SET_ELEM_OBJREF])}"'
    return text


_VERDICTS = {0: "drop", 1: "accept", 3: "queue", -1: "continue", -3: "jump", -4: "goto", -5: "return"}


def data_words(type: int, payload: bytes) -> str:
    """What a map maps to: a value, or a verdict."""
    found = attr_map(payload, 0, len(payload))
    verdict = found.get(n.NFTA_DATA_VERDICT)
    if verdict is None:
        return _value(type, found.get(n.NFTA_DATA_VALUE, b""))
    code = _SBE32.unpack(attr_map(verdict, 0, len(verdict)).get(n.NFTA_VERDICT_CODE, bytes(4)))[0]
    chain = verdict_chain(payload)
    word = _VERDICTS.get(code, f"verdict {code}")
    return f"{word} {chain}" if chain is not None else word


def hook_words(family: int, type: str, hook: Hook) -> str:
    """``type filter hook input priority 0``."""
    devices = f" devices = {{ {', '.join(hook.devices)} }}" if hook.devices else ""
    kind = f"type {type} " if type else ""
    return f"{kind}hook {n.hook_word(family, hook.number)}{devices} priority {hook.priority}"


def policy_word(policy: int | None) -> str:
    """``drop`` for NF_DROP."""
    return {n.NF_DROP: "drop", n.NF_ACCEPT: "accept"}.get(policy if policy is not None else 1, str(policy))
