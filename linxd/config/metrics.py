# SPDX-License-Identifier: MIT
"""Metrics of a route (RTAX_*), in the words of ip-route(8). Knows nothing of the route they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from linxd.config.faults import Wrong
from linxd.config.names import Names
from linxd.config.reader import Field
from linxd.config.values import U32, Type, number_of, seconds, word

LOCK = 1
FEATURE_ECN = 1
"""RTAX_FEATURE_ECN, include/uapi/linux/rtnetlink.h."""

NUMBERS = {
    "mtu": 2, "window": 3, "rtt": 4, "rttvar": 5, "ssthresh": 6, "cwnd": 7, "advmss": 8, "reordering": 9,
    "hoplimit": 10, "initcwnd": 11, "features": 12, "rto_min": 13, "initrwnd": 14, "quickack": 15,
    "congctl": 16, "fastopen_no_cookie": 17,
}  # fmt: skip
"""include/uapi/linux/rtnetlink.h, by the names of ip-route(8)."""

_LOCKED = re.compile(r"lock +(\S.*)")


def _lockable(text: Any) -> tuple[Any, bool]:
    match = _LOCKED.fullmatch(text) if isinstance(text, str) else None
    return (match[1], True) if match else (text, False)


def _number(high: int, *, lockable: bool) -> Type[tuple[int, bool]]:
    want = f"a whole number from 1 to {high}" + (f', or "lock {min(high, 1400)}"' if lockable else "")

    def parse(value: Any, names: Names) -> tuple[int, bool]:
        plain, locked = _lockable(value) if lockable else (value, False)
        number = number_of(plain) if locked or not isinstance(plain, str) else None
        if number is None or not 1 <= number <= high:
            raise Wrong(want)
        return number, locked

    plain_schema = {"type": "integer", "minimum": 1, "maximum": high}
    return Type(
        parse,
        {"anyOf": [plain_schema, {"type": "string", "pattern": "^lock +[0-9]+$"}]}
        if lockable
        else plain_schema,
    )


def _time(scale: int, *, always_locked: bool = False) -> Type[tuple[int, bool]]:
    """A time: text with its unit, times ``scale`` in milliseconds; or the kernel's own number (iproute2
    so)."""
    want = 'a time such as "200ms", or the kernel\'s own number'

    def parse(value: Any, names: Names) -> tuple[int, bool]:
        plain, locked = _lockable(value)
        number = number_of(plain) if locked or not isinstance(plain, str) else None
        if number is None and isinstance(plain, str):
            try:
                number = round(seconds(plain, low=0.001, high=3600) * 1000) * scale
            except Wrong as error:
                raise Wrong(want, error.hint) from None
        if number is None or not 1 <= number <= U32:
            raise Wrong(want)
        return number, locked or always_locked

    return Type(
        parse,
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": U32}, {"type": "string", "minLength": 2}]},
    )


def _switch(value: Any, names: Names) -> tuple[int, bool]:
    if value is not True and value != 1:
        raise Wrong("true or 1", "leave it out to have it off" if value in (0, False) else "")
    return 1, False


_SWITCH: Type[tuple[int, bool]] = Type(_switch, {"enum": [True, 1]})


def _congctl(value: Any, names: Names) -> tuple[str, bool]:
    plain, locked = _lockable(value)
    if not isinstance(plain, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,15}", plain):
        raise Wrong('the name of a congestion control such as "bbr"')
    return plain, locked


_ECN = word("ecn")

FIELDS: Mapping[str, Field] = {
    "mtu": Field(
        _number(65520, lockable=True),
        'MTU towards the destination; "lock 1400" keeps discovery from changing it',
    ),
    "advmss": Field(_number(65495, lockable=True), "maximum segment size that TCP announces"),
    "hoplimit": Field(_number(255, lockable=True), "hop limit of what is sent"),
    "initcwnd": Field(_number(U32, lockable=False), "initial congestion window of TCP, in segments"),
    "initrwnd": Field(_number(U32, lockable=False), "initial receive window of TCP, in segments"),
    "window": Field(_number(U32, lockable=True), "largest window that TCP announces, in bytes"),
    "rtt": Field(
        _time(8), 'first guess at the round-trip time: "100ms", or eighths of a millisecond as a number'
    ),
    "rttvar": Field(
        _time(4), 'first guess at its variance: "50ms", or quarters of a millisecond as a number'
    ),
    "rto_min": Field(
        _time(1, always_locked=True), 'shortest retransmission timeout: "40ms", or milliseconds as a number'
    ),
    "ssthresh": Field(_number(U32, lockable=True), "first slow start threshold"),
    "cwnd": Field(_number(U32, lockable=True), 'congestion window clamp; counts only as "lock 10"'),
    "reordering": Field(_number(U32, lockable=True), "reordering that TCP takes for no loss, in segments"),
    "quickack": Field(_SWITCH, "acknowledge at once"),
    "fastopen_no_cookie": Field(_SWITCH, "TCP Fast Open without a cookie"),
    "features": Field(
        Type(
            lambda value, names: (FEATURE_ECN, False) if _ECN.parse(value, names) else (0, False),
            _ECN.schema,
        ),
        '"ecn": use explicit congestion notification',
    ),
    "congctl": Field(Type(_congctl, {"type": "string", "minLength": 1}), "congestion control of TCP"),
}


def metrics_of(values: Mapping[str, Any]) -> tuple[tuple[int, int | str], ...]:
    """What a route's table says of metrics, as (RTAX number, value) in ascending order; the bits of what is
    locked come first, as RTAX_LOCK."""
    if NUMBERS.keys().isdisjoint(values):
        return ()
    found: list[tuple[int, int | str]] = []
    locks = 0
    for name, number in NUMBERS.items():
        if name in values:
            value, locked = values[name]
            found.append((number, value))
            locks |= (1 << number) if locked else 0
    return ((LOCK, locks), *found) if locks else tuple(found)


def words_of(metrics: tuple[tuple[int, int | str], ...]) -> dict[str, int | str | bool]:
    """The reverse, each metric under its key."""
    values = dict(metrics)
    locks = values.pop(LOCK, 0)
    assert isinstance(locks, int)
    words: dict[str, int | str | bool] = {}
    for name, number in NUMBERS.items():
        if number not in values:
            continue
        value = values[number]
        if name == "features":
            words[name] = "ecn"
        elif locks & 1 << number and name != "rto_min":
            words[name] = f"lock {value}"
        else:
            words[name] = value
    return words
