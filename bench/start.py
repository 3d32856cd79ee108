# SPDX-License-Identifier: MIT
"""From a start to all being as declared: a daemon beside a bare Python and a script of the same commands.

Once as a process, measured until it says that it is ready; and once as a unit of a machine that was booted
for it, where the service manager has its part. What there is to be done is the same; nobody is asked how.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bed
from figures import Figure, Series, Target

RUNS, QUICK_RUNS = 30, 5
UNIT_RUNS, QUICK_UNIT_RUNS = 15, 3
WITHIN = 0.25
"""Seconds."""
RELEASE = "12"
OURS, PYTHON = "linxd", "python3 -c pass"
SCRIPT, SINGLE = "shell script", "shell script, one by one"

_RULES = [f"ip saddr 172.16.0.{n} tcp dport {1000 + n} accept" for n in range(20)]
_KEYS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.e0.rp_filter": 2,
    "net.ipv4.conf.e0.proxy_arp": 1,
    "net.ipv4.conf.e0.accept_local": 1,
    "net.ipv4.conf.e0.arp_ignore": 1,
    "net.ipv4.conf.e0.send_redirects": 0,
    "net.ipv4.tcp_fin_timeout": 30,
    "net.ipv4.tcp_keepalive_time": 600,
    "net.ipv4.ip_local_port_range": "20000 60000",
    "net.ipv6.conf.e0.accept_ra": 0,
}
_TABLE = f"""\
table inet filter {{
  chain input {{
    type filter hook input priority 0; policy accept;
    {"; ".join(_RULES)};
  }}
}}
"""
_LINKS = """\
ip link add e0 type veth peer name e1
ip address add 10.0.0.5/24 dev e0
ip address add fd00::5/64 dev e0 nodad
ip link set e1 up
ip link set e0 up
ip route add default via 10.0.0.1
ip route add 10.1.0.0/16 via 10.0.0.2
ip route add 10.2.0.0/16 via 10.0.0.3
"""
DECLARATION = f"""\
[link.e0]
kind = "veth"
peer = {{ name = "e1" }}
addresses = ["10.0.0.5/24", {{ address = "fd00::5/64", nodad = true }}]

[link.e1]
up = true

[[route]]
to = "default"
via = "10.0.0.1"

[[route]]
to = "10.1.0.0/16"
via = "10.0.0.2"

[[route]]
to = "10.2.0.0/16"
via = "10.0.0.3"

[netfilter]
ruleset = '''
{_TABLE}'''

