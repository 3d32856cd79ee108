# SPDX-License-Identifier: MIT
"""Requests, dumps, batches and transactions against the running kernel."""

from __future__ import annotations

import array
import errno
import gc
import itertools
import os
import signal
import socket
import struct
from collections.abc import Callable, Generator, Iterator

import pytest

from linxd.netlink.rt import (
    decode_addr,
    decode_link,
    decode_route,
    encode_route,
    query_addrs,
    query_link,
    query_links,
    query_routes,
    route_key,
)
from linxd.netlink.socket import (
    Chunk,
    DumpInterrupted,
    Events,
    NetlinkError,
    Request,
    Requests,
    netns_cookie,
    open_netlink,
)
from linxd.netlink.wire import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTA_GATEWAY,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    attr_str,
    attr_u32,
    message,
    messages,
    pack_attr,
)
from tests.netlink.netlink_bed import Netns, wait_for

CREATE = NLM_F_CREATE | NLM_F_EXCL


def here() -> os.stat_result:
    return os.stat("/proc/thread-self/ns/net")


def route(number: int, via: str = "192.0.2.2") -> bytes:
    return encode_route(
        family=AF_INET, dst=f"10.{number >> 8}.{number & 255}.0/24", gateway=via, protocol=76, metric=100
    )


def own_routes(requests: Requests) -> list[str]:
    dump = requests.dump_all(RTM_GETROUTE, query_routes(AF_INET, protocol=76))
    return [decode_route(*one).dst for one in dump]


# --- opening --------------------------------------------------------------------------------------


def test_a_socket_opened_in_another_namespace_is_there_and_the_thread_is_back(
    make_netns: Callable[[], Netns],
) -> None:
    before = here()
    first, second = make_netns(), make_netns()
    with Requests(open_netlink(netns_fd=first.fd)) as requests:
        (one,) = requests.dump_all(RTM_GETLINK, query_links())
        assert decode_link(*one).name == "lo"
        cookie = netns_cookie(requests.sock)
    assert here().st_ino == before.st_ino
    with (
        open_netlink(netns_fd=first.fd) as again,
        open_netlink(netns_fd=second.fd) as other,
        open_netlink() as home,
    ):
        assert netns_cookie(again) == cookie
        assert len({cookie, netns_cookie(other), netns_cookie(home)}) == 3


def test_the_thread_is_back_when_opening_fails(netns: Netns) -> None:
    before = here()
    with pytest.raises(OSError, match="Protocol not supported"):
        open_netlink(31, netns_fd=netns.fd)
    assert here().st_ino == before.st_ino
    with open(os.devnull) as file, pytest.raises(OSError, match="Invalid argument"):
        open_netlink(netns_fd=file.fileno())
    assert here().st_ino == before.st_ino


def test_a_closed_socket_does_not_keep_its_namespace(make_netns: Callable[[], Netns]) -> None:
    outer, inner = make_netns(), make_netns()
    outer.ip(f"link add h0 type veth peer name c0 netns {inner.name}")
    events = outer.events(1)
    requests = Requests(open_netlink(netns_fd=inner.fd))
    requests.request(RTM_GETLINK, 0, query_link(name="c0"))
    inner.delete()
    assert outer.json("link show h0")
    assert deleted(events) == []
    requests.close()
    gone: list[str] = []
    while not gone:
        wait_for(events.fileno())
        gone += deleted(events)
    assert gone == ["h0"]


def deleted(events: Events) -> list[str]:
    return [decode_link(m.buf, m.start, m.end).name for m in events.read() if m.type == RTM_DELLINK]


# --- one request ----------------------------------------------------------------------------------


def test_one_link_is_found_by_index_and_by_any_of_its_names(wired: Netns) -> None:
    wired.ip("link property add dev v0 altname a-name-longer-than-any-link-may-have")
    requests = wired.requests()
    for query in (
        query_link(ifindex=100),
        query_link(name="v0"),
        query_link(name="a-name-longer-than-any-link-may-have"),
    ):
        (reply,) = requests.request(RTM_GETLINK, 0, query)
        assert reply.type == RTM_NEWLINK
        assert decode_link(reply.buf, reply.start, reply.end).ifindex == 100


