# SPDX-License-Identifier: MIT
"""Containers in a machine, started as their managers do: alone, with the scope pulled in, or left to be
found; and what there is of a scope while they live and after.

It declares nothing: what a container's network is to be is for the tests.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence

from tests.system.bed import Machine
from tests.system.follow import PATIENCE, Journal

ATTACH = r"""
[[attach]]
unit = "found-(?P<name>.+)\\.(scope|service)"
scope = "{name}"

[[attach]]
unit = "machine-(?P<name>found.+)\\.scope"
scope = "{name}"
"""
"""What linxd.service starts scopes with; others have to be pulled in."""
LIVES = ("sleep", "infinity")


def unit_of(name: str) -> str:
    return f"linx-reconcile@{name}.service"


def pulling(name: str) -> tuple[str, ...]:
    """Properties of a container's scope with which it brings its network's unit along."""
    return (f"--property=Wants={unit_of(name)}", f"--property=PropagatesStopTo={unit_of(name)}")


class Box:
    """A container: processes in a scope, with a network namespace of their own unless ``inside`` says how
    they come into another one. Killed when left."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        *,
        unit: str = "",
        properties: Sequence[str] = (),
        payload: Sequence[str] = LIVES,
        inside: Sequence[str] = ("unshare", "--net"),
    ) -> None:
        self.machine = machine
        self.name = name
        self.unit = unit or f"found-{name}.scope"
        command = (
            "systemd-run",
            "--quiet",
            "--scope",
            f"--unit={self.unit}",
            *properties,
            *inside,
            *payload,
        )
        self._process = machine.start(*command)

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.run("systemctl", "kill", "--signal=KILL", self.unit)
        self.machine.end(self._process)

    @property
    def pid(self) -> str:
        """The payload's, as the machine counts."""
        return payload_of(self.machine, self.unit)

    def ip(self, *words: str) -> str:
        """`ip` in the container's network."""
        return self.machine.do("nsenter", "-t", self.pid, "-n", "ip", *words)

    def stop(self) -> None:
        """As its manager does."""
        self.machine.do("systemctl", "stop", self.unit)

    def kill(self) -> None:
        """As nobody should."""
        for pid in self.machine.do("sh", "-c", _PROCESSES, "sh", self.unit).split():
            self.machine.run("kill", "-KILL", pid)

    def ended(self) -> None:
        """Wait for the end of its processes."""
        self._process.wait(PATIENCE)


class Nspawn(Box):
    """The same by systemd-nspawn and systemd-machined, with the machine's own /usr."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        *,
        properties: Sequence[str] = (),
        payload: Sequence[str] = LIVES,
    ) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"machine-{name}.scope"
        self._root = f"/var/tmp/box-{name}"
        machine.do("sh", "-c", _ROOT, "sh", self._root)
        options = ("--quiet", f"--machine={name}", f"--directory={self._root}", "--bind-ro=/usr")
        network = ("--private-network", "--link-journal=no")
        self._process = machine.start("systemd-nspawn", *options, *network, *properties, *payload)

    def __exit__(self, *how: object) -> None:
        super().__exit__(*how)
        self.machine.run("rm", "-rf", "--one-file-system", self._root)


_PROCESSES = """
path=$(systemctl show -P ControlGroup "$1")
[ -n "$path" ] || exit 1
for root in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
  [ ! -d "$root$path" ] || { find "$root$path" -name cgroup.procs -exec cat {} + | sort -n; exit; }
done
"""
_ROOT = """
mkdir -p "$1" && cd "$1" && mkdir -p usr etc proc sys dev tmp run root var
for one in bin sbin lib lib64; do
  if [ -L "/$one" ]; then ln -sfn "$(readlink "/$one")" "$one"; fi
