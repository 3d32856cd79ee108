# SPDX-License-Identifier: MIT
"""What a look at everything costs in CPU when there is nothing to do, beside what others take to look.

Passes are those of the sources in a process like the daemon's; what they cost is counted in that process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bed
import kinds
import others
from figures import Figure, Series, Target

OURS, IP, IFSTATE, PYROUTE2, BARE, NFT = (
    "linxd", "ip -j + json", "ifstate check", "pyroute2", "bare filtered dump", "nft -j + json",
)  # fmt: skip
NOTE = (
    "CPU, of the kernel's side too. Of ip and nft with parsing their JSON; of ifstate the whole command; of "
    "pyroute2 the same dumps by IPRoute; of linxd passes of all sources, for nft elements that of netfilter."
)
Ask = Callable[[], others.Took]


def in_turn(
    name: str, asks: dict[str, Ask | str], runs: int, targets: tuple[Target, ...], *, slow: str = IFSTATE
) -> Figure:
    """All of them in turn; a string in the place of somebody is why they aren't there. ``slow`` has every
    fifth turn only."""
    values: dict[str, list[float]] = {who: [] for who, ask in asks.items() if not isinstance(ask, str)}
    for number in range(runs):
        for who, ask in asks.items():
            if isinstance(ask, str) or (who == slow and number % 5):
                continue
            try:
                values[who].append(ask().cpu)
            except bed.Unavailable as reason:
                asks = {**asks, who: str(reason)}
            except RuntimeError as error:
                asks = {**asks, who: f"it failed: {str(error)[-200:]}"}
    series = tuple(Series(who, tuple(each), 5 if who == slow else 1) for who, each in values.items())
    missing = tuple((who, ask) for who, ask in asks.items() if isinstance(ask, str))
    return Figure("quiet", name, "s", series, targets, missing, NOTE)


def ours(on: bed.Bed, netns: str, text: str, *only: str) -> Ask:
    """Passes over a declaration that is in force, of all sources or of some only."""
    passes = others.passer(on, netns, text, *only)
    for _ in range(3):
        passes()
    return passes


def _ifstate(on: bed.Bed, netns: str, text: str) -> Ask | str:
    try:
        does = others.ifstate(on, netns, text)
        does("check")
    except bed.Unavailable as reason:
        return str(reason)
    except RuntimeError as error:
        return f"it failed: {str(error)[-200:]}"
    return lambda: does("check")


def _pyroute2(on: bed.Bed, netns: str) -> Ask | str:
    try:
        return others.Answering(on, "pyroute2", netns=netns)
    except bed.Unavailable as reason:
        return str(reason)


def _ip(netns: str, *whats: str) -> Ask:
    return lambda: others.parsed(*(("ip", "-n", netns, "-j", *what.split()) for what in whats))


def yaml(count: int) -> str:
    """A pair of links, their address and so many routes, in ifstate's words."""
    routes = "\n".join(
        f"  - {{to: {kinds.destination(n)}/24, via: {kinds.GATEWAY}, dev: e0}}" for n in range(count)
    )
    return (
        "interfaces:\n  e0:\n    link: {kind: veth, peer: e1, state: up}\n    addresses: [10.200.0.5/24]\n"
        f"  e1:\n    link: {{kind: veth, peer: e0, state: up}}\nrouting:\n  routes:\n{routes}\n"
    )


def toml(count: int) -> str:
    """The same in ours."""
    return (
        '[link.e0]\nkind = "veth"\npeer = { name = "e1" }\naddresses = ["10.200.0.5/24"]\n'
        f"[link.e1]\nup = true\n{kinds.routes(count)}"
    )


def routes(count: int, name: str, runs: int, targets: tuple[Target, ...]) -> Figure:
    """A link, an address and own routes."""
    with bed.Bed() as on:
        netns = on.namespace()
        asks: dict[str, Ask | str] = {
            OURS: ours(on, netns, toml(count)),
            IP: _ip(netns, "link", "address", "route"),
            PYROUTE2: _pyroute2(on, netns),
            IFSTATE: _ifstate(on, netns, yaml(count)),
        }
        return in_turn(name, asks, runs, targets)


