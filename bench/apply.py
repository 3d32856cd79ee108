# SPDX-License-Identifier: MIT
"""Everything made from nothing: our pass alone and our command as a whole, beside `ip -batch`, `nft -f` and
ifstate, each in a namespace of its own.

It times what is made; that it was made is seen to by those who make it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import bed
import kinds
import others
import quiet
from figures import Figure, Series, Target

PASS, COMMAND, IP, NFT, IFSTATE = "linxd, the pass", "linxctl apply", "ip -batch", "nft -f", "ifstate apply"
WARM = "linxd, compiled before"
SLOW = 5
NOTE = (
    "Time that passes. The pass is linxd's alone; linxctl apply is the whole command, with Python's start "
    "and the reading of the file."
)
_NO_NETWORKD = (
    "networkd", "it serves a machine's namespace out of /etc/systemd/network, with udev's word on each link"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made: in TOML, for `ip -batch` or `nft -f`, and for ifstate."""

    name: str
    toml: str
    theirs: str
    nft: bool
    yaml: str | None
    why: str = ""


def routes(count: int) -> Job:
    """A pair of links, an address and so many routes."""
    lines = [
        "link add e0 type veth peer name e1", "link set e0 up", "link set e1 up",
        "address add 10.200.0.5/24 dev e0",
        *(f"route add {kinds.destination(n)}/24 via {kinds.GATEWAY} dev e0" for n in range(count)),
    ]  # fmt: skip
    return Job(f"{count:,} routes", quiet.toml(count), "\n".join(lines) + "\n", False, quiet.yaml(count))


def veths(count: int) -> Job:
    """So many pairs of links, with two addresses each."""

    def addresses(n: int) -> tuple[str, str]:
        return f"10.{n >> 8 & 255}.{n & 255}.5/24", f"fd00:0:0:{n:x}::5/64"

    toml, lines, yaml = [], [], ["interfaces:"]
    for n in range(count):
        four, six = addresses(n)
        toml.append(
            f'[link.v{n}]\nkind = "veth"\npeer = {{ name = "w{n}" }}\naddresses = ["{four}", "{six}"]\n'
        )
        lines += [
            f"link add v{n} type veth peer name w{n}", f"link set v{n} up",
            f"address add {four} dev v{n}", f"address add {six} dev v{n}",
        ]  # fmt: skip
        yaml += [
            f"  v{n}:", f"    link: {{kind: veth, peer: w{n}, state: up}}",
            f"    addresses: ['{four}', '{six}']",
            f"  w{n}:", f"    link: {{kind: veth, peer: v{n}, state: down}}",
        ]  # fmt: skip
    name = f"{count:,} veths with 2 addresses"
    return Job(name, "".join(toml), "\n".join(lines) + "\n", False, "\n".join(yaml) + "\n")


def firewall(elements: int, rules: int) -> Job:
    """A large ruleset."""
    text = kinds.ruleset(elements, rules)
    name = f"nft, {elements:,} elements and {rules:,} rules"
    return Job(name, kinds.declared(text), text, True, None, "it knows no nftables")


def _theirs(job: Job, netns: str) -> float:
    if job.nft:
        return others.command("ip", "netns", "exec", netns, "nft", "-f", "-", text=job.theirs).wall
    return others.command("ip", "-n", netns, "-batch", "-", text=job.theirs).wall


def _command(job: Job, on: bed.Bed, netns: str) -> float:
    file, state = others.scope_file(on, netns, job.toml)
    words = ("apply", "--once", file, "--state-dir", state)
    return others.command(str(bed.installed() / "linxctl"), *words, env=bed.alone()).wall


def _pass(job: Job, on: bed.Bed, netns: str) -> float:
    passes = others.passer(on, netns, job.toml)
    took = passes().wall
    passes.close()
    return took


def _compiled(job: Job, on: bed.Bed, netns: str) -> float:
    """The pass of a daemon that has seen this ruleset before: it was loaded, and somebody flushed it."""
    passes = others.passer(on, netns, job.toml)
    passes()
    bed.run("ip", "netns", "exec", netns, "nft", "flush", "ruleset")
    took = passes().wall
    passes.close()
    return took


def measure_job(job: Job, runs: int) -> list[Figure]:
    """The pass beside the C tool, and the command beside all."""
    tool = NFT if job.nft else IP
    makers: dict[str, Callable[[bed.Bed, str], float]] = {
        PASS: lambda on, netns: _pass(job, on, netns),
        tool: lambda on, netns: _theirs(job, netns),
        COMMAND: lambda on, netns: _command(job, on, netns),
    }
    if job.nft:
        makers[WARM] = lambda on, netns: _compiled(job, on, netns)
    if job.yaml is not None:
        yaml = job.yaml
        makers[IFSTATE] = lambda on, netns: others.ifstate(on, netns, yaml)("apply").wall
    values: dict[str, list[float]] = {who: [] for who in makers}
    missing = {} if job.yaml is not None else {IFSTATE: job.why}
    for number in range(runs):
        for who, make in makers.items():
            if who in missing or (who == IFSTATE and number % SLOW):
                continue
            with bed.Bed() as on:
                try:
                    values[who].append(make(on, on.namespace()))
                except bed.Unavailable as reason:
                    missing[who] = str(reason)
                except RuntimeError as error:
                    missing[who] = f"it failed: {str(error)[-160:].strip()}"
    series = {who: Series(who, tuple(each), SLOW if who == IFSTATE else 1) for who, each in values.items()}
    close = Target(f"within 1.3 times {tool}", 1.3, tool)
    first = [WARM, PASS] if job.nft else [PASS]
    figures = [
        Figure("apply", f"{job.name}: {who}", "s", (series[who], series[tool]), (close,), note=NOTE)
        for who in first
    ]
    ahead = (Target("ahead of ifstate by 10", 0.1, IFSTATE),) if job.yaml is not None else ()
    lacking = (*missing.items(), _NO_NETWORKD)
    all_of_them = tuple(series[who] for who in (COMMAND, tool, IFSTATE) if who in series)
    figures.append(
        Figure("apply", f"{job.name}: the whole command", "s", all_of_them, (close, *ahead), lacking, NOTE)
    )
    return figures


def measure(quick: bool) -> Iterator[Figure]:
    """Every case."""
    part, runs = (10, 3) if quick else (1, 5)
    for job in (routes(10_000 // part), veths(1000 // part), firewall(10_000 // part, 2_000 // part)):
        bed.progress(f"first apply: {job.name}")
        yield from measure_job(job, runs)
