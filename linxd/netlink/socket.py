# SPDX-License-Identifier: MIT
"""A netlink socket for requests: one at a time, in batches, as dumps, as one transaction.

Everything is synchronous and comes in slices, so that an event loop can breathe in between. It must not
know what the messages mean, nor be used from two threads at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from linxd.netlink.dump import Chunk, Dump
from linxd.netlink.errors import DumpInterrupted, NetlinkError, Overrun, ack_error, lost
from linxd.netlink.events import Events
from linxd.netlink.wire import (
    HEADER,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSG_HDRLEN,
    NLMSG_MIN_TYPE,
    SOL_NETLINK,
    Message,
    WireError,
    message,
    messages,
)

__all__ = [
    "Chunk",
    "DumpInterrupted",
    "Events",
    "NetlinkError",
    "Overrun",
    "Request",
    "Requests",
    "WireError",
    "netns_cookie",
    "open_netlink",
]

Request: TypeAlias = tuple[int, int, bytes]
"""(type, NLM_F_* flags, payload). NLM_F_REQUEST is added for you."""

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_DATAGRAM = 1 << 16
"""The kernel's datagrams have 32 KiB at most, links with many virtual functions aside."""
_BATCH_MESSAGES = 250
_BATCH_BYTES = 1 << 15
"""Beyond these a batch gets no faster, only its slices longer: 250 routes take the kernel about 1 ms."""
_ACK_MEMORY = 2048
"""Bytes of receive buffer that one ack may take: the kernel counts its bookkeeping too (about 1,300)."""
_TRUNCATED = int(socket.MSG_TRUNC)
_SEQ = struct.Struct("=I")
_FLAGS = struct.Struct("=H")


