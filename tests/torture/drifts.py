# SPDX-License-Identifier: MIT
"""Random declarations over all three sources, and random drifts: each a line of `ip`, `nft` or `sysctl`.

Everything follows from the random numbers handed in. What comes of it is for others to see.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

FOREIGN = (
    "link set lo up",
    "link add e0 type veth peer name far0",
    "link set far0 up",
    "link add x0 type bridge forward_delay 700",
    "address add 10.77.0.1/24 dev x0",
    "link set x0 up",
    "route add 172.30.0.0/24 via 10.77.0.2 proto bird",
    "route add blackhole 172.31.0.0/24 table 77 proto static",
    "rule add from 10.77.0.0/16 lookup 77 priority 7777",
    "neigh add 10.77.0.9 lladdr 02:00:00:00:77:09 dev x0 nud permanent",
)
FOREIGN_RULESET = """
table ip foreign {
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
	chain c { type filter hook input priority 5; policy accept; ip saddr @s counter packets 5 bytes 55; }
}
"""
LINKS = ("e0", "b0", "p0", "p1", "m0")
V4 = [f"10.{net}.0.{host}" for net in (20, 21) for host in (1, 2, 3)]
V6 = [f"fd0{net}::{host}" for net in (0, 1) for host in (1, 2, 3)]
NETS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/25", "10.66.0.0/16")
NETS6 = ("fd11::/64", "fd12::/64", "fd13::/48")
ADDRESSES = [f"10.{n}.0.{n}" for n in range(1, 9)]
RULES = (
    "ct state established,related counter accept",
    "ip saddr @allow counter accept",
    "tcp dport { 1, 2, 3 } counter drop",
    "tcp dport { 22, 80 } accept",
    "tcp dport vmap { 53 : jump inner, 99 : drop }",
    "udp dport 53 limit rate 5/second accept",
    'counter name "hits" comment "named"',
    "meta mark set 7 counter",
    'ip daddr 192.0.2.0/24 log prefix "seen " accept',
    "icmp type echo-request accept",
    "ip saddr { 10.0.0.0/8, 172.16.0.0-172.16.9.9 } counter",
)
SYSCTLS: dict[str, tuple[str, ...]] = {
    "net.ipv4.ip_forward": ("0", "1"),
    "net.ipv4.conf.e0.forwarding": ("0", "1"),
    "net.ipv4.conf.e0.rp_filter": ("0", "1", "2"),
    "net.ipv4.conf.p0.rp_filter": ("0", "1", "2"),
    "net.ipv4.conf.b0.proxy_arp": ("0", "1"),
    "net.ipv4.conf.e0.accept_local": ("0", "1"),
    "net.ipv4.conf.all.arp_ignore": ("0", "1", "2"),
    "net.ipv6.conf.all.forwarding": ("0", "1"),
    "net.ipv6.conf.e0.accept_ra": ("0", "1", "2"),
    "net.core.somaxconn": ("100", "200", "300"),
    "net.ipv4.tcp_rmem": ("4096 131072 6291456", "4096 87380 6000000"),
    "net.ipv4.ip_local_port_range": ("1024 2000", "32768 60999"),
}
GLOBS = ("net.ipv4.conf.*.arp_announce", "net.ipv6.conf.*.accept_redirects")
DISABLE = "net.ipv6.conf.e0.disable_ipv6"


@dataclass(frozen=True, slots=True)
class Declared:
    """A file, and what of it can be looked up by name."""

    text: str
    sysctls: tuple[tuple[str, str], ...]
    """Exact keys with the values declared; of globs the key with ``*``."""


def declaration(rng: random.Random) -> Declared:
    """Some of each kind."""
    sysctls = [(key, rng.choice(SYSCTLS[key])) for key in rng.sample(sorted(SYSCTLS), 6)]
    sysctls += [(glob, rng.choice("01")) for glob in GLOBS if rng.random() < 0.5]
    sysctls.append((DISABLE, "0"))
    keys = "\n".join(f'"{key}" = "{value}"' for key, value in sysctls)
    # "take": what a drift puts where nothing was declared yet may be declared next
    text = f"""
[scope]
on-conflict = "take"
resync = "2s"
{_links(rng)}{_routes(rng)}
[[neighbour]]
address = "10.5.0.9"
dev = "b0"
lladdr = "02:00:00:00:00:09"

[sysctl]
{keys}

[netfilter]
ruleset = '''{_ruleset(rng)}'''
"""
    return Declared(text, tuple(sysctls))


def _links(rng: random.Random) -> str:
    v4, v6 = rng.sample(V4, 3), rng.sample(V6, 2)
    text = f"""
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
    if rng.random() < 0.6:
        text += f"""
[link.m0]
kind = "macvlan"
parent = "e0"
mode = "{rng.choice(("bridge", "vepa"))}"
addresses = ["10.6.0.1/24"]
"""
    return text


