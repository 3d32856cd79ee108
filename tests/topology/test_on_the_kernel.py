# SPDX-License-Identifier: MIT
"""`linxctl topology` as a person would use it, on the kernel: a host, a container, and what befalls them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.topology.machine import NOBODY, Machine, until

HOST = """
[link.br0]
kind = "bridge"
addresses = ["10.20.0.1/24"]
"""
WEB = """
[link.lo]
up = true

[link.eth0]
kind = "veth"
peer = { name = "web0", scope = "host", master = "br0" }
addresses = ["10.20.0.2/24", "fd00::2/64"]
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A host with a container, and nothing done yet."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")
    with Machine() as machine:
        machine("ip", "netns", "add", "web")
        machine.declare("host", HOST)
        machine.declare("web", WEB)
        yield machine


def network(machine: Machine) -> str:
    """What there is, without what changes by itself."""
    return "".join(
        machine("ip", *way, "-br", what) for way in ((), ("-n", "web")) for what in ("link", "addr")
    )


def lines(text: str) -> list[str]:
    """Columns one blank apart."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_from_nothing_to_declared_and_broken_without_a_daemon(machine: Machine) -> None:
    assert lines(machine.linxctl("topology")) == [
        "host: not served by a daemon",
        "└─ br0 bridge missing host",
        "└─ web0 veth missing web",
        "└─ web:eth0 veth missing web",
        "web: not served by a daemon",
        "└─ lo loopback down web drifted: state down -> up",
    ]
    assert not (machine.run / "linxd-state").exists()
    machine.linxctl("apply", "--once", "--scope", "host")
    machine.linxctl("apply", "--once", "--scope", "web")
    assert lines(machine.linxctl("topology")) == [
        "host: not served by a daemon",
        "└─ br0 bridge up host 10.20.0.1/24",
        "└─ web0 veth up web",
        "└─ web:eth0 veth up web 10.20.0.2/24 fd00::2/64",
        "web: not served by a daemon",
        "└─ lo loopback up web 127.0.0.1/8 ::1/128",
    ]
    before = network(machine)
    links = machine.links()
    assert links["web/eth0"]["owned"] is links["host/web0"]["owned"] is links["host/br0"]["owned"] is True
    assert links["web/lo"]["owned"] is False
    machine.ip("link set web0 nomaster", "-n web link set eth0 down", "link add br9 type bridge")
    assert lines(machine.linxctl("topology", "web")) == [
        "host: not served by a daemon",
        "└─ web0 veth no carrier web drifted: peer.master br0, state down -> up",
        "└─ web:eth0 veth down web 10.20.0.2/24; drifted: peer.master br0, state down -> up",
        "web: not served by a daemon",
        "└─ lo loopback up web 127.0.0.1/8 ::1/128",
    ]
    assert machine.links()["host/br9"]["scope"] is None
    machine.ip("link del br9")
    machine.linxctl("apply", "--once", "--scope", "web")
    # All the looking has changed nothing.
    assert network(machine) == before


def test_with_daemons_what_is_contended_and_what_is_left_alone(machine: Machine) -> None:
    with machine.daemon("host"), machine.daemon("web"):
        assert lines(machine.linxctl("topology"))[0] == "host: converged"
        machine.linxctl("pause", "web", "link", "eth0")
        machine.ip("link set web0 nomaster")
        broken = until(lambda: machine.links()["web/eth0"], lambda link: link["state"] == "pending")
        assert "has drifted" in broken["why"]
        assert machine.links()["host/web0"]["state"] == "pending"
        machine.linxctl("resume", "web", "link", "eth0")
        until(machine.links, lambda links: links["web/eth0"]["state"] == "done")
        for mtu in range(1280, 1400):
            machine.ip(f"-n web link set eth0 down mtu {mtu}")
            if mtu % 8 == 7 and "contended" in (machine.run / "linxd-state/web/status.json").read_text():
                break
        found = until(machine.links, lambda links: links["web/eth0"]["state"] == "contended")
        assert found["web/eth0"]["why"]
        assert "web: contended" in machine.linxctl("topology")
    assert "not served by a daemon" in machine.linxctl("topology")


def test_a_conflict_and_a_link_left_over(machine: Machine) -> None:
    machine.linxctl("apply", "--once", "--scope", "host")
    machine.ip("link add br1 type ifb")
    machine.declare("host", '[link.br1]\nkind = "bridge"\n')
    links = machine.links()
    assert links["host/br1"]["state"] == "conflict"
    assert links["host/br1"]["kind"] == "ifb"
    assert links["host/br0"]["state"] == "undeclared"
    assert links["host/br0"]["owned"] is True


def test_whom_nobody_let_in_sees_what_is_declared(machine: Machine) -> None:
    machine.linxctl("apply", "--once", "--scope", "host")
    with machine.daemon("web"):
        # There are the right to look at the host's links, and the right to read files.
        text = lines(machine.linxctl("topology", uid=NOBODY))
    assert "└─ br0 bridge up host 10.20.0.1/24" in text
    assert "└─ web:eth0 veth not seen web 10.20.0.2/24 fd00::2/64" in text
    assert "note: only root can look into web: shown as far as it is declared" in text
    assert any(line.startswith("note: which links are as declared is not known of web") for line in text)
    (machine.run / "linxd/netns/web.toml").chmod(0o640)
    text = lines(machine.linxctl("topology", uid=NOBODY))
    assert any(line.startswith("└─ web0 veth up foreign other end: if") for line in text)
    assert any(line.endswith("in namespace web") for line in text)
    assert any(line.startswith("note: web: what is declared can't be shown: ") for line in text)


def test_macvlans_of_containers_hang_on_the_hosts_link_and_cables_between_containers(
    machine: Machine,
) -> None:
    machine.ip("netns add two", "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up")
    machine.declare("two", '[link.m]\nkind = "macvlan"\nmode = "bridge"\nparent = "host:up0"\n')
    machine.linxctl("apply", "--once", "--scope", "two")
    machine.ip("-n two link add x type veth peer name y netns web", "netns add three")
    machine.ip("-n two link add z type veth peer name z netns three")
    assert lines(machine.linxctl("topology", "two")) == [
        "host: not served by a daemon",
        "└─ up0 veth up foreign",
        "├─ up1 veth up foreign",
        "└─ two:m macvlan bridge up two",
        "two: not served by a daemon",
        "├─ x veth down foreign",
        "│ └─ web:y veth down foreign",
        "└─ z veth down foreign other end: if2 in namespace /run/netns/three",
        "web: not served by a daemon",
    ]


def test_a_namespace_that_is_gone(machine: Machine) -> None:
    machine.linxctl("apply", "--once", "--scope", "host")
    machine("ip", "netns", "delete", "web")
    text = lines(machine.linxctl("topology"))
    assert "└─ web:eth0 veth missing web" in text
    assert "note: web: /run/netns/web is not there" in text


def test_files_of_ones_own_and_daemons_that_read_other_files(machine: Machine) -> None:
    other = machine.run / "web.toml"
    other.write_text('[link.d0]\nkind = "bridge"\n')
    assert machine.links("--file", "/run/web.toml")["web/d0"]["link"] == "missing"
    with machine.daemon("web", "/run/web.toml"):
        links = machine.links()
        assert links["web/d0"]["state"] == "done"
        assert "web/eth0" not in links
    other.write_text("[link.d0]\nkin = 3\n")
    assert "unknown key" in machine.linxctl("topology", "--file", "/run/web.toml", rc=2)
    (machine.run / "linxd/netns/web.toml").write_text("[link")
    assert "note: web: what is declared can't be shown: /run/linxd/netns/web.toml:1" in machine.linxctl(
        "topology"
    )
    assert "there is no scope nope" in machine.linxctl("topology", "nope", rc=2)


def test_names_that_the_kernel_takes(machine: Machine) -> None:
    names = ('a"b', "a\\nb", "<svg>", "&amp;", "]]>", "ü€漢", "\x1b[31m", "{|}")
    for name in names:
        machine("ip", "link", "add", name, "type", "bridge")
    assert {link["name"] for link in machine.links().values()} >= set(names)
    text = machine.linxctl("topology")
    assert "ü€漢" in text
    assert all(line.isprintable() for line in text.splitlines())
    text = machine.linxctl("topology", env=("PYTHONIOENCODING=ascii",))
    assert text.isascii()
    assert "`- lo" in text
    assert r"\xfc\u20ac\u6f22" in text
    assert machine.linxctl("topology", "--dot", env=("PYTHONIOENCODING=ascii",)).isascii()


def test_json_is_one_document_and_stays_the_same(machine: Machine) -> None:
    machine.linxctl("apply", "--once", "--scope", "host")
    machine.linxctl("apply", "--once", "--scope", "web")
    text = machine.linxctl("topology", "--json")
    assert text == machine.linxctl("topology", "--json")
    form = json.loads(text)
    assert form["version"] == 1
    assert [scope["name"] for scope in form["scopes"]] == ["host", "web"]
    assert [edge["relation"] for edge in form["edges"]] == ["port", "pair"]
    assert form["notes"] == []
