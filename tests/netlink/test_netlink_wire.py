# SPDX-License-Identifier: MIT
"""Framing: what is written is read back, what is malformed is refused."""

from __future__ import annotations

import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linxd.netlink.errors import ack_error
from linxd.netlink.text import address_bytes, address_text, mac_bytes, mac_text, prefix_bytes
from linxd.netlink.wire import (
    NLA_F_NESTED,
    NLA_F_NET_BYTEORDER,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MISS_TYPE,
    NLMSGERR_ATTR_MSG,
    NLMSGERR_ATTR_OFFS,
    WireError,
    attr_map,
    attr_str,
    attr_u8,
    attr_u16,
    attr_u32,
    attr_u64,
    attrs,
    head,
    message,
    messages,
    nested,
    pack_attr,
    text_of,
)

TYPES = st.integers(0, 0x3FFF)
ATTRIBUTES = st.lists(st.tuples(TYPES, st.binary(max_size=40)), max_size=12)


@given(ATTRIBUTES)
def test_attributes_are_read_back_as_written(wanted: list[tuple[int, bytes]]) -> None:
    buf = b"".join(pack_attr(kind, payload) for kind, payload in wanted)
    assert len(buf) % 4 == 0
    assert attrs(buf, 0, len(buf)) == wanted
    assert attr_map(buf, 0, len(buf)) == dict(wanted)


@given(ATTRIBUTES, TYPES)
def test_nested_attributes_are_flagged_and_read_back(wanted: list[tuple[int, bytes]], kind: int) -> None:
    buf = nested(kind, *(pack_attr(*attribute) for attribute in wanted))
    assert struct.unpack_from("=H", buf, 2)[0] == kind | NLA_F_NESTED
    ((found, payload),) = attrs(buf, 0, len(buf))
    assert found == kind
    assert attrs(payload, 0, len(payload)) == wanted


def test_flag_bits_are_no_part_of_the_type() -> None:
    buf = pack_attr(7 | NLA_F_NET_BYTEORDER, b"\0\1") + pack_attr(8 | NLA_F_NESTED, b"")
    assert attrs(buf, 0, len(buf)) == [(7, b"\0\1"), (8, b"")]


@pytest.mark.parametrize(
    ("made", "payload"),
    [
        (attr_u8(1, 200), bytes([200])),
        (attr_u16(1, 60000), struct.pack("=H", 60000)),
        (attr_u32(1, 4_000_000_000), struct.pack("=I", 4_000_000_000)),
        (attr_u64(1, 1 << 63), struct.pack("=Q", 1 << 63)),
        (attr_str(1, "eth0"), b"eth0\0"),
    ],
)
def test_shorthands_make_the_same_attribute(made: bytes, payload: bytes) -> None:
    assert made == pack_attr(1, payload)
    assert struct.unpack_from("=I", made)[0] == head(1, len(payload))


def test_an_attribute_too_long_for_its_length_field_is_refused() -> None:
    assert len(pack_attr(1, bytes(0xFFFF - 4))) == 0x10000
    with pytest.raises(WireError):
        pack_attr(1, bytes(0xFFFF - 3))


@pytest.mark.parametrize(
    "buf",
    [
        b"\0",
        b"\3\0\1\0",  # shorter than its own header
        b"\0\0\1\0",  # would be read for ever
        b"\x0c\0\1\0abcd",  # longer than what is left
        attr_u32(1, 5) + b"\0\0",
    ],
)
def test_malformed_attributes_are_refused(buf: bytes) -> None:
    with pytest.raises(WireError):
        attrs(buf, 0, len(buf))


def test_an_end_beyond_the_buffer_is_refused() -> None:
    with pytest.raises(WireError):
        attrs(attr_u32(1, 5), 0, 16)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFFFFFF),
            st.binary(max_size=30),
        )
    )
)
def test_messages_are_read_back_as_written(wanted: list[tuple[int, int, int, bytes]]) -> None:
    buf = b"".join(message(*one) for one in wanted)
    found = messages(buf, 3)
    assert [(m.type, m.flags, m.seq, m.buf[m.start : m.end]) for m in found] == wanted
    assert all(m.nsid == 3 and m.pid == 0 for m in found)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_messages_or_refused(buf: bytes) -> None:
    try:
        found = messages(buf)
    except WireError:
        return
    assert all(16 <= m.start <= m.end <= len(buf) for m in found)


@pytest.mark.parametrize("length", [0, 15, 21])
def test_a_message_with_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(WireError):
        messages(struct.pack("=IHHII", length, 16, 0, 1, 0) + bytes(4))


def test_names_that_are_not_utf8_stay_printable() -> None:
    assert text_of(b"eth\xff0\0rest") == "eth\\xff0"
    assert text_of("ä\0".encode()) == "ä"


def test_addresses_have_one_spelling() -> None:
    assert address_text(address_bytes("FD00:0:0::5")) == "fd00::5"
    assert address_text(address_bytes("10.0.0.5")) == "10.0.0.5"
    assert prefix_bytes("10.0.0.0/8") == (b"\x0a\0\0\0", 8)
    assert mac_text(mac_bytes("02:00:00:00:00:0A")) == "02:00:00:00:00:0a"
    with pytest.raises(WireError):
        address_text(b"abcde")


REQUEST = message(24, 5, 77, bytes(12) + attr_u32(9, 1))


def ack(code: int, flags: int, *tlvs: bytes, copied: bytes = REQUEST[:16]) -> tuple[int, bytes]:
    return flags, struct.pack("=i", -code) + copied + b"".join(tlvs)


def test_an_ack_keeps_the_kernels_words_and_where_they_point() -> None:
    tlvs = (
        attr_str(NLMSGERR_ATTR_MSG, "Nexthop has invalid gateway"),
        attr_u32(NLMSGERR_ATTR_OFFS, 28),
        attr_u32(NLMSGERR_ATTR_MISS_TYPE, 4),
    )
    for flags, payload in (
        ack(errno.ENETUNREACH, NLM_F_CAPPED | NLM_F_ACK_TLVS, *tlvs),
        ack(errno.ENETUNREACH, NLM_F_ACK_TLVS, *tlvs, copied=REQUEST),
    ):
        error = ack_error(NLMSG_ERROR, flags, payload, 0, len(payload), REQUEST)
        assert error is not None
        assert error.errno == errno.ENETUNREACH
        assert error.text == "Nexthop has invalid gateway"
        assert str(error) == "Network is unreachable: Nexthop has invalid gateway"
        assert (error.offset, error.attribute, error.missing_type, error.missing_nest) == (28, 9, 4, None)


def test_an_ack_without_words_says_what_its_number_means() -> None:
    flags, payload = ack(errno.EEXIST, NLM_F_CAPPED)
    assert str(ack_error(NLMSG_ERROR, flags, payload, 0, len(payload))) == "File exists"
    flags, payload = ack(0, NLM_F_CAPPED)
    assert ack_error(NLMSG_ERROR, flags, payload, 0, len(payload)) is None
    assert ack_error(NLMSG_DONE, 0, b"", 0, 0) is None


@given(st.integers(0, 0x3FF), st.binary(max_size=60), st.sampled_from([NLMSG_ERROR, NLMSG_DONE]))
def test_arbitrary_acks_are_read_or_refused(flags: int, payload: bytes, kind: int) -> None:
    with contextlib.suppress(WireError):
        ack_error(kind, flags, payload, 0, len(payload), REQUEST)