done
touch etc/os-release
"""


def payload_of(machine: Machine, unit: str) -> str:
    """The first process of a unit that is not in the machine's network namespace."""
    script = 'for pid in $(%s); do [ "$(readlink /proc/$pid/ns/net)" = "$2" ] || echo $pid; done'
    host = machine.do("readlink", "/proc/1/ns/net").strip()
    found = machine.do("sh", "-c", script % _PROCESSES, "sh", unit, host).split()
    assert found, f"{unit} has no process in another network namespace"
    return found[0]


def eventually(look: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Look until it is so; what has not come to be after a long while won't."""
    end = time.monotonic() + seconds
    while True:
        try:
            look()
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(seconds / 600)


def state(machine: Machine, unit: str, name: str = "ActiveState") -> str:
    return machine.do("systemctl", "show", "-P", name, unit).strip()


def is_up(machine: Machine, name: str) -> None:
    """Fails unless the scope runs and is as declared."""
    assert state(machine, unit_of(name)) == "active"
    assert state(machine, unit_of(name), "StatusText").startswith("converged: ")


def is_gone(machine: Machine, name: str) -> None:
    """Fails unless nothing is left of a scope: neither unit nor process nor socket nor link."""
    units = machine.do("systemctl", "list-units", "--all", "--plain", "--no-legend", f"linx-*@{name}.*")
    assert [line for line in units.splitlines() if " inactive " not in line] == []
    assert machine.run("pgrep", "-f", f"(scope|netns-link) {name}$").stdout == ""
    assert machine.run("readlink", f"/run/linxd-netns/{name}").stdout == ""
    assert machine.run("ls", f"/run/linxd-state/{name}/control").returncode != 0
    assert machine.run("ip", "link", "show", host_end(name)).returncode != 0


def host_end(name: str) -> str:
    """What the host's end of a container's link is called here."""
    return f"{name}-eth0"


def address(number: int) -> str:
    return f"10.7.{number >> 8}.{number & 255}"


def declared(name: str, *, netns: str = "", number: int = 1, bridge: str = "br0") -> str:
    """The file of a container with one link to the host's bridge."""
    where = f'[scope]\nnetns = "{netns}"\n' if netns else ""
    peer = f'peer = {{ name = "{host_end(name)}", scope = "host", master = "{bridge}" }}'
    return (
        f'{where}[link.eth0]\nkind = "veth"\n{peer}\naddresses = ["{address(number)}/16"]\n'
        "[link.lo]\nup = true\n"
    )


def declare(machine: Machine, name: str, *, netns: str = "", number: int = 1, bridge: str = "br0") -> None:
    """Write that file."""
    text = declared(name, netns=netns, number=number, bridge=bridge)
    machine.write(f"/run/linxd/netns/{name}.toml", text)


def declare_all(machine: Machine, names: Sequence[str]) -> None:
    """The same for many at once, whose units linxd.service finds."""
    files = {
        f"/run/linxd/netns/{name}.toml": declared(name, netns=f"unit:found-{name}.scope", number=number)
        for number, name in enumerate(names, 1)
    }
    machine.do("python3", "-c", _WRITE, stdin=json.dumps(files))


_WRITE = """
import json, sys
for path, text in json.load(sys.stdin).items():
    with open(path, "w") as file:
        file.write(text)
"""


@contextlib.contextmanager
def host(machine: Machine, text: str = "") -> Iterator[None]:
    """The host's scope with a bridge, and with what else is declared."""
    machine.write(
        "/run/linxd/host.toml",
        '[link.br0]\nkind = "bridge"\naddresses = ["10.7.255.254/16"]\n' + text,
    )
    machine.do("systemctl", "start", "linxd.service")
    try:
        yield
    finally:
        machine.do("rm", "-f", "/run/linxd/host.toml", "/run/linxd-state/host/attach.json")
        machine.run("linxctl", "release", "host")
        machine.run("systemctl", "stop", "linxd.service")
        machine.run("ip", "link", "delete", "br0")


def started(journal: Journal, name: str) -> None:
    journal.of(unit_of(name), "^Started ")


def stopped(journal: Journal, name: str) -> None:
    journal.of(unit_of(name), "Deactivated successfully")
