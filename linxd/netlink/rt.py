# SPDX-License-Identifier: MIT
"""rtnetlink in one place: decoders, encoders and queries for links, addresses, routes, rules and neighbours.

Only a list of names; it must not hold any code.
"""

from linxd.netlink.rtaddr import AddrMsg, decode_addr, encode_addr, query_addrs
from linxd.netlink.rtinet import decode_promote, encode_promote
from linxd.netlink.rtlink import (
    LinkMsg,
    decode_link,
    encode_altnames,
    encode_link,
    query_link,
    query_links,
)
from linxd.netlink.rtneigh import NeighMsg, decode_neigh, encode_neigh, query_neigh, query_neighs
from linxd.netlink.rtnsid import NOT_ASSIGNED, decode_nsid, encode_nsid
from linxd.netlink.rtroute import (
    Metrics,
    Nexthop,
    RouteKey,
    RouteMsg,
    as_dumped,
    decode_route,
    encode_plain_route,
    encode_route,
    packed_destination,
    packed_prefix,
    query_route,
    query_routes,
    route_key,
    without_carrier,
    without_link,
)
from linxd.netlink.rtrule import RuleMsg, decode_rule, encode_rule, query_rules

__all__ = [
    "NOT_ASSIGNED",
    "AddrMsg",
    "LinkMsg",
    "Metrics",
    "NeighMsg",
    "Nexthop",
    "RouteKey",
    "RouteMsg",
    "RuleMsg",
    "as_dumped",
    "decode_addr",
    "decode_link",
    "decode_neigh",
    "decode_nsid",
    "decode_promote",
    "decode_route",
    "decode_rule",
    "encode_addr",
    "encode_altnames",
    "encode_link",
    "encode_neigh",
    "encode_nsid",
    "encode_plain_route",
    "encode_promote",
    "encode_route",
    "encode_rule",
    "packed_destination",
    "packed_prefix",
    "query_addrs",
    "query_link",
    "query_links",
    "query_neigh",
    "query_neighs",
    "query_route",
    "query_routes",
    "query_rules",
    "route_key",
    "without_carrier",
    "without_link",
]
