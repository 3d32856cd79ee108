# SPDX-License-Identifier: MIT
"""The two rules between scopes: the host never depends on a container, and references go one way."""

from __future__ import annotations

import pytest

from tests.config.tree import Tree

C1 = '[link.veth0]\nkind = "veth"\npeer = { name = "c1-veth0", scope = "host", master = "br0" }\n'
C2 = '[link.veth0]\nkind = "veth"\npeer = { name = "c2-veth0", scope = "host" }\n'


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ('[link.c1-veth0]\nmaster = "br0"\n', "etc/host.toml:1: link.c1-veth0"),
        (
            '[link.x]\nkind = "veth"\npeer = { name = "y", master = "c1-veth0" }\n',
            "etc/host.toml:3: link.x.peer.master",
        ),
        ('[link.b]\nkind = "bond"\nprimary = "c1-veth0"\n', "etc/host.toml:3: link.b.primary"),
        ('[link.eth0]\nmaster = "c1-veth0"\n', "etc/host.toml:2: link.eth0.master"),
        ('[link.mv]\nkind = "macvlan"\nparent = "c1-veth0"\n', "etc/host.toml:3: link.mv.parent"),
        ('[[route]]\nto = "10.0.0.0/8"\ndev = "c1-veth0"\n', "etc/host.toml:3: route[0].dev"),
        (
            '[[route]]\nto = "10.0.0.0/8"\nnexthops = [{ dev = "a" }, { dev = "c1-veth0" }]\n',
            "etc/host.toml:3: route[0].nexthops[1].dev",
        ),
        ('[[rule]]\niif = "c1-veth0"\nfamily = "inet"\ntable = 7\n', "etc/host.toml:2: rule[0].iif"),
        (
            '[[neighbour]]\naddress = "10.0.0.9"\ndev = "c1-veth0"\nproxy = true\n',
            "etc/host.toml:3: neighbour[0].dev",
        ),
        (
            '[sysctl]\n"net.ipv4.conf.c1-veth0.rp_filter" = 1\n',
            'etc/host.toml:2: sysctl."net.ipv4.conf.c1-veth0.rp_filter"',
        ),
    ],
)
def test_a_host_that_names_a_containers_end_has_that_container_refused(
    tree: Tree, host: str, place: str
) -> None:
    tree.write("etc/host.toml", host)
    tree.write("etc/netns/c1.toml", C1)
    (fault,) = tree.faults("c1")
    assert fault.startswith(
        'etc/netns/c1.toml:3:17: link.veth0.peer.name: the host\'s own file names "c1-veth0", which lives '
        "and dies with this scope; what the host declares must not depend on a container"
    )
    assert place in fault.replace(f"{tree.top}/", "")


def test_the_hosts_own_file_is_never_refused_for_it(tree: Tree) -> None:
    tree.write("etc/host.toml", '[link.c1-veth0]\nmaster = "br0"\n')
    tree.write("etc/netns/c1.toml", C1)
    (warning,) = tree.warnings("host")
    assert warning == (
        'etc/host.toml:1:1: warning: link.c1-veth0: link "c1-veth0" lives and dies with scope c1, and what '
        "the host declares must not depend on a container: c1 is refused while this stands here "
        "(etc/netns/c1.toml:3: link.veth0.peer.name)"
    )


def test_a_container_refers_to_the_host(tree: Tree) -> None:
    tree.write("etc/host.toml", '[link.br0]\nkind = "bridge"\n')
    tree.write("etc/netns/c1.toml", C1 + '[link.eth0]\nkind = "macvlan"\nparent = "host:eno1"\n')
    assert tree.warnings("c1") == []
    assert tree.warnings("host") == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[link.eth0]\nkind = "macvlan"\nparent = "host:c1-veth0"\n', "3:10: link.eth0.parent"),
        (C2.replace("}", ', master = "c1-veth0" }'), "3:55: link.veth0.peer.master"),
    ],
)
def test_a_container_never_refers_to_what_is_another_containers(tree: Tree, text: str, place: str) -> None:
    tree.write("etc/netns/c1.toml", C1)
    tree.write("etc/netns/c2.toml", text)
    assert tree.faults("c2") == [
        f'etc/netns/c2.toml:{place}: "c1-veth0" lives and dies with scope c1; references go one way, from a '
        f"container to the host ({tree.top}/etc/netns/c1.toml:3: link.veth0.peer.name)".replace(
            f"{tree.top}/", ""
        )
    ]
    assert tree.warnings("c1") == []


