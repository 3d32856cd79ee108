# SPDX-License-Identifier: MIT
"""What objects of one scope say of each other, and when nothing is said though it might have been."""

from __future__ import annotations

from typing import Any

import pytest

from linxd.config import ConfigError, declare


def said(raw: dict[str, Any], scope: str = "c1") -> list[str]:
    """Everything that is said of a configuration, without places."""
    try:
        faults = declare(scope, raw).warnings
    except ConfigError as error:
        faults = error.faults
    return [f"{fault.path}: {fault.message}" for fault in faults]


def with_route(addresses: dict[str, list[Any]], scope: str = "c1", **route: Any) -> list[str]:
    links = {name: {"addresses": entries} for name, entries in addresses.items()}
    return said({"link": links, "route": [{"to": "10.9.0.0/16", **route}]}, scope)


UNREACHED = "route[0].via: no declared address or route reaches 10.7.0.1"


@pytest.mark.parametrize(
    ("addresses", "route", "told"),
    [
        ({"eth0": ["10.0.0.5/24"]}, {"via": "10.0.0.1"}, []),
        ({"eth0": ["10.0.0.5/24"]}, {"via": "10.7.0.1"}, [UNREACHED]),
        ({"eth0": ["10.0.0.5/24"]}, {"via": "10.7.0.1", "dev": "eth0", "onlink": True}, []),
        ({"eth0": ["10.0.0.5/24"], "eth1": []}, {"via": "10.7.0.1", "dev": "eth1"}, []),
        ({"eth0": ["10.0.0.5/24"]}, {"via": "10.7.0.1", "dev": "eth7"}, []),
        ({"eth0": ["10.0.0.5/24"]}, {"via": "fe80::1", "dev": "eth0"}, []),
        ({"eth0": ["fd00::5/64"]}, {"via": "10.7.0.1"}, []),
        ({"eth0": [{"address": "10.0.0.5", "peer": "10.7.0.1/32"}]}, {"via": "10.7.0.1"}, []),
        (
            {"eth0": [{"address": "10.7.0.5/24", "noprefixroute": True}]},
            {"via": "10.7.0.1"},
            [UNREACHED],
        ),
        ({}, {"via": "10.7.0.1"}, []),
    ],
)
def test_a_gateway_that_nothing_reaches(
    addresses: dict[str, list[Any]], route: dict[str, Any], told: list[str]
) -> None:
    assert with_route(addresses, **route) == told


def test_on_the_host_other_links_may_reach_it() -> None:
    assert with_route({"eth0": ["10.0.0.5/24"]}, "host", via="10.7.0.1") == []
    assert with_route({"eth0": ["10.0.0.5/24"]}, "host", via="10.7.0.1", dev="eth0") == [
        "route[0].via: no declared address or route on eth0 reaches 10.7.0.1"
    ]


def test_a_declared_route_may_reach_it() -> None:
    routes = [{"to": "10.7.0.0/24", "dev": "eth0"}, {"to": "default", "via": "10.7.0.1"}]
    assert said({"link": {"eth0": {"addresses": ["10.0.0.5/24"]}}, "route": routes}) == []


@pytest.mark.parametrize(
    ("dev", "meant"),
    [("uplnik", "uplink"), ("eth1", None), ("lo", None), ("wlan0", None), ("uplink", None)],
)
def test_a_device_that_looks_like_a_slip(dev: str, meant: str | None) -> None:
    links: dict[str, Any] = {"uplink": {}, "eth0": {}}
    told = said({"link": links, "neighbour": [{"address": "10.0.0.9", "dev": dev, "proxy": True}]})
    assert told == ([f'neighbour[0].dev: no link "{dev}" is declared'] if meant else [])


def test_the_other_end_of_a_pair_counts_as_declared() -> None:
    links = {"veth0": {"kind": "veth", "peer": {"name": "vetho"}}}
    assert said({"link": links, "neighbour": [{"address": "10.0.0.9", "dev": "vetho", "proxy": True}]}) == []


def test_a_source_address_that_no_link_has() -> None:
    told = "route[0].src: no declared link has the address 10.0.0.7"
    assert with_route({"eth0": ["10.0.0.5/24"]}, dev="eth0", src="10.0.0.7") == [told]
    assert with_route({"eth0": ["10.0.0.5/24"]}, dev="eth0", src="10.0.0.5") == []
    assert with_route({"eth0": ["fd00::5/64"]}, dev="eth0", src="10.0.0.7") == []


def test_an_address_on_two_links() -> None:
    links = {
        "a": {"addresses": ["10.0.0.5/24", "fe80::5/64"]},
        "b": {"addresses": ["10.0.0.5/32", "fe80::5/64"]},
    }
    assert said({"link": links}) == ["link.b.addresses[0]: 10.0.0.5 is on a too"]


def test_two_lengths_of_an_address_are_two_addresses() -> None:
    assert said({"link": {"a": {"addresses": ["10.0.0.5/24", "10.0.0.5/32"]}}}) == []


def test_a_loop_of_masters_through_a_pair() -> None:
    links = {
        "br0": {"kind": "bridge", "master": "a"},
        "v": {"kind": "veth", "peer": {"name": "a", "master": "br0"}},
    }
    assert said({"link": links}) == ["link.br0.master: the chain of masters never ends: br0 -> a -> br0"]


def test_a_master_that_is_not_declared_may_come_later() -> None:
    assert said({"link": {"eth0": {"master": "br0"}, "mv": {"kind": "macvlan", "parent": "eth7"}}}) == []


def test_a_withdrawn_link_takes_its_faults_along() -> None:
    assert said({"link": {"eth0": {"absent": True, "addresses": "x", "mtuu": 1}}}) == []
