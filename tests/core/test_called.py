# SPDX-License-Identifier: MIT
"""Objects by what people call them: the whole name first, then what is left of it, and never a guess."""

from __future__ import annotations

import json

import pytest

from linxd.called import find
from linxd.patch import Key

OBJECTS: list[tuple[Key, str]] = [
    (("link", "eth0"), "link eth0"),
    (("address", "eth0", "10.0.0.5", 24), "address 10.0.0.5/24 dev eth0"),
    (("route", 2, 254, "0.0.0.0/0", 0, 0), "route default via 10.0.0.1"),
    (("route", 2, 254, "0.0.0.0/0", 0, 100), "route default via 10.0.0.1 metric 100"),
    (("route", 2, 254, "10.1.0.0/16", 0, 0), "route 10.1.0.0/16 via 10.0.0.1"),
    (("sysctl", "net.ipv4.ip_forward"), "sysctl net.ipv4.ip_forward"),
    (("sysctl", "net.ipv4.ip_forward_update_priority"), "sysctl net.ipv4.ip_forward_update_priority"),
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("link eth0", "link eth0"),
        ("eth0", "link eth0"),
        ("  address   10.0.0.5/24 on eth0 ", "address 10.0.0.5/24 dev eth0"),
        ("10.0.0.5/24", "address 10.0.0.5/24 dev eth0"),
        # The whole name of one is the beginning of another's.
        ("route default via 10.0.0.1", "route default via 10.0.0.1"),
        ("default via 10.0.0.1 metric 100", "route default via 10.0.0.1 metric 100"),
        ("route 10.1.0.0/16", "route 10.1.0.0/16 via 10.0.0.1"),
        ("net.ipv4.ip_forward", "sysctl net.ipv4.ip_forward"),
        (json.dumps(["route", 2, 254, "0.0.0.0/0", 0, 100]), "route default via 10.0.0.1 metric 100"),
    ],
)
def test_one_object_is_meant(text: str, name: str) -> None:
    assert [found for _, found in find(OBJECTS, text)] == [name]


def test_where_several_may_be_meant_all_are_named() -> None:
    assert len(find(OBJECTS, "route default")) == 2
    assert len(find(OBJECTS, "route")) == 3


@pytest.mark.parametrize(
    "text", ["", "eth", "route 10.1", "10.1.0.0", "link eth0x", "[1, 2]", "[]", "{}", "7"]
)
def test_what_is_no_whole_word_of_a_name_means_nothing(text: str) -> None:
    assert find(OBJECTS, text) == []