def test_a_refusal_keeps_the_kernels_own_words(wired: Netns) -> None:
    requests = wired.requests()
    with pytest.raises(NetlinkError) as refused:
        requests.request(RTM_NEWROUTE, CREATE, route(1, via="203.0.113.1"))
    assert refused.value.errno == errno.ENETUNREACH
    assert str(refused.value) == "Network is unreachable: Nexthop has invalid gateway"
    with pytest.raises(NetlinkError) as refused:
        requests.request(RTM_GETLINK, 0, query_link(name="nothere"))
    assert refused.value.errno == errno.ENODEV
    # the socket is as good as before
    assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))


def test_a_refusal_names_the_attribute_it_is_for(wired: Netns) -> None:
    payload = encode_route(family=AF_INET, dst="10.0.0.0/24") + pack_attr(RTA_GATEWAY, b"\1")
    with pytest.raises(NetlinkError) as refused:
        wired.requests().request(RTM_NEWROUTE, CREATE, payload)
    assert refused.value.attribute == RTA_GATEWAY
    assert refused.value.offset == 16 + len(payload) - 8


def test_ones_own_port_id_is_on_the_events_one_causes(wired: Netns) -> None:
    requests = wired.requests()
    events = wired.events(7)
    requests.request(RTM_NEWROUTE, CREATE, route(1))
    (event,) = events.read()
    assert (event.type, event.pid) == (RTM_NEWROUTE, requests.portid)
    assert decode_route(event.buf, event.start, event.end).dst == "10.0.1.0/24"


def test_the_tap_sees_every_datagram_that_is_sent(wired: Netns) -> None:
    sent: list[bytes] = []
    requests = wired.requests(tap=sent.append)
    requests.request(RTM_NEWROUTE, CREATE, route(1))
    requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(2, 5))
    requests.dump_all(RTM_GETROUTE, query_routes(AF_INET))
    assert [[one.type for one in messages(datagram)] for datagram in sent] == [
        [RTM_NEWROUTE],
        [RTM_NEWROUTE] * 3,
        [RTM_GETROUTE],
    ]


@pytest.mark.parametrize("predecessor", ["acks", "dump"])
def test_what_is_left_on_a_handed_in_socket_is_thrown_away(wired: Netns, predecessor: str) -> None:
    requests = wired.requests()
    requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(3000))
    with open_netlink(netns_fd=wired.fd) as used:
        used.setblocking(False)
        # somebody who was killed before reading
        if predecessor == "acks":
            for seq in range(1, 50):
                used.send(message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, seq, query_link(name="v0")))
        else:
            used.send(message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, query_routes(AF_INET)))
        adopted = Requests(used)
        with pytest.raises(BlockingIOError):
            used.recv(1, socket.MSG_DONTWAIT)
        assert len(own_routes(adopted)) == 3000
        (reply,) = adopted.request(RTM_GETLINK, 0, query_link(name="v1"))
        assert decode_link(reply.buf, reply.start, reply.end).name == "v1"


def test_answers_from_anybody_but_the_kernel_are_ignored(wired: Netns) -> None:
    requests = wired.requests()
    with open_netlink(netns_fd=wired.fd) as impostor:
        impostor.bind((0, 0))
        forged = struct.pack("=i", -errno.EPERM) + bytes(16)
        for seq in range(requests._seq, requests._seq + 20):
            impostor.sendto(message(2, 0, seq, forged), (requests.portid, 0))
        for _ in range(10):
            assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))


