# SPDX-License-Identifier: MIT
"""Random declarations, random drifts at random moments, by several writers at once, on the real kernel.

After the last drift: what is declared is there, the next pass writes nothing, foreign objects are as they
were, and no file descriptor is left. `LINXD_FUZZ_SEED` and `LINXD_FUZZ_N` choose the run; a failure prints
both and the last drifts.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from linxd.patch import State

from .harness import World, batch, ip

SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
DRIFTS = int(os.environ.get("LINXD_FUZZ_N", 150))
LINKS = ("e0", "b0", "p0", "p1")
V4 = [f"10.0.{net}.{host}" for net in (0, 1) for host in (1, 2, 3)]
V6 = [f"fd0{net}::{host}" for net in (0, 1) for host in (1, 2, 3)]
NETS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/25", "10.66.0.0/16")
NETS6 = ("fd11::/64", "fd12::/64", "fd13::/48")
FOREIGN = (
    "link add x0 type bridge forward_delay 700",
    "address add 10.77.0.1/24 dev x0",
    "link set x0 up",
    "route add 172.30.0.0/24 via 10.77.0.2 proto bird",
    "route add blackhole 172.31.0.0/24 table 77 proto static",
    "rule add from 10.77.0.0/16 lookup 77 priority 7777",
    "neigh add 10.77.0.9 lladdr 02:00:00:00:77:09 dev x0 nud permanent",
)


def declaration(rng: random.Random) -> str:
    """Some of each kind."""
    v4, v6 = rng.sample(V4, 3), rng.sample(V6, 2)
    # "take": what a drift puts where nothing was declared yet may be declared next
    text = f"""
    [scope]
    on-conflict = "take"
    [link.e0]
    mtu = {rng.choice((1400, 1500))}
    txqueuelen = {rng.choice((500, 1000))}
    addresses = ["{v4[0]}/24", "{v4[1]}/{rng.choice((24, 32))}", {{ address = "{v6[0]}/64", nodad = true }}]
    [link.b0]
    kind = "bridge"
    forward_delay = {rng.choice((900, 1500))}
    addresses = ["10.5.0.1/24"]
    [link.p0]
    kind = "veth"
    peer = {{ name = "p1" }}
    {rng.choice(('master = "b0"', ""))}
    alias = "{rng.choice(("one", "two"))}"
    [link.p1]
    mtu = 1500
    addresses = [{{ address = "fd55::1/64", nodad = true }}]
    """
    for net in rng.sample(NETS, 3):
        way = rng.choice(
            ('via = "10.5.0.9"', 'dev = "e0"', 'type = "blackhole"', 'via = "10.5.0.8"\\nmtu = 1300')
        )
        way = way.replace("\\n", "\n")
        text += f'\n[[route]]\nto = "{net}"\n{way}\nmetric = {rng.choice((0, 5))}\n'
    for net in rng.sample(NETS6, 2):
        way = rng.choice(('via = "fd55::9"', 'dev = "p1"', 'type = "prohibit"'))
        text += f'\n[[route]]\nto = "{net}"\n{way}\n'
    for number in range(2):
        table = rng.choice((100, 101))
        text += f'\n[[rule]]\nfrom = "10.{number}.0.0/16"\ntable = {table}\npriority = {1000 + number}\n'
    text += '\n[[neighbour]]\naddress = "10.5.0.9"\ndev = "b0"\nlladdr = "02:00:00:00:00:09"\n'
    return text


def drift(rng: random.Random) -> str:
    """One command that may break something, or nothing."""
    link = rng.choice(LINKS)
    net, net6 = rng.choice(NETS), rng.choice(NETS6)
    v4, v6 = rng.choice(V4), rng.choice(V6)
    return rng.choice(
        (
            f"address del {v4}/24 dev e0",
            f"address del {v4}/32 dev e0",
            f"address add {v4}/24 dev e0 label e0:x",
            f"address change {v4}/24 dev e0 metric 9",
            f"address del {v6}/64 dev e0",
            f"address flush dev {link} scope global",
            "address del 10.5.0.1/24 dev b0",
            f"route del {net}",
            f"route del {net} metric 5",
            f"route replace {net} via 10.5.0.7",
            f"route replace {net} via 10.5.0.7 metric 5 mtu 1200",
            f"route append {net} via 10.5.0.6",
            f"route prepend {net} via 10.5.0.6",
            f"route replace blackhole {net} metric 5",
            f"-6 route del {net6}",
            f"-6 route replace {net6} via fd55::7",
            f"-6 route append {net6} via fd55::6",
            f"rule del priority {rng.choice((1000, 1001))}",
            f"rule add from 10.{rng.choice((0, 1))}.0.0/16 lookup 102 priority {rng.choice((1000, 1001))}",
            "neigh del 10.5.0.9 dev b0",
            "neigh replace 10.5.0.9 lladdr 02:00:00:00:00:0a dev b0 nud permanent",
            f"link set {link} down",
            f"link set {link} up",
            f"link set {link} mtu {rng.choice((1000, 1300, 1500))}",
            f"link set {link} txqueuelen {rng.choice((77, 500))}",
            f"link set {link} alias {rng.choice(('x', 'y'))}",
            f"link set {link} name moved0",
            f"link set {link} address 02:00:00:00:01:0{rng.randrange(9)}",
            "link set p0 nomaster",
            "link set p0 master b0",
            "link set b0 type bridge forward_delay 1200",
            "link del p0",
            "link del b0",
        )
    )


async def attack(netns: str, commands: list[str], rng: random.Random) -> None:
    """One writer: its commands one by one, with pauses that are over before, during or after the healing."""
    for command in commands:
        process = await asyncio.create_subprocess_exec(
            "ip", "-n", netns, *command.split(), stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.02)))


def foreign(netns: str) -> str:
    """What is not ours, as ip shows it."""
    shown = (
        "-d link show x0",
        "-4 address show x0",
        "route show proto bird",
        "route show table 77",
        "rule show priority 7777",
        "neigh show dev x0 nud permanent",
    )
    return "\n".join(ip(netns, command).partition(" hello_timer")[0] for command in shown)


def test_whatever_happens_it_ends_as_declared(netns: str, tmp_path: Path) -> None:
    print(f"seed {SEED}, {DRIFTS} drifts")
    rng = random.Random(SEED)
    batch(netns, "link set lo up", "link add e0 type veth peer name far0", "link set far0 up", *FOREIGN)
    story: list[str] = []

    async def run() -> None:
        world = World(netns, tmp_path)
        try:
            before = foreign(netns)
            async with world.kept(declaration(rng)):
                assert world.loop is not None
                fds = len(os.listdir("/proc/self/fd"))
                left = DRIFTS
                while left > 0:
                    story[:] = [drift(rng) for _ in range(min(left, rng.randrange(1, 9)))]
                    left -= len(story)
                    writers = rng.choice((1, 2, 3))
                    await asyncio.gather(*(attack(netns, story[n::writers], rng) for n in range(writers)))
                    if rng.random() < 0.2:
                        world.loop.declare(world.declare(declaration(rng)))
                    await settled(world)
                    world.forgive()
                assert len(os.listdir("/proc/self/fd")) <= fds
            await world.go()
            await world.quiet()
            assert foreign(netns) == before
        finally:
            world.close()

    async def settled(world: World) -> None:
        """Until nothing is left to do. What only a whole look can see counts from the next resync on."""
        assert world.loop is not None
        for attempt in range(400):
            patch = await world.plan()
            # A fight that is over is remembered for a while, and slows down the heals meanwhile.
            said_of = world.loop.conditions.values()
            wrong = [c for c in said_of if c.state not in (State.CONTENDED, State.NOTED)]
            if not patch.ops and not wrong:
                return
            if attempt > 300:
                last = world.reports[-6:]
                said = [(r.trigger.value, [o.describe() for o in r.drifted], len(r.applied)) for r in last]
                left = [op.describe() for op in patch.ops]
                raise AssertionError(f"seed {SEED}: after {story}: {left} {wrong} {said}")
            await asyncio.sleep(0.02)

    asyncio.run(run())