[sysctl]
{chr(10).join(f'"{key}" = {value!r}'.replace("'", '"') for key, value in _KEYS.items())}
"""
_WORDS = [f"'{key}={value}'" for key, value in _KEYS.items()]
TOGETHER = f"set -e\n{_LINKS}nft -f - <<'END'\n{_TABLE}END\nsysctl -qw {' '.join(_WORDS)}\n"
"""As somebody writes it who knows the tools: one `nft` and one `sysctl` for all."""
ONE_BY_ONE = "\n".join([
    f"set -e\n{_LINKS}nft add table inet filter",
    "nft add chain inet filter input '{ type filter hook input priority 0; policy accept; }'",
    *(f"nft add rule inet filter input {rule}" for rule in _RULES),
    *(f"sysctl -qw {word}" for word in _WORDS), "",
])  # fmt: skip

_TIMER = """\
import subprocess, sys, time
began = time.perf_counter()
subprocess.run(["systemctl", "start", sys.argv[1]], check=True)
print(time.perf_counter() - began)
"""
"""In the machine: what it takes to get there is not what is measured."""
_UNIT = """\
[Service]
Type=oneshot
NetworkNamespacePath=/run/netns/%i
ExecStart={}
"""

_WHAT = "A pair of links, 2 addresses, 3 routes, 20 nft rules and 10 sysctls, in a fresh namespace each time"


def measure(quick: bool) -> Iterator[Figure]:
    """As a process, and as a unit."""
    yield _process(QUICK_RUNS if quick else RUNS)
    yield _unit(QUICK_UNIT_RUNS if quick else UNIT_RUNS)


def _figure(name: str, values: dict[str, list[float]], missing: dict[str, str], note: str) -> Figure:
    targets = (
        Target("under 0.25 s", WITHIN),
        Target("not slower than the shell script", 1.0, SCRIPT),
    )
    series = tuple(Series(who, tuple(took)) for who, took in values.items())
    return Figure("start", name, "s", series, targets, tuple(missing.items()), note)


# -- as a process ----------------------------------------------------------------------------------------


def _process(runs: int) -> Figure:
    values: dict[str, list[float]] = {who: [] for who in (OURS, PYTHON, SCRIPT, SINGLE)}
    bus, words = bed.NO_BUS, ""
    with bed.Bed() as on:
        try:
            bus = on.bus()
        except bed.Unavailable as reason:
            words = f" Without a bus: {reason}."
        scripts = {SCRIPT: on.directory / "together", SINGLE: on.directory / "single"}
        scripts[SCRIPT].write_text(TOGETHER)
        scripts[SINGLE].write_text(ONE_BY_ONE)
        for number in range(-1, runs):
            bed.progress(f"start: {number + 1} of {runs}")
            for who, took in values.items():
                seconds = (
                    _until_ready(on, bus) if who == OURS
                    else _timed("/usr/bin/python3", "-c", "pass") if who == PYTHON
                    else _script(on, scripts[who])
                )  # fmt: skip
                if number >= 0:
                    took.append(seconds)
    return _figure(
        "the process, until it says READY=1", values, {},
        f"{_WHAT}. The script has one `nft` and one `sysctl` for all; one by one, each object has a command "
        f"of its own.{words}",
    )  # fmt: skip


def _until_ready(on: bed.Bed, bus: str) -> float:
    """A daemon on a fresh namespace, with nothing remembered; seconds until it says that it is ready."""
    netns = on.namespace()
    address = str(on.directory / f"{netns}.notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
        told.bind(address)
        told.settimeout(bed.PATIENCE)
        bed.installed()
        began = time.perf_counter()
        daemon = on.daemon(netns, DECLARATION, bus=bus, notify=address)
        while b"READY=1" not in told.recv(4096).split(b"\n"):
            pass
        took = time.perf_counter() - began
    state = daemon.word().get("state")
    if state != "converged":
        raise RuntimeError(f"ready, but {state}: {daemon.log.read_text()[-2000:]}")
    daemon.stop()
    on.remove(netns)
    return took


def _script(on: bed.Bed, script: Path) -> float:
    netns = on.namespace()
    took = _timed("nsenter", f"--net=/run/netns/{netns}", "sh", str(script))
    on.remove(netns)
    return took


def _timed(*command: str) -> float:
    began = time.perf_counter()
    bed.run(*command)
    return time.perf_counter() - began


# -- as a unit -------------------------------------------------------------------------------------------


def _unit(runs: int) -> Figure:
    name = "systemctl start"
    note = (
        f"{_WHAT}. In a Debian {RELEASE} that was booted for it, with linxd out of its package; the others "
        "are units of Type=oneshot in the same kind of namespace."
    )
    try:
        values = _booted(runs)
    except bed.Unavailable as reason:
        return _figure(name, {OURS: []}, {"a booted machine": str(reason)}, note)
    return _figure(name, values, {}, note)


def _booted(runs: int) -> dict[str, list[float]]:
    """Raises Unavailable."""
    try:
        from tests.system import bed as machines
        from tests.system import install
    except ModuleNotFoundError as error:
        raise bed.Unavailable(f"{error.name} is not there") from None
    bed.progress("start: a machine")
    try:
        package = install.package()
        with machines.Machine(RELEASE) as machine:
            install.install(machine, package)
            return _in(machine.do, machine.write, runs)
    except machines.Unavailable as reason:
        raise bed.Unavailable(str(reason)) from None
    finally:
        install.forget()


def _in(do: Callable[..., str], write: Callable[..., None], runs: int) -> dict[str, list[float]]:
    """The units in turn. ``do`` runs a command in the machine, ``write`` writes a file there."""
    units = {
        OURS: "linx-reconcile@{}.service", PYTHON: "bench-pass@{}.service",
        SCRIPT: "bench-together@{}.service", SINGLE: "bench-single@{}.service",
    }  # fmt: skip
    write("/root/together", TOGETHER)
    write("/root/single", ONE_BY_ONE)
    write("/root/timer", _TIMER)
    for who, program in (
        (PYTHON, "/usr/bin/python3 -c pass"),
        (SCRIPT, "/bin/sh /root/together"),
        (SINGLE, "/bin/sh /root/single"),
    ):
        write(f"/etc/systemd/system/{units[who].format('')}", _UNIT.format(program))
    do("systemctl", "daemon-reload")
    values: dict[str, list[float]] = {who: [] for who in units}
    for number in range(-1, runs):
        bed.progress(f"start: {number + 1} of {runs} as a unit")
        for at, (who, took) in enumerate(values.items()):
            name = f"n{number + 1}-{at}"
            unit = units[who].format(name)
            write(f"/etc/linxd/netns/{name}.toml", DECLARATION)
            do("ip", "netns", "add", name)
            do("ip", "-n", name, "link", "set", "lo", "up")
            seconds = float(do("/usr/bin/python3", "/root/timer", unit))
            if who == OURS:
                do("linxctl", "diff", name)
                do("systemctl", "stop", unit)
            do("ip", "netns", "del", name)
            do("rm", f"/etc/linxd/netns/{name}.toml")
            if number >= 0:
                took.append(seconds)
    return values