def test_a_request_without_an_answer_ends_in_time(wired: Netns) -> None:
    requests = wired.requests(timeout=0.05)
    # a program that drops everything stands for a kernel that never answers
    drop = struct.pack("=HBBI", 0x06, 0, 0, 0)
    attach(requests.sock, drop)
    for attempt in (
        lambda: requests.request(RTM_GETLINK, 0, query_link(name="v0")),
        lambda: requests.dump_all(RTM_GETLINK, query_links()),
    ):
        with pytest.raises(NetlinkError) as late:
            attempt()
        assert late.value.errno == errno.ETIMEDOUT
    (result,) = requests.batch([(RTM_NEWROUTE, CREATE, route(1))])
    assert result is not None
    assert result.errno == errno.ETIMEDOUT
    requests.sock.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
    assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))
    assert own_routes(requests) == ["10.0.1.0/24"]


def attach(sock: socket.socket, program: bytes) -> None:
    code = array.array("B", program)
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", len(program) // 8, code.buffer_info()[0]))


def test_signals_do_not_disturb_a_request(wired: Netns) -> None:
    requests = wired.requests()
    seen = 0

    def count(number: int, frame: object) -> None:
        nonlocal seen
        seen += 1

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while seen < 20:
            requests.request(RTM_GETLINK, 0, query_link(name="v0"))
            assert requests.dump_all(RTM_GETADDR, query_addrs())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- dumps ----------------------------------------------------------------------------------------


def test_ten_thousand_routes_are_written_and_dumped(wired: Netns) -> None:
    requests = wired.requests()
    assert not any(requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(10_000)))
    wanted = {f"10.{n >> 8}.{n & 255}.0/24" for n in range(10_000)}
    dump = requests.dump_all(RTM_GETROUTE, query_routes(AF_INET, protocol=76))
    found = [decode_route(*one) for one in dump]
    assert len(found) == 10_000
    assert {one.dst for one in found} == wanted
    assert {(one.gateway, one.oif, one.metric, one.protocol, one.table) for one in found} == {
        ("192.0.2.2", 100, 100, 76, 254)
    }
    assert {route_key(*one) for one in dump} == {(AF_INET, 254, dst, 0, 100) for dst in wanted}
    chunks = list(requests.dump(RTM_GETROUTE, query_routes(AF_INET)))
    assert len(chunks) > 10
    assert all(len(buf) <= 32768 for buf, _ in chunks)
    assert not any(requests.batch((RTM_DELROUTE, 0, route(n)) for n in range(10_000)))
    assert own_routes(requests) == []


def test_the_kernel_filters_what_is_dumped(wired: Netns) -> None:
    requests = wired.requests()
    wired.ip("addr add 192.0.2.129/25 dev v1")
    wired.ip("route add 10.1.0.0/24 via 192.0.2.2 proto 76")
    wired.ip("route add 10.2.0.0/24 via 192.0.2.2 proto 77 table 1000")
    wired.ip("route add blackhole 10.3.0.0/24 proto 76 table 1000")
    wired.ip("route add 2001:db8:1::/48 via 2001:db8::2 proto 76")

    def dsts(query: bytes) -> list[str]:
        return sorted(decode_route(*one).dst for one in requests.dump_all(RTM_GETROUTE, query))

    assert dsts(query_routes(AF_INET, protocol=76)) == ["10.1.0.0/24", "10.3.0.0/24"]
    assert dsts(query_routes(AF_INET, table=1000)) == ["10.2.0.0/24", "10.3.0.0/24"]
    assert dsts(query_routes(AF_INET, table=1000, protocol=77)) == ["10.2.0.0/24"]
    assert dsts(query_routes(AF_INET, type=6)) == ["10.3.0.0/24"]
    assert dsts(query_routes(AF_INET, oif=101, table=254)) == ["192.0.2.128/25"]
    assert dsts(query_routes(AF_INET6, protocol=76)) == ["2001:db8:1::/48"]
    assert dsts(query_routes(0, protocol=76)) == ["10.1.0.0/24", "10.3.0.0/24", "2001:db8:1::/48"]
    with pytest.raises(NetlinkError) as missing:
        dsts(query_routes(AF_INET, table=4711))
    assert (missing.value.errno, missing.value.text) == (errno.ENOENT, "ipv4: FIB table does not exist")

    def owners(query: bytes) -> set[tuple[int, int]]:
        return {
            (a.family, a.ifindex)
            for a in (decode_addr(*one) for one in requests.dump_all(RTM_GETADDR, query))
        }

    assert owners(query_addrs(AF_INET)) == {(AF_INET, 1), (AF_INET, 100), (AF_INET, 101)}
    assert owners(query_addrs(AF_INET, ifindex=101)) == {(AF_INET, 101)}
    assert owners(query_addrs(ifindex=100)) == {(AF_INET, 100), (AF_INET6, 100)}


