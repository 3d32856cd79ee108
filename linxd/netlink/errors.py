# SPDX-License-Identifier: MIT
"""What can go wrong between a request and its answer, with the kernel's own words kept.

Reads acks; it must not know what was asked for, nor decide what is worth another try.
"""

from __future__ import annotations

import errno
import os
import struct

from linxd.netlink.wire import (
    HEADER,
    NLA_TYPE_MASK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_HDRLEN,
    NLMSGERR_ATTR_MISS_NEST,
    NLMSGERR_ATTR_MISS_TYPE,
    NLMSGERR_ATTR_MSG,
    NLMSGERR_ATTR_OFFS,
    WireError,
    attr_map,
    text_of,
)


class NetlinkError(OSError):
    """The kernel refused, or did not answer (``errno`` ETIMEDOUT, ENOBUFS).

    ``text`` is the extended ack's own words, "" when there are none. ``offset`` counts bytes from the
    start of the request message to the attribute that was refused, ``attribute`` is that attribute's
    type. ``missing_type`` is the type of an attribute that should have been given, ``missing_nest`` the
    offset of the nest it belongs in (None: the message itself).
    Documentation/userspace-api/netlink/intro.rst, "Extended ACK".
    """

    errno: int
    strerror: str

    def __init__(
        self,
        errno: int,
        text: str = "",
        *,
        offset: int | None = None,
        attribute: int | None = None,
        missing_type: int | None = None,
        missing_nest: int | None = None,
    ) -> None:
        super().__init__(errno, os.strerror(errno))
        self.text = text
        self.offset = offset
        self.attribute = attribute
        self.missing_type = missing_type
        self.missing_nest = missing_nest

    def __str__(self) -> str:
        return f"{self.strerror}: {self.text}" if self.text else self.strerror


class DumpInterrupted(Exception):  # noqa: N818 - the kernel's word for it
    """What was being dumped changed meanwhile (NLM_F_DUMP_INTR): the whole is not to be trusted, ask
    again."""


class Overrun(Exception):  # noqa: N818 - not a fault, a reason to look at everything
    """Events were lost: whatever the socket watches may have changed."""


_ERRNO = struct.Struct("=i")
_U32 = struct.Struct("=I")
_TYPE = struct.Struct("=2xH")


def ack_error(
    type: int, flags: int, buf: bytes, start: int, end: int, request: bytes = b""
) -> NetlinkError | None:
    """The verdict in an NLMSG_ERROR or NLMSG_DONE payload: None is success. ``request`` is the message
    that was sent, for the type of the attribute it was refused for. Raises WireError."""
    if end - start < 4:
        if type == NLMSG_DONE and end == start:
            return None
        raise WireError(f"an ack of {end - start} bytes")
    code: int = -_ERRNO.unpack_from(buf, start)[0]
    if code <= 0:
        return None
    if not flags & NLM_F_ACK_TLVS:
        return NetlinkError(code)
    tlvs = start + 4
    if type != NLMSG_DONE:
        if end - tlvs < NLMSG_HDRLEN:
            raise WireError(f"an ack of {end - start} bytes, without the header it answers")
        copied = (
            NLMSG_HDRLEN if flags & NLM_F_CAPPED else max(NLMSG_HDRLEN, HEADER.unpack_from(buf, tlvs)[0])
        )
        tlvs += (copied + 3) & ~3
    if tlvs > end:
        raise WireError(f"an ack of {end - start} bytes ends before its attributes")
    found = attr_map(buf, tlvs, end)
    offset = _number(found, NLMSGERR_ATTR_OFFS)
    attribute = None
    if offset is not None and NLMSG_HDRLEN <= offset <= len(request) - 4:
        attribute = _TYPE.unpack_from(request, offset)[0] & NLA_TYPE_MASK
    return NetlinkError(
        code,
        text_of(found.get(NLMSGERR_ATTR_MSG, b"")),
        offset=offset,
        attribute=attribute,
        missing_type=_number(found, NLMSGERR_ATTR_MISS_TYPE),
        missing_nest=_number(found, NLMSGERR_ATTR_MISS_NEST),
    )


def _number(found: dict[int, bytes], type: int) -> int | None:
    payload = found.get(type)
    if payload is None:
        return None
    if len(payload) != 4:
        raise WireError(f"ack attribute {type}: {len(payload)} bytes, not 4")
    number: int = _U32.unpack(payload)[0]
    return number


def lost(why: int = errno.ENOBUFS) -> NetlinkError:
    """The answer never came: whether the kernel did it is unknown. Transient; look before asking again."""
    return NetlinkError(why, "the answer was lost" if why == errno.ENOBUFS else "the kernel did not answer")
