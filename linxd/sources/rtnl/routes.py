# SPDX-License-Identifier: MIT
"""Routes: what differs, whose they are, and the requests that put them right.

A route is replaced in one step (NLM_F_REPLACE), so that traffic never misses it. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linxd.netlink import rt, wire
from linxd.netlink.rt import RouteMsg
from linxd.ownership import Origin
from linxd.patch import Change, Entry, Key, Op, Verb
from linxd.records import replace
from linxd.sources.rtnl.kind import Context, Have, Message, Waits, origin_of, protocol_name
from linxd.sources.rtnl.model import AF_INET, MAIN_TABLE, PROTO_LINXD, ROUTE_TYPES, SCOPES, Nexthop, Route
from linxd.sources.rtnl.table import LinkTable

RTNH_F_ONLINK = 4
LOCAL_TABLE = 255
METRICS = {
    1: "lock", 2: "mtu", 3: "window", 4: "rtt", 5: "rttvar", 6: "ssthresh", 7: "cwnd", 8: "advmss",
    9: "reordering", 10: "hoplimit", 11: "initcwnd", 12: "features", 13: "rto_min", 14: "initrwnd",
    15: "quickack", 16: "congctl", 17: "fastopen_no_cookie",
}  # fmt: skip
"""RTAX_* of include/uapi/linux/rtnetlink.h, by the names of ip-route(8)."""
RIVAL = "other route of this key"
"""The attribute under which a route is spoken of that is in force in the place of ours."""

_TYPE_NAMES = {number: name for name, number in ROUTE_TYPES.items()}


def key_of(msg: RouteMsg) -> Key:
    """Identity: family, table, destination, tos (v4 alone), metric; and the source prefix of one that is for
    packets from there alone, which nobody declares (as `linxd.netlink.rt.route_key`)."""
    tos = msg.tos if msg.family == AF_INET else 0
    key = ("route", msg.family, msg.table, msg.dst, tos, msg.metric)
    return key if msg.src is None else (*key, msg.src)


def have(msg: RouteMsg, links: LinkTable) -> Have[RouteMsg]:
    """An observed route under its identity."""
    return Have(key_of(msg), msg, _Text(msg, links))


def pick(
    want: Mapping[Key, Route], seen: Mapping[Key, Have[RouteMsg]], context: Context, *, alone: bool
) -> Mapping[Key, Have[RouteMsg]]:
    """Where the kernel has several routes under one key (``ip route prepend``, ``append``, IPv6 routes of
    sorts that don't merge): the one that counts as the object is that as wanted, else the one with our mark,
    else the one in force.

    Those in force before it are its rivals; with ``alone`` (foreign routes go) the others are too, but for
    the kernel's own and leased ones.
    """
    several = {key: have for key, have in seen.items() if have.same}
    if not several:
        return seen
    kind = RouteKind()
    picked: dict[Key, Have[RouteMsg]] = {}
    for key, have in several.items():
        same = have.same
        at = next((at for at, msg in enumerate(same) if msg.protocol == PROTO_LINXD), 0)
        spec = want.get(key)
        if spec is not None:
            fits = (
                n for n, msg in enumerate(same) if not kind.changes(spec, replace(have, msg=msg), context)
            )
            at = next(fits, at)
        one = replace(have, msg=same[at], text=_Text(same[at], context.links))
        rivals = same[:at]
        if alone:
            rivals += tuple(msg for msg in same[at + 1 :] if kind.reached(replace(have, msg=msg), context))
        picked[key] = replace(one, rivals=rivals if spec is not None else ())
    return {**seen, **picked}


class _Text:
    """Words of a route, made when asked for: most observed routes are never spoken of."""

    __slots__ = ("links", "msg")

    def __init__(self, msg: RouteMsg, links: LinkTable) -> None:
        self.msg = msg
        self.links = links

    def __str__(self) -> str:
        return words(self.msg, self.links)


def words(msg: RouteMsg, links: LinkTable) -> str:
    """The route as `ip route` would list it, without run-time state."""
    type_word = "" if msg.type == 1 else _TYPE_NAMES.get(msg.type, str(msg.type)) + " "
    text = type_word + ("default" if msg.dst in ("0.0.0.0/0", "::/0") else msg.dst)
    if msg.src:
        text += f" from {msg.src}"
    if msg.gateway:
        text += f" via {msg.gateway}"
    if msg.oif:
        text += f" dev {links.name(msg.oif)}"
    for hop in msg.nexthops:
        text += " nexthop" + (f" via {hop.gateway}" if hop.gateway else "") + f" dev {links.name(hop.oif)}"
    if msg.table != MAIN_TABLE:
        text += f" table {msg.table}"
    if msg.metric and not (msg.family != AF_INET and msg.metric == 1024):
        text += f" metric {msg.metric}"
    return text


def _ways(want: Route) -> tuple[Nexthop, ...]:
    if want.nexthops:
        return want.nexthops
    return (Nexthop(want.via, want.dev, 1, want.onlink),)


def _way_words(via: str | None, dev: str | None, weight: int, onlink: bool) -> str:
    text = (f"via {via} " if via else "") + (f"dev {dev} " if dev else "")
    return (
        text + (f"weight {weight} " if weight != 1 else "") + ("onlink" if onlink else "")
    ).strip() or "none"


def _metric_words(metrics: Sequence[tuple[int, int | str]]) -> str | None:
    return " ".join(f"{METRICS.get(number, number)} {value}" for number, value in metrics) or None


class RouteKind:
    """See `linxd.sources.rtnl.kind.Kind`."""

    name = "route"

    def changes(self, want: Route, have: Have[RouteMsg], context: Context) -> tuple[Change, ...]:
        msg = have.msg
        found: list[Change] = []
        if have.rivals:
            said = " and ".join(words(rival, context.links) for rival in have.rivals)
            found.append(Change(RIVAL, said, None))
        if msg.type != want.type:
            found.append(Change("type", _TYPE_NAMES.get(msg.type, str(msg.type)), _TYPE_NAMES[want.type]))
        if want.type == 1 or want.nexthops or want.via or want.dev:
            self._compare_ways(want, msg, context, found)
        if msg.prefsrc != want.prefsrc:
            found.append(Change("src", msg.prefsrc, want.prefsrc))
        if want.scope is not None and want.family == AF_INET and msg.scope != want.scope:
            scopes = {number: word for word, number in SCOPES.items()}
            found.append(
                Change(
                    "scope", scopes.get(msg.scope, str(msg.scope)), scopes.get(want.scope, str(want.scope))
                )
            )
        if msg.metrics != want.metrics:
            found.append(Change("metrics", _metric_words(msg.metrics), _metric_words(want.metrics)))
        if want.pref is not None and (msg.pref or 0) != want.pref:
            found.append(Change("pref", str(msg.pref or 0), str(want.pref)))
        if msg.nhid:
            found.append(Change("nhid", str(msg.nhid), None))
        if msg.encap_type:
            found.append(Change("encap", str(msg.encap_type), None))
        return tuple(found)

    def _compare_ways(self, want: Route, msg: RouteMsg, context: Context, found: list[Change]) -> None:
        if not want.nexthops and not msg.nexthops:
            way = Nexthop(want.via, want.dev, 1, want.onlink)
            if _same_way(way, msg.gateway, msg.oif, 1, bool(msg.flags & RTNH_F_ONLINK), links=context.links):
                return
        wanted = _ways(want)
        if msg.nexthops:
            observed = [
                (hop.gateway, hop.oif, hop.weight, bool(hop.flags & RTNH_F_ONLINK)) for hop in msg.nexthops
            ]
        else:
            observed = [(msg.gateway, msg.oif, 1, bool(msg.flags & RTNH_F_ONLINK))]
        if len(observed) == len(wanted) and all(
            _same_way(way, *seen, links=context.links) for way, seen in zip(wanted, observed, strict=True)
        ):
            return
        # IPv6 keeps the ways of a multipath route in an order of its own.
        if len(observed) == len(wanted) > 1 and _match_unordered(wanted, observed, context.links):
            return
        links = context.links
        have_text = " ".join(
            _way_words(via, links.name(oif) if oif else None, weight, onlink)
            for via, oif, weight, onlink in observed
        )
        want_text = " ".join(_way_words(way.via, way.dev, way.weight, way.onlink) for way in wanted)
        found.append(Change("nexthop", have_text, want_text))

    def origin(self, have: Have[RouteMsg]) -> Origin:
        origins = [origin_of(msg.protocol) for msg in have.rivals or (have.msg,)]
        return Origin.DAEMON if Origin.DAEMON in origins else origins[0]

    def original(
        self, want: Route | None, have: Have[RouteMsg], changes: Sequence[Change]
    ) -> Mapping[str, str]:
        return {"protocol": str(have.msg.protocol)}

    def owner(self, have: Have[RouteMsg]) -> str:
        return ", ".join(f"protocol {protocol_name(msg.protocol)}" for msg in have.rivals or (have.msg,))

    def waits(self, want: Route, changes: Sequence[Change], context: Context) -> Waits:
        return Waits(tuple(changes))

    def recreates(self, want: Route, changes: Sequence[Change]) -> bool:
        return False

    def adoptable(self, want: Route, have: Have[RouteMsg], changes: Sequence[Change]) -> bool:
        return False

    def reached(self, have: Have[RouteMsg], context: Context) -> bool:
        msg = have.msg
        # Protocols kernel, redirect, ra and dhcp are the kernel's or a lease's; local is the kernel's table.
        return msg.protocol not in (1, 2, 9, 16) and msg.table != LOCAL_TABLE

    def facts(self, want: Route, have: Have[RouteMsg] | None) -> Mapping[str, int | str]:
        return {}

    def creatable(self, want: Route, context: Context) -> str | None:
        return None

    def needs(self, want: Route) -> tuple[Key, ...]:
        if not want.nexthops:
            return (("link", want.dev),) if want.dev else ()
        return tuple(dict.fromkeys(("link", way.dev) for way in want.nexthops if way.dev))

    def given(self, want: Route, context: Context) -> tuple[str, ...]:
        return ()

    def valid(self, entry: Entry, have: Have[RouteMsg]) -> bool:
        return True

    def messages(self, op: Op, context: Context) -> list[Message]:
        if op.verb is Verb.DELETE:
            assert isinstance(op.have, Have)
            return [(wire.RTM_DELROUTE, 0, _delete(op.have.msg))]
        want = op.want
        assert isinstance(want, Route)
        protocol = PROTO_LINXD
        if op.after is not None and "protocol" in op.after.original:
            protocol = int(op.after.original["protocol"])
        messages: list[Message] = []
        if op.changes and op.changes[0].attribute == RIVAL:
            assert isinstance(op.have, Have)
            messages += [(wire.RTM_DELROUTE, 0, _delete(msg)) for msg in op.have.rivals]
            if len(op.changes) == 1:
                return messages
        flags = wire.NLM_F_CREATE | (wire.NLM_F_EXCL if op.verb is Verb.CREATE else wire.NLM_F_REPLACE)
        return [*messages, (wire.RTM_NEWROUTE, flags, _new(want, protocol, context.links))]


def _same_way(
    way: Nexthop, gateway: str | None, oif: int, weight: int, onlink: bool, *, links: LinkTable
) -> bool:
    if way.via != gateway or way.weight != weight or way.onlink != onlink:
        return False
    return way.dev is None or links.index(way.dev) == oif


def _match_unordered(
    wanted: Sequence[Nexthop], observed: Sequence[tuple[str | None, int, int, bool]], links: LinkTable
) -> bool:
    rest = list(observed)
    for way in wanted:
        match = next((seen for seen in rest if _same_way(way, *seen, links=links)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _new(want: Route, protocol: int, links: LinkTable) -> bytes:
    scope = want.scope
    if scope is None:
        scope = SCOPES["global"]
    if not (want.nexthops or want.prefsrc or want.metrics or want.pref is not None):
        return rt.encode_plain_route(
            want.family, want.to, want.tos, want.table, protocol, scope, want.type,
            RTNH_F_ONLINK if want.onlink else 0, (links.index(want.dev) or 0) if want.dev else 0,
            want.via, want.metric,
        )  # fmt: skip
    return rt.encode_route(
        family=want.family,
        dst=want.to,
        tos=want.tos,
        table=want.table,
        protocol=protocol,
        scope=scope,
        type=want.type,
        flags=RTNH_F_ONLINK if want.onlink else 0,
        oif=(links.index(want.dev) or 0) if want.dev and not want.nexthops else 0,
        gateway=want.via,
        prefsrc=want.prefsrc,
        metric=want.metric,
        metrics=want.metrics,
        pref=want.pref,
        nexthops=tuple(
            rt.Nexthop(
                oif=(links.index(hop.dev) or 0) if hop.dev else 0,
                gateway=hop.via,
                weight=hop.weight,
                flags=RTNH_F_ONLINK if hop.onlink else 0,
            )
            for hop in want.nexthops
        ),
    )


def _delete(msg: RouteMsg) -> bytes:
    return rt.encode_route(
        family=msg.family,
        dst=msg.dst,
        src=msg.src,
        tos=msg.tos,
        table=msg.table,
        protocol=msg.protocol,
        scope=msg.scope,
        type=msg.type,
        oif=msg.oif,
        gateway=msg.gateway,
        metric=msg.metric,
        nexthops=msg.nexthops,
    )