def test_links_are_filtered_by_kind_and_master(wired: Netns) -> None:
    wired.ip("link add br0 index 200 type bridge")
    wired.ip("link set v1 master br0")
    requests = wired.requests()

    def found(query: bytes) -> list[int]:
        return [decode_link(*one).ifindex for one in requests.dump_all(RTM_GETLINK, query)]

    assert found(query_links(kind="bridge")) == [200]
    assert found(query_links(master=200)) == [101]
    assert sorted(found(query_links())) == [1, 100, 101, 200]
    assert found(query_links(family=AF_BRIDGE)) == [101]


def test_a_dump_that_the_kernel_refuses_says_why(wired: Netns) -> None:
    requests = wired.requests()
    with pytest.raises(NetlinkError) as refused:
        requests.dump_all(RTM_GETROUTE, query_routes(AF_INET) + attr_u32(6, 1))
    assert refused.value.errno == errno.EINVAL
    assert "attribute" in refused.value.text
    assert requests.dump_all(RTM_GETROUTE, query_routes(AF_INET))


def test_other_requests_may_come_in_the_middle_of_a_dump(wired: Netns) -> None:
    requests = wired.requests()
    requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(5000))
    found: list[str] = []
    extra = itertools.count(5000)
    for buf, bounds in requests.dump(RTM_GETROUTE, query_routes(AF_INET, protocol=76)):
        found += [decode_route(buf, *bound).dst for bound in bounds]
        assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))
        # behind the place where the dump is, so that it may or may not see them
        assert requests.batch([(RTM_NEWROUTE, CREATE, route(next(extra)))] * 2)[0] is None
    assert set(found) >= {f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000)}
    assert len(found) == len(set(found))


def test_a_dump_in_the_middle_of_another_one_loses_neither(wired: Netns) -> None:
    requests = wired.requests()
    requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(5000))
    outer = requests.dump(RTM_GETROUTE, query_routes(AF_INET, protocol=76))
    found = len(next(outer)[1])
    assert len(own_routes(requests)) == 5000
    assert {decode_link(*one).name for one in requests.dump_all(RTM_GETLINK, query_links())} == {
        "lo",
        "v0",
        "v1",
    }
    assert found + sum(len(bounds) for _, bounds in outer) == 5000


def test_a_dump_may_be_left_before_its_end(wired: Netns) -> None:
    requests = wired.requests()
    requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(5000))
    for _ in range(3):
        dump = requests.dump(RTM_GETROUTE, query_routes(AF_INET))
        next(dump)
        del dump
        gc.collect()
        assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))
    assert len(own_routes(requests)) == 5000


class Disturbed(Requests):
    """Something changes while the first dumps are read."""

    disturb: Callable[[], object]
    times = 0

    def dump(self, type: int, payload: bytes, flags: int = 0) -> Generator[Chunk, None, None]:
        for number, chunk in enumerate(super().dump(type, payload, flags)):
            if number == 1 and self.times:
                self.times -= 1
                self.disturb()
            yield chunk