def _routes(rng: random.Random) -> str:
    text = ""
    for net in rng.sample(NETS, 3):
        way = rng.choice(
            ('via = "10.5.0.9"', 'dev = "e0"', 'type = "blackhole"', 'via = "10.5.0.8"\nmtu = 1300')
        )
        text += f'\n[[route]]\nto = "{net}"\n{way}\nmetric = {rng.choice((0, 5))}\n'
    for net in rng.sample(NETS6, 2):
        way = rng.choice(('via = "fd55::9"', 'dev = "p1"', 'type = "prohibit"'))
        text += f'\n[[route]]\nto = "{net}"\n{way}\n'
    for number in range(2):
        table = rng.choice((100, 101))
        text += f'\n[[rule]]\nfrom = "10.{number}.0.0/16"\ntable = {table}\npriority = {1000 + number}\n'
    return text


def _ruleset(rng: random.Random) -> str:
    rules = "\n".join(f"\t\t{rule}" for rule in rng.sample(RULES, rng.randrange(3, len(RULES))))
    elements = ", ".join(rng.sample(ADDRESSES, rng.randrange(1, 6)))
    ranges = ", ".join(rng.sample(["10.0.0.0/25", "192.0.2.7", "198.51.100.0-198.51.100.9"], 2))
    second = rng.choice(("", "table ip other {\n\tchain c {\n\t\tcounter\n\t}\n}\n"))
    return f"""
table inet guarded {{
	counter hits {{ }}
	set allow {{ type ipv4_addr; elements = {{ {elements} }}; }}
	set wide {{ type ipv4_addr; flags interval; elements = {{ {ranges} }}; }}
	chain inner {{ counter accept; }}
	chain input {{
		type filter hook input priority {rng.choice((0, 5, -100))}; policy {rng.choice(("accept", "drop"))};
{rules}
		ip daddr @wide drop
	}}
}}
{second}"""


def drift(rng: random.Random) -> str:
    """One line that may break something, or nothing."""
    return rng.choice((*(_rtnl,) * 6, *(_nft,) * 4, *(_sysctl,) * 2, _away))(rng)


def _away(rng: random.Random) -> str:
    """A link goes to another namespace, which soon ends and takes it along."""
    link = rng.choice(("b0", "p0", "p1", "m0"))
    return f"unshare --net sleep 0.3 & sleep 0.05; ip link set {link} netns $!"


def _rtnl(rng: random.Random) -> str:
    link = rng.choice(LINKS)
    net, net6 = rng.choice(NETS), rng.choice(NETS6)
    v4, v6 = rng.choice(V4), rng.choice(V6)
    return "ip " + rng.choice(
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
            "route del 10.5.0.0/24 dev b0",
            "route flush table main dev b0",
            "-6 route flush table main dev p1",
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
            "link del p1",
            "link del b0",
            "link del m0",
            "link set m0 type macvlan mode private",
        )
    )


_HANDLE = "$(nft -a list chain inet guarded input | sed -n 's/.*# handle //p' | sed -n {}p)"


def _nft(rng: random.Random) -> str:
    address, rule = rng.choice(ADDRESSES), rng.choice(RULES)
    handle = _HANDLE.format(rng.randrange(2, 9))
    return rng.choice(
        (
            f"nft 'delete element inet guarded allow {{ {address} }}'",
            f"nft 'add element inet guarded allow {{ {address} }}'",
            "nft flush set inet guarded allow",
            "nft flush set inet guarded wide",
            "nft 'add element inet guarded wide { 172.16.0.0/12 }'",
            f"nft 'insert rule inet guarded input {rule}'",
            f"nft 'add rule inet guarded input {rule}'",
            f"nft 'add rule inet guarded inner {rule}'",
            "nft flush chain inet guarded input",
            "nft flush chain inet guarded inner",
            f"nft delete rule inet guarded input handle {handle}",
            f"nft replace rule inet guarded input handle {handle} counter drop",
            "nft 'add chain inet guarded input { policy accept ; }'",
            "nft 'add chain inet guarded input { policy drop ; }'",
            "nft add chain inet guarded strange",
            "nft 'add set inet guarded strange2 { type mark ; }'",
            "nft 'add table inet guarded { flags dormant ; }'",
            "nft delete table inet guarded",
            "nft delete table ip other",
            "nft flush table inet guarded",
            "nft reset counters",
            # rules in another order, in one transaction
            f"nft 'add rule inet guarded input {rule}; delete rule inet guarded input handle '{handle}",
        )
    )


def _sysctl(rng: random.Random) -> str:
    every = [*SYSCTLS, *(glob.replace("*", link) for glob in GLOBS for link in LINKS), DISABLE]
    key = rng.choice(every)
    value = rng.choice(SYSCTLS.get(key, ("0", "1")))
    return f"sysctl -qw '{key}={value}'"