def test_two_scopes_with_the_same_host_end_the_later_name_is_refused(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml", C1)
    tree.write("run/netns/c2.toml", C1.replace("veth0]", "other]"))
    assert tree.faults("c2") == [
        'run/netns/c2.toml:3:17: link.other.peer.name: scope c1 has a host end "c1-veth0" too '
        "(etc/netns/c1.toml:3: link.veth0.peer.name)"
    ]
    assert tree.warnings("c1") == [
        'etc/netns/c1.toml:3:17: warning: link.veth0.peer.name: scope c2 has a host end "c1-veth0" too, and '
        "is refused for it (run/netns/c2.toml:3: link.other.peer.name)"
    ]


@pytest.mark.parametrize("netns", ["/run/netns/c1", "/var/run/netns/c1"])
def test_two_scopes_in_one_namespace_the_later_name_is_refused(tree: Tree, netns: str) -> None:
    tree.write("etc/netns/c1.toml", "[scope]\n")
    tree.write("etc/netns/c2.toml", f'[scope]\nnetns = "{netns}"\n')
    assert tree.faults("c2") == [
        "etc/netns/c2.toml:2:9: scope.netns: scope c1 is in the namespace /run/netns/c1 too "
        "(several containers in one namespace are one scope)"
    ]
    assert len(tree.warnings("c1")) == 1


def test_two_scopes_of_one_unit(tree: Tree) -> None:
    for name in ("c1", "c2"):
        tree.write(f"etc/netns/{name}.toml", '[scope]\nnetns = "unit:machine-x.scope"\n')
    assert "unit:machine-x.scope too" in tree.faults("c2")[0]


def test_drop_ins_of_other_scopes_count(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml", C1)
    tree.write("etc/netns/c1.toml.d/1.toml", '[link.veth0]\npeer = { name = "c2-veth0" }\n')
    tree.write("etc/netns/c2.toml", C2)
    assert "etc/netns/c1.toml.d/1.toml:2: link.veth0.peer.name" in tree.faults("c2")[0]


def test_what_another_file_withdraws_or_masks_does_not_count(tree: Tree) -> None:
    tree.write("etc/host.toml", "[link.c1-veth0]\nmtu = 1500\n")
    tree.write("etc/host.toml.d/1.toml", "[link.c1-veth0]\nabsent = true\n")
    tree.write("etc/netns/c1.toml", C1)
    assert tree.warnings("c1") == []
    tree.write("lib/netns/c0.toml", C1)
    assert tree.faults("c1") != []
    tree.write("etc/netns/c0.toml", "")
    assert tree.warnings("c1") == []


def test_another_scopes_broken_file_is_a_warning_here(tree: Tree) -> None:
    tree.write("etc/host.toml", "[link\n")
    tree.write("etc/netns/c0.toml", "x = 1\n").chmod(0o666)
    tree.write("etc/netns/c1.toml", C1)
    assert [line.partition(": not TOML")[0].partition(" (")[0] for line in tree.warnings("c1")] == [
        "etc/host.toml:1:6: warning",
        "etc/netns/c0.toml: warning: has mode 0666: its group or everybody can write to it",
    ]


def test_another_scopes_nonsense_is_passed_over(tree: Tree) -> None:
    nonsense = (
        'link = 1\nroute = [1, { dev = 2 }, { nexthops = [3, "x"] }]\nneighbour = "x"\nrule = {}\n'
        'sysctl = { "a" = 1, "net.ipv4.conf.c1-veth0.x" = [[]] }\nscope = { netns = [] }\n'
    )
    tree.write("etc/host.toml", nonsense)
    tree.write(
        "etc/netns/c0.toml",
        'link = { a = 1, b = { peer = 1 }, c = { peer = { name = 1, scope = "host" } } }\n',
    )
    tree.write("etc/netns/c1.toml", C1)
    assert 'sysctl."net.ipv4.conf.c1-veth0.x"' in tree.faults("c1")[0]


def test_the_check_can_be_left_out(tree: Tree) -> None:
    tree.write("etc/host.toml", "[link.c1-veth0]\nmtu = 1500\n")
    tree.write("etc/netns/c1.toml", C1)
    assert tree.load("c1", check_others=False).warnings == ()


def test_a_file_given_by_name_is_held_against_the_others_but_not_against_the_one_it_replaces(
    tree: Tree,
) -> None:
    tree.write("etc/netns/c1.toml", C1)
    file = tree.write("mine/c1.toml", C1)
    assert tree.load("c1", file=file).warnings == ()
    tree.write("etc/netns/c0.toml", C1)
    assert len(tree.faults("c1", file=file)) == 1