def test_an_interrupted_dump_is_made_again_but_not_for_ever(netns: Netns) -> None:
    """With addresses: their dump is checked for changes from one datagram to the next."""
    netns.ip("link add v0 type veth peer name v1")
    netns.ip("link set v0 up")
    netns.ip("-batch -", stdin="".join(f"addr add 10.0.{n >> 8}.{n & 255}/32 dev v0\n" for n in range(2000)))
    with Disturbed(open_netlink(netns_fd=netns.fd)) as requests:

        def disturb() -> None:
            netns.ip("addr del 10.0.7.1/32 dev v0")
            netns.ip("addr add 10.0.7.1/32 dev v0")

        requests.disturb = disturb
        requests.times = 2
        found = requests.dump_all(RTM_GETADDR, query_addrs(AF_INET))
        assert requests.times == 0
        assert len({decode_addr(*one).address for one in found}) == 2000
        requests.times = 3
        with pytest.raises(DumpInterrupted):
            requests.dump_all(RTM_GETADDR, query_addrs(AF_INET), attempts=3)
        assert requests.times == 0
        assert len(requests.dump_all(RTM_GETADDR, query_addrs(AF_INET))) == 2000


# --- batches --------------------------------------------------------------------------------------


def test_failing_members_of_a_batch_stop_nothing_and_are_told_in_order(wired: Netns) -> None:
    requests = wired.requests()

    def member(n: int) -> tuple[bytes, int]:
        if n % 7 == 3:
            return route(n, via="203.0.113.9"), errno.ENETUNREACH
        if n % 10 == 9:
            return route(0), errno.EEXIST
        return route(n), 0

    results = requests.batch((RTM_NEWROUTE, CREATE, member(n)[0]) for n in range(1500))
    assert [result.errno if result else 0 for result in results] == [member(n)[1] for n in range(1500)]
    assert {result.text for result in results if result and result.errno == errno.ENETUNREACH} == {
        "Nexthop has invalid gateway"
    }
    assert set(own_routes(requests)) == {
        f"10.{n >> 8}.{n & 255}.0/24" for n in range(1500) if not member(n)[1]
    }


def test_a_batch_of_failures_alone_fits_the_receive_buffer(wired: Netns) -> None:
    requests = wired.requests()
    results = requests.batch((RTM_NEWROUTE, CREATE, route(n, "203.0.113.9")) for n in range(5000))
    assert [result.errno if result else 0 for result in results] == [errno.ENETUNREACH] * 5000


def test_a_small_receive_buffer_makes_smaller_datagrams(wired: Netns) -> None:
    sent: list[bytes] = []
    requests = wired.requests(receive_buffer=1, tap=sent.append)
    assert requests.batch_messages < 10
    results = requests.batch((RTM_NEWROUTE, CREATE, route(n, "203.0.113.9")) for n in range(200))
    assert [result.errno if result else 0 for result in results] == [errno.ENETUNREACH] * 200
    assert all(len(messages(datagram)) <= requests.batch_messages for datagram in sent)


def test_answers_lost_to_a_full_buffer_are_transient_failures(wired: Netns) -> None:
    requests = wired.requests(receive_buffer=1)
    requests.batch_messages = 250  # more than it has room for
    results = requests.batch((RTM_NEWROUTE, CREATE, route(n, "203.0.113.9")) for n in range(250))
    codes = [result.errno if result else 0 for result in results]
    assert set(codes) == {errno.ENETUNREACH, errno.ENOBUFS}
    assert codes[0] == errno.ENETUNREACH
    # and the socket is sane
    assert requests.batch([(RTM_NEWROUTE, CREATE, route(1))]) == [None]
    assert own_routes(requests) == ["10.0.1.0/24"]
    with pytest.raises(NetlinkError):
        requests.request(RTM_NEWROUTE, CREATE, route(1))


def test_a_batch_is_consumed_datagram_by_datagram(wired: Netns) -> None:
    requests = wired.requests()
    drawn = 0

    def draw() -> Iterator[Request]:
        nonlocal drawn
        for n in range(1000):
            drawn += 1
            yield RTM_NEWROUTE, CREATE, route(n)

    steps = requests.batches(draw(), limit=100)
    assert next(steps) == [None] * 100
    assert drawn <= 101
    assert len(own_routes(requests)) == 100
    # the socket is free between two steps; giving up is allowed
    steps.close()
    assert len(own_routes(requests)) == 100
    assert requests.batch([]) == []