def open_netlink(protocol: int = NETLINK_ROUTE, *, netns_fd: int | None = None) -> socket.socket:
    """A netlink socket, in the network namespace that ``netns_fd`` is open on, else in the caller's.

    For another namespace the calling thread enters it for a moment, and has left it again whether or not
    this succeeds. The socket keeps that namespace alive until it is closed. Raises OSError.
    """
    if netns_fd is None:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(netns_fd)
        try:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(fd: int) -> None:
    # the type is named because units restrict setns(2) to it
    if sys.version_info >= (3, 12):
        os.setns(fd, _CLONE_NEWNET)
    else:
        import ctypes  # a daemon that systemd put into its namespace never needs it

        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def netns_cookie(sock: socket.socket) -> int:
    """The number that names the socket's network namespace until the next boot (SO_NETNS_COOKIE, Linux
    5.14). Raises OSError."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


class Requests:
    """A socket for requests, numbered on its own; events do not come here.

    ``sock`` may have been used before (handed in by systemd, say): what is queued on it is thrown away. A
    request, a batch or another dump may be made while a dump is being read: its chunks are kept.
    ``timeout`` (seconds) bounds the wait for each answer. ``tap`` is called with every datagram sent.

    All methods raise NetlinkError; after any of them the socket can be used as before.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        timeout: float = 5.0,
        receive_buffer: int = 4 << 20,
        tap: Callable[[bytes], None] | None = None,
    ) -> None:
        self.sock = sock
        self.tap = tap
        self._timeout = timeout
        self._running: Dump | None = None
        # any start will do, as long as a predecessor's on the same socket is not it
        self._seq = int.from_bytes(os.urandom(3), "little")
        sock.setblocking(True)
        whole, part = int(timeout), int(timeout % 1 * 1e6)
        wide = socket.SO_RCVTIMEO > 60  # SO_RCVTIMEO_NEW, where time_t is longer than a long
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq" if wide else "@ll", whole, part)
        )
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(SOL_NETLINK, option, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # a dump may fill half of it (netlink_recvmsg), all of a batch's messages may fail
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2 // _ACK_MEMORY
        self.batch_messages = max(1, min(_BATCH_MESSAGES, room))
        """Messages of a batch sent in one datagram at most."""
        if not sock.getsockname()[0]:
            sock.bind((0, 0))
        self.portid: int = sock.getsockname()[0]
        """Events caused by our requests carry it as their ``pid``."""
        self._drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def request(
        self, type: int, flags: int, payload: bytes, *, sent: Callable[[], object] | None = None
    ) -> list[Message]:
        """Make one request and wait for its ack; returns the messages that came before it. ``sent`` is
        called once it is on its way, before its answer is read."""
        seq = self._reserve(1)
        datagram = message(type, flags | NLM_F_REQUEST | NLM_F_ACK, seq, payload)
        self._send(datagram)
        if sent is not None:
            sent()
        replies: list[Message] = []
        while True:
            for reply in messages(self._answer(seq, seq)):
                if reply.type == NLMSG_ERROR:
                    error = ack_error(NLMSG_ERROR, reply.flags, reply.buf, reply.start, reply.end, datagram)
                    if error is not None:
                        raise error
                    return replies
                if reply.type >= NLMSG_MIN_TYPE:
                    replies.append(reply)

    def dump(self, type: int, payload: bytes, flags: int = 0) -> Generator[Chunk, None, None]:
        """Ask for a dump at the first step, and yield it datagram by datagram (at most 32 KiB).

        Raises DumpInterrupted at once when what is dumped changed meanwhile. May be left before its end.
        """
        run = self._begin(type, payload, flags)
        try:
            while True:
                if run.ready:
                    yield run.ready.popleft()
                elif run.error is not None:
                    raise run.error
                elif run.done:
                    return
                else:
                    self._pull(run)
        finally:
            run.give_up()

    def dump_all(self, type: int, payload: bytes, *, attempts: int = 5) -> list[tuple[bytes, int, int]]:
        """A whole dump as (buffer, start, end) of each message's payload. An interrupted one is made
        again, up to ``attempts`` times in all, before DumpInterrupted is raised."""
        while True:
            attempts -= 1
            try:
                return [
                    (buf, start, end) for buf, bounds in self.dump(type, payload) for start, end in bounds
                ]
            except DumpInterrupted:
                if attempts <= 0:
                    raise

    def batch(
        self, messages: Iterable[Request], *, sent: Callable[[], object] | None = None
    ) -> list[NetlinkError | None]:
        """Make many requests; returns what became of each, in order. ``sent`` as for `batches`."""
        return [result for results in self.batches(messages, sent=sent) for result in results]

    def batches(
        self,
        messages: Iterable[Request],
        *,
        limit: int = _BATCH_MESSAGES,
        sent: Callable[[], object] | None = None,
    ) -> Generator[list[NetlinkError | None], None, None]:
        """Make many requests, at most ``limit`` in a datagram, and yield what became of each datagram's
        in order.

        Requests that fail stop nothing. They must be answered by an ack alone: no GET, no NLM_F_ECHO.
        When answers were lost (which the size of the receive buffer rules out), the requests without one
        get ENOBUFS: whether they were carried out is unknown. ``messages`` is consumed datagram by
        datagram; ``sent`` is called after each one, before its answers are read.
        """
        limit = max(1, min(limit, self.batch_messages))
        out = bytearray()
        heads: list[int] = []
        for type_, flags, payload in messages:
            size = len(payload)
            if heads and (len(heads) == limit or len(out) + size + NLMSG_HDRLEN > _BATCH_BYTES):
                yield self._exchange(out, heads, sent)
                out = bytearray()
                heads = []
            heads.append(len(out))
            # Failures are answered unasked. The kernel works through a datagram in order before send()
            # returns, so that one ack for the last message is proof for all of them (netlink_rcv_skb).
            out += HEADER.pack(NLMSG_HDRLEN + size, type_, (flags | NLM_F_REQUEST) & ~NLM_F_ACK, 0, 0)
            out += payload
            if size & 3:
                out += bytes(-size & 3)
        if heads:
            yield self._exchange(out, heads, sent)

    def transact(
        self,
        messages: Sequence[Request],
        *,
        echoes: list[tuple[int, Message]] | None = None,
        sent: Callable[[], object] | None = None,
    ) -> list[NetlinkError | None]:
        """Send all messages as one datagram and return what became of each: an nfnetlink batch, from
        NFNL_MSG_BATCH_BEGIN to _END. At least one must carry NLM_F_ACK; which are answered besides those
        that failed is up to the subsystem. One error there means that nothing was applied, except
        ENOBUFS: then the answer was lost, and nobody knows. ``echoes`` takes in what else comes in answer
        (NLM_F_ECHO): the number of the request in ``messages``, and the message. ``sent`` is called before
        the answers are read.
        """
        first = self._reserve(len(messages))
        parts = [
            message(kind, flags | NLM_F_REQUEST, first + n, payload)
            for n, (kind, flags, payload) in enumerate(messages)
        ]
        self._send(b"".join(parts))
        if sent is not None:
            sent()
        results: list[NetlinkError | None] = [None] * len(parts)
        # everything is answered before send() returns
        answered = self._collect(
            first, results, lambda n: parts[n], socket.MSG_DONTWAIT, fence=False, echoes=echoes
        )
        if not answered:
            raise lost()
        return results

    # --- inside ---------------------------------------------------------------------------------------

    def _reserve(self, count: int) -> int:
        """The first of ``count`` sequence numbers that follow each other."""
        if self._seq + count >= 0xFFFFFFFF:
            self._seq = 0
        first = self._seq + 1
        self._seq += count
        return first

    def _send(self, datagram: bytes) -> None:
        if self.tap is not None:
            self.tap(datagram)
        try:
            try:
                self.sock.send(datagram)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                # larger than the send buffer: a big transaction
                self.sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(datagram) + 4096)
                self.sock.send(datagram)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, "could not send the request") from None

    def _answer(self, first: int, last: int, flags: int = 0) -> bytes:
        """The next datagram that answers one of these sequence numbers. A running dump gets its own on
        the way, anything else is an answer that nobody waits for any more."""
        until = 0.0
        while True:
            try:
                buf, _, got, sender = self.sock.recvmsg(_DATAGRAM, 0, flags)
            except BlockingIOError:
                raise lost(errno.ETIMEDOUT) from None
            except OSError as error:
                raise lost(error.errno or errno.EIO) from None
            # nobody but the kernel (port 0) answers requests
            if sender[0] == 0 and len(buf) >= NLMSG_HDRLEN:
                seq = _SEQ.unpack_from(buf, 8)[0]
                if first <= seq <= last:
                    if got & _TRUNCATED:
                        raise NetlinkError(errno.EMSGSIZE, f"an answer is longer than {_DATAGRAM} bytes")
                    return buf
                run = self._running
                if run is not None and seq == run.seq:
                    self._feed(run, buf)
            now = time.monotonic()
            if not until:
                until = now + self._timeout
            elif now > until:
                raise lost(errno.ETIMEDOUT)

    def _begin(self, type: int, payload: bytes, flags: int) -> Dump:
        # the kernel runs one dump a socket: take in the rest of the other one first
        while self._running is not None:
            self._pull(self._running)
        seq = self._reserve(1)
        sent = message(type, flags | NLM_F_REQUEST | NLM_F_DUMP, seq, payload)
        self._send(sent)
        self._running = run = Dump(seq, sent)
        return run

    def _pull(self, run: Dump) -> None:
        try:
            buf = self._answer(run.seq, run.seq)
        except NetlinkError as error:
            run.fail(error)
            # something was lost, but the kernel still has it running
            if error.errno not in (errno.ENOBUFS, errno.EMSGSIZE):
                self._running = None
            return
        self._feed(run, buf)

    def _feed(self, run: Dump, buf: bytes) -> None:
        run.take(buf)
        if run.done:
            self._running = None

    def _exchange(
        self, out: bytearray, heads: list[int], sent: Callable[[], object] | None
    ) -> list[NetlinkError | None]:
        """Send one datagram of a batch, whose messages begin at ``heads``, and collect the answers."""
        first = self._reserve(len(heads))
        for number, head in enumerate(heads, first):
            _SEQ.pack_into(out, head + 8, number)
        _FLAGS.pack_into(out, heads[-1] + 6, _FLAGS.unpack_from(out, heads[-1] + 6)[0] | NLM_F_ACK)
        datagram = bytes(out)
        results: list[NetlinkError | None] = [None] * len(heads)
        try:
            self._send(datagram)
        except NetlinkError as error:
            return [error] * len(heads)
        if sent is not None:
            sent()
        self._collect(first, results, lambda n: datagram[heads[n] :], 0, fence=True)
        return results

    def _collect(
        self,
        first: int,
        results: list[NetlinkError | None],
        request: Callable[[int], bytes],
        flags: int,
        *,
        fence: bool,
        echoes: list[tuple[int, Message]] | None = None,
    ) -> int:
        """Sort acks into ``results`` until the last message's (``fence``) or until none is left; returns
        how many came. After a loss all that is queued is still taken, and who got no answer is told
        so."""
        last = first + len(results) - 1
        answered: set[int] = set()
        missing: NetlinkError | None = None
        while True:
            try:
                buf = self._answer(first, last, flags)
            except NetlinkError as error:
                if error.errno == errno.ENOBUFS and missing is None:
                    missing, flags = error, socket.MSG_DONTWAIT
                    continue
                if flags == 0:
                    missing = error
                break
            for reply in messages(buf):
                number = reply.seq - first
                if reply.type == NLMSG_ERROR and 0 <= number < len(results):
                    results[number] = ack_error(
                        NLMSG_ERROR, reply.flags, buf, reply.start, reply.end, request(number)
                    )
                    answered.add(number)
                elif echoes is not None and 0 <= number < len(results):
                    echoes.append((number, reply))
            if fence and len(results) - 1 in answered and missing is None:
                return len(answered)
        if missing is not None:
            for number in range(len(results)):
                if number not in answered:
                    results[number] = missing
        return len(answered)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self.sock.recv(_DATAGRAM, socket.MSG_DONTWAIT)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
