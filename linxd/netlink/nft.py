# SPDX-License-Identifier: MIT
"""What nfnetlink adds to netlink for nf_tables: its header, its transactions, the number of a generation.

It frames messages and must not know what stands in a table.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from linxd.netlink.socket import Request, Requests
from linxd.netlink.wire import NLM_F_ACK, NLM_F_ECHO, Message, WireError, attr_map, pack_attr, text_of
from linxd.records import NamedTuple

NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFNL_BATCH_GENID = 1
NFGEN_HDRLEN = 4
"""struct nfgenmsg: family, version, resource id (big endian)."""

SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
NFT_MSG_NEWGEN, NFT_MSG_GETGEN = 15, 16
NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 1, 2, 3

_NFGEN = struct.Struct(">BBH")
_BE32 = struct.Struct(">I")


class Generation(NamedTuple):
    """Number of the ruleset's present form, and who made it: the pid in the host's numbering, and its name.
    (nf_tables_fill_gen_info in net/netfilter/nf_tables_api.c: task_pid_nr of the current task; of an answer
    to a request that is the one who asked.)"""

    id: int
    pid: int
    comm: str


def nfgen(family: int, resource: int = 0) -> bytes:
    """The header of every nfnetlink message."""
    return _NFGEN.pack(family, 0, resource)


def batch(generation: int | None, inner: Sequence[Request], *, echo: bool = False) -> list[Request]:
    """One transaction around ``inner``, for `Requests.transact`: all of it or nothing.

    With ``generation`` it is a compare-and-swap: unless that is still the generation, the kernel answers the
    first message with ERESTART and applies nothing (nfnetlink_rcv_batch, NFNL_BATCH_GENID, Linux 4.16). With
    ``echo`` everything that it does is told to us as it is told to others, each under its request's number.
    """
    flags = NLM_F_ECHO if echo else 0
    condition = b"" if generation is None else pack_attr(NFNL_BATCH_GENID, _BE32.pack(generation))
    begin = (NFNL_MSG_BATCH_BEGIN, flags, nfgen(0, NFNL_SUBSYS_NFTABLES) + condition)
    end = (NFNL_MSG_BATCH_END, 0, nfgen(0, NFNL_SUBSYS_NFTABLES))
    messages = [(type, each | flags, payload) for type, each, payload in inner]
    if messages:
        # Failures are answered unasked, so that one answer more says that the whole was carried out.
        type, each, payload = messages[-1]
        messages[-1] = (type, each | NLM_F_ACK, payload)
    return [begin, *messages, end]


def generation(requests: Requests) -> int:
    """The number of the present generation. Raises NetlinkError."""
    for reply in requests.request(SUBSYSTEM | NFT_MSG_GETGEN, 0, nfgen(0)):
        if reply.type == SUBSYSTEM | NFT_MSG_NEWGEN:
            return read_generation(reply).id
    raise WireError("no generation in the answer")


def read_generation(message: Message) -> Generation:
    """What a NEWGEN says. Raises WireError."""
    found = attr_map(message.buf, message.start + NFGEN_HDRLEN, message.end)
    try:
        number: int = _BE32.unpack(found[NFTA_GEN_ID])[0]
        pid: int = _BE32.unpack(found.get(NFTA_GEN_PROC_PID, bytes(4)))[0]
    except (KeyError, struct.error) as error:
        raise WireError(f"a generation without a number: {error}") from None
    return Generation(number, pid, text_of(found.get(NFTA_GEN_PROC_NAME, b"")))