def test_a_message_larger_than_a_datagram_should_be_goes_alone(wired: Netns) -> None:
    requests = wired.requests()
    long = route(1) + pack_attr(0x3FFF, bytes(60_000))
    results = requests.batch([(RTM_NEWROUTE, CREATE, p) for p in (route(0), long, route(2))])
    assert [result and result.errno for result in results] in (
        [None, None, None],
        [None, errno.EINVAL, None],
    )


def test_sequence_numbers_start_over_before_they_overflow(wired: Netns) -> None:
    requests = wired.requests()
    requests._seq = 0xFFFFFFFF - 100
    assert not any(requests.batch((RTM_NEWROUTE, CREATE, route(n)) for n in range(300)))
    assert requests.request(RTM_GETLINK, 0, query_link(name="v0"))
    assert len(own_routes(requests)) == 300


# --- transactions ---------------------------------------------------------------------------------

NFNL_BATCH_BEGIN, NFNL_BATCH_END = 16, 17
NFT_NEWTABLE, NFT_NEWCHAIN, NFT_GETTABLE, NFT_GETGEN = 0xA00, 0xA03, 0xA01, 0xA10
INET = struct.pack("=BBH", 1, 0, 0)
BATCH = struct.pack(">BBH", 0, 0, 10)


def table(name: str) -> bytes:
    return INET + attr_str(1, name)


def generation(requests: Requests) -> int:
    (reply,) = requests.request(NFT_GETGEN, 0, bytes(4))
    return int.from_bytes(reply.buf[reply.start + 8 : reply.start + 12], "big")


def transaction(genid: int, *inside: Request) -> list[Request]:
    begin = BATCH + pack_attr(1, genid.to_bytes(4, "big"))
    return [(NFNL_BATCH_BEGIN, 0, begin), *inside, (NFNL_BATCH_END, 0, BATCH)]


def tables(requests: Requests) -> int:
    return len(requests.dump_all(NFT_GETTABLE, bytes(4)))


def test_a_transaction_is_all_or_nothing(netns: Netns) -> None:
    requests = netns.requests(NETLINK_NETFILTER)
    create = NLM_F_CREATE | NLM_F_EXCL
    one: Request = (NFT_NEWTABLE, create, table("one"))
    two: Request = (NFT_NEWTABLE, create | NLM_F_ACK, table("two"))
    assert requests.transact(transaction(generation(requests), one, two)) == [None] * 4
    assert tables(requests) == 2

    three: Request = (NFT_NEWTABLE, create, table("three"))
    results = requests.transact(transaction(generation(requests), three, one, two))
    assert [result and result.errno for result in results] == [None, None, errno.EEXIST, errno.EEXIST, None]
    assert tables(requests) == 2


def test_a_transaction_on_a_stale_generation_changes_nothing(netns: Netns) -> None:
    requests = netns.requests(NETLINK_NETFILTER)
    stale = generation(requests)
    one: Request = (NFT_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table("one"))
    two: Request = (NFT_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table("two"))
    assert not any(requests.transact(transaction(stale, one)))
    results = requests.transact(transaction(stale, two))
    assert results[0] is not None
    assert results[0].errno == errno.ERESTART
    assert tables(requests) == 1


def test_a_transaction_larger_than_the_send_buffer(netns: Netns) -> None:
    requests = netns.requests(NETLINK_NETFILTER)
    chains = [
        (NFT_NEWCHAIN, NLM_F_CREATE, INET + attr_str(1, "t") + attr_str(3, f"chain-{n}" * 10))
        for n in range(4000)
    ]
    inside: list[Request] = [(NFT_NEWTABLE, NLM_F_CREATE, table("t")), *chains]
    inside[-1] = (inside[-1][0], inside[-1][1] | NLM_F_ACK, inside[-1][2])
    assert not any(requests.transact(transaction(generation(requests), *inside)))
    assert len(requests.dump_all(0xA04, bytes(4))) == 4000