def crowd(count: int, foreign: int, runs: int) -> Figure:
    """A few routes of ours among very many of others."""
    with bed.Bed() as on:
        netns = on.namespace()
        asks: dict[str, Ask | str] = {OURS: ours(on, netns, toml(count))}
        lines = [
            f"route add 100.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 via {kinds.GATEWAY} dev e0 proto bird"
            for n in range(foreign)
        ]
        kinds.batch(netns, lines)
        passes = asks[OURS]
        assert not isinstance(passes, str)
        for _ in range(3):
            passes()
        asks |= {
            BARE: others.Answering(on, "bare", netns=netns),
            IP: _ip(netns, "link", "address", "route"),
            PYROUTE2: "IPRoute takes seconds for so many",
            IFSTATE: "it would take away what is not its own",
        }
        targets = (Target("within twice a bare filtered dump", 2.0, BARE),)
        return in_turn(f"{count} own among {foreign:,} foreign routes", asks, runs, targets)


def links(count: int, runs: int) -> Figure:
    """Links that are all declared."""
    pairs = count // 2
    text = "".join(
        f'[link.v{n}]\nkind = "veth"\npeer = {{ name = "w{n}" }}\n[link.w{n}]\nup = true\n'
        for n in range(pairs)
    )
    interfaces = "".join(
        f"  v{n}:\n    link: {{kind: veth, peer: w{n}, state: up}}\n"
        f"  w{n}:\n    link: {{kind: veth, peer: v{n}, state: up}}\n"
        for n in range(pairs)
    )
    with bed.Bed() as on:
        netns = on.namespace()
        asks: dict[str, Ask | str] = {
            OURS: ours(on, netns, text),
            IP: _ip(netns, "-d link", "address"),
            PYROUTE2: _pyroute2(on, netns),
            IFSTATE: _ifstate(on, netns, f"interfaces:\n{interfaces}"),
        }
        return in_turn(f"{count:,} links", asks, runs, ())


def elements(count: int, runs: int) -> Figure:
    """A large set, of which nothing has changed."""
    text = kinds.ruleset(count, 100)
    with bed.Bed() as on:
        netns = on.namespace()
        nft = ("ip", "netns", "exec", netns, "nft", "-j", "list", "ruleset")
        asks: dict[str, Ask | str] = {
            OURS: ours(on, netns, kinds.declared(text), "netfilter"),
            NFT: lambda: others.parsed(nft),
            PYROUTE2: "its nftables module lists no elements",
            IFSTATE: "it knows no nftables",
        }
        return in_turn(f"{count:,} nft elements", asks, runs, (Target("under 0.5 ms", 0.0005),))


def keys(pairs: int, runs: int) -> Figure:
    """A key of each of very many interfaces, of which the kernel tells nothing."""
    with bed.Bed() as on:
        netns = on.namespace()
        kinds.batch(netns, [f"link add v{n} type veth peer name w{n}" for n in range(pairs)])
        names = [f"net.ipv4.conf.{side}{n}.arp_ignore" for n in range(pairs) for side in "vw"]
        asks: dict[str, Ask | str] = {
            OURS: ours(on, netns, '[sysctl]\n"net.ipv4.conf.*.arp_ignore" = 1\n'),
            "sysctl -n": lambda: others.command("ip", "netns", "exec", netns, "sysctl", "-n", *names),
            PYROUTE2: "it knows no sysctls",
            IFSTATE: "it knows those of links that it makes, not a pattern",
        }
        return in_turn(f"one sysctl of {2 * pairs} interfaces", asks, runs, ())


def measure(quick: bool) -> Iterator[Figure]:
    """Every case."""
    part = 10 if quick else 1
    runs = 10 if quick else 30
    bed.progress("quiet: 10 objects")
    yield routes(8, "10 objects", runs, ())
    bed.progress("quiet: own routes")
    faster = (Target("faster than ip -j and parsing", 1.0, IP),)
    yield routes(10_000 // part, f"{10_000 // part:,} own routes", runs, faster)
    bed.progress("quiet: a crowd of foreign routes")
    yield crowd(50, 100_000 // part, runs)
    bed.progress("quiet: links")
    yield links(1000 // part, runs)
    bed.progress("quiet: nft elements")
    yield elements(10_000 // part, runs)
    bed.progress("quiet: sysctls")
    yield keys(100, runs)
