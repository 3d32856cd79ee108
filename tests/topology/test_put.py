# SPDX-License-Identifier: MIT
"""From what was seen to the picture, and from the picture to a tree, JSON and dot."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess

import pytest

from linxd.topology import (
    Picture,
    Place,
    Relation,
    Scope,
    Seen,
    as_json,
    dot,
    from_json,
    put_together,
    rows,
)
from tests.topology.things import (
    DOWN,
    HOSTILE,
    NO_CARRIER,
    Kept,
    Link,
    LinkRef,
    desired,
    host_and_web,
    lines_run,
    lo,
    seen,
    veth,
)


def picture(*places: Place, scopes: tuple[Scope, ...] = ()) -> Picture:
    """Put together, and the same again out of its JSON."""
    made = put_together(Seen(places, scopes))
    assert from_json(json.loads(json.dumps(as_json(made)))) == made
    return made


def tree(made: Picture, *, ascii: bool = True) -> list[str]:
    """Its lines, columns one blank apart."""
    return [
        " ".join(filter(None, (row.stem + row.name, row.kind, row.link, row.keeper, row.said)))
        for row in rows(made, ascii=ascii)
    ]


def test_a_containers_link_hangs_on_the_hosts_bridge() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    made = picture(host, web, scopes=(keeps_host, keeps_web))
    assert tree(made, ascii=False) == [
        "host converged",
        "└─ br0 bridge up host 10.20.0.1/24",
        "   └─ web0 veth up web",
        "      └─ web:eth0 veth up web 10.20.0.2/24",
        "web converged",
        "└─ lo loopback up web",
    ]
    assert [(edge.below, edge.above, edge.relation) for edge in made.edges] == [
        ("host/web0", "host/br0", Relation.PORT),
        ("web/eth0", "host/web0", Relation.PAIR),
    ]
    # Whatever the order in which it was looked at.
    assert picture(web, host, scopes=(keeps_web, keeps_host)) == made


def test_what_nobody_declares_is_foreign_and_loopbacks_are_left_out() -> None:
    host = Place("host", (lo(), seen(2, "eth0", flags=DOWN), seen(3, "eth10"), seen(4, "eth9")))
    made = picture(host)
    assert tree(made) == [
        "host nothing is declared",
        "|- eth0 ethernet down foreign",
        "|- eth9 ethernet up foreign",
        "`- eth10 ethernet up foreign",
    ]
    assert all(node.foreign and node.well for node in made.nodes)


def test_what_is_missing_hangs_where_it_belongs() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    host, web = dataclasses.replace(host, links=host.links[:2]), dataclasses.replace(web, links=(lo(),))
    keeps_web = dataclasses.replace(
        keeps_web, state="degraded", links={"eth0": Kept("pending", "needs link host:br9")}
    )
    made = picture(host, web, scopes=(keeps_host, keeps_web))
    assert tree(made) == [
        "host converged",
        "`- br0 bridge up host 10.20.0.1/24",
        "   `- web0 veth missing web pending: needs link host:br9",
        "      `- web:eth0 veth missing web pending: needs link host:br9",
        "web degraded",
        "`- lo loopback up web",
    ]
    assert not any(node.well for node in made.nodes if node.link == "missing")


def test_where_nobody_could_look_is_as_declared() -> None:
    host, _, keeps_host, keeps_web = host_and_web()
    declared = keeps_web.desired
    assert declared is not None
    keeps_web = dataclasses.replace(
        keeps_web,
        desired=desired(*declared.links.values(), addresses=(("eth0", "10.20.0.2", 24),)),
    )
    made = picture(host, scopes=(keeps_host, keeps_web))
    assert tree(made) == [
        "host converged",
        "`- br0 bridge up host 10.20.0.1/24",
        "   `- web0 veth up web",
        "      `- web:eth0 veth not seen web 10.20.0.2/24",
        "web converged",
        "`- lo - not seen web",
    ]


def test_the_end_of_a_cable_that_nobody_could_look_at_is_named() -> None:
    host, *_ = host_and_web()
    assert "      web0 veth up foreign other end: if2 in namespace web" in [
        line.replace("`- ", "   ") for line in tree(picture(host))
    ]
    unknown = dataclasses.replace(host, namespaces={})
    assert "other end: if2 in namespace 0" in tree(picture(unknown))[-1]
    none = Place("host", (seen(3, "web0", "veth", link=2, nsid=-1),))
    assert "other end: if2 in another namespace" in tree(picture(none))[-1]


def test_a_link_of_the_same_name_that_somebody_else_made_is_foreign() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    impostor = seen(3, "web0", "bridge")
    host = dataclasses.replace(host, links=(*host.links[:2], impostor))
    web = dataclasses.replace(web, links=(lo(),))
    made = picture(host, web, scopes=(keeps_host, keeps_web))
    found = {node.id: node for node in made.nodes}
    assert found["host/web0"].foreign
    assert found["web/eth0"].link == "missing"


def test_stacks_and_ports_and_what_is_both() -> None:
    host = Place(
        "host",
        (
            seen(2, "eth0"),
            seen(3, "mac0", "macvlan", link=2),
            seen(4, "mac1", "macvlan", link=3, flags=NO_CARRIER),
            seen(5, "br0", "bridge"),
            seen(6, "mac2", "macvlan", link=2, master=5),
        ),
    )
    assert tree(picture(host)) == [
        "host nothing is declared",
        "|- br0 bridge up foreign",
        "|  `- mac2 macvlan up foreign on eth0",
        "`- eth0 ethernet up foreign",
        "   `- mac0 macvlan up foreign",
        "      `- mac1 macvlan no carrier foreign",
    ]


def test_a_containers_link_is_stacked_on_the_hosts() -> None:
    host = Place("host", (seen(2, "eth0"),), (), {4: "c1"})
    c1 = Place("c1", (seen(2, "eth0", "macvlan", link=2, nsid=0),), (), {0: "host"})
    scope = Scope("c1", "converged", True, desired(Link("eth0", "macvlan", parent=LinkRef("eth0", "host"))))
    assert tree(picture(host, c1, scopes=(scope,)))[1:] == [
        "`- eth0 ethernet up foreign",
        "   `- c1:eth0 macvlan up c1",
        "c1 converged",
    ]
    # The same index here and there is no ring, and what lies elsewhere is no link of here.
    away = Place("c1", c1.links)
    assert tree(picture(host, away))[-1] == "`- eth0 macvlan up foreign on if2 in namespace 0"


def test_both_ends_of_a_cable_in_one_place_and_between_two_containers() -> None:
    one = Place("a", (seen(2, "p0", "veth", link=3), seen(3, "p1", "veth", link=2)))
    assert tree(picture(one)) == [
        "a nothing is declared",
        "`- p0 veth up foreign",
        "   `- p1 veth up foreign",
    ]
    a = Place("a", (seen(2, "x", "veth", link=2, nsid=0, master=3), seen(3, "br", "bridge")), (), {0: "b"})
    b = Place("b", (seen(2, "y", "veth", link=2, nsid=7, master=3), seen(3, "br", "bridge")), (), {7: "a"})
    made = picture(a, b)
    assert tree(made) == [
        "a nothing is declared",
        "`- br bridge up foreign",
        "   `- x veth up foreign other end: b:y",
        "b nothing is declared",
        "`- br bridge up foreign",
        "   `- y veth up foreign other end: a:x",
    ]
    assert [edge.hangs for edge in made.edges if edge.relation is Relation.PAIR] == [False]


def test_rings_are_cut_and_nothing_is_lost() -> None:
    # Read at different moments, anything may seem to hang on anything.
    ring = Place("host", tuple(seen(n, f"r{n}", "macvlan", link=n % 5 + 1) for n in range(1, 6)))
    made = picture(ring)
    assert len(tree(made)) == 1 + 5
    assert len([edge for edge in made.edges if not edge.hangs]) == 1
    a = Place("a", (seen(2, "x", "macvlan", link=2, nsid=0),), (), {0: "b"})
    b = Place("b", (seen(2, "y", "macvlan", link=2, nsid=0),), (), {0: "a"})
    assert len(tree(picture(a, b))) == 2 + 2


def test_ends_that_do_not_name_each_other_are_no_cable() -> None:
    host = Place("host", (seen(2, "a", "veth", link=3), seen(3, "b", "veth", link=9)))
    assert picture(host).edges == ()


def test_a_vlan_or_vxlan_is_told_from_its_like() -> None:
    info = b"\x08\x00\x01\x00\x2a\x00\x00\x00"  # IFLA_VXLAN_ID
    msg = seen(2, "vx", "vxlan")._replace(info_data=info)
    assert picture(Place("host", (msg,))).nodes[0].kind == "vxlan 42"
    broken = msg._replace(info_data=b"\x08\x00\x01")
    assert picture(Place("host", (broken,))).nodes[0].kind == "vxlan"


def test_left_over_from_a_former_declaration() -> None:
    host = Place("host", (seen(2, "br0", "bridge"), seen(3, "br1", "bridge")))
    scope = Scope("host", "-", False, desired(), "done", owned=frozenset({"br0"}))
    assert tree(picture(host, scopes=(scope,))) == [
        "host not served by a daemon",
        "|- br0 bridge up host undeclared",
        "`- br1 bridge up foreign",
    ]


def test_two_scopes_in_one_namespace() -> None:
    host, web, _, keeps_web = host_and_web()
    other = Scope("second", "-", False, desired(Link("lo", up=True), Link("br7", "bridge")), place="web")
    found = {node.id: node for node in picture(host, web, scopes=(keeps_web, other)).nodes}
    assert found["web/br7"].scope == "second"
    assert found["web/br7"].link == "missing"


def test_a_part_has_what_it_hangs_on_and_both_ends_of_its_cables() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    host = dataclasses.replace(host, links=(*host.links, seen(9, "eth7"), seen(10, "p", master=2)))
    made = picture(host, web, scopes=(keeps_host, keeps_web, Scope("other", "-")))
    part = made.part(["web"])
    assert [node.id for node in part.nodes] == ["host/br0", "host/web0", "web/eth0", "web/lo"]
    assert [sign.name for sign in part.scopes] == ["host", "web"]
    assert len(part.edges) == 2
    assert [node.id for node in made.part(["host"]).nodes] == [
        *(f"host/{name}" for name in ("br0", "eth7", "p", "web0")),
        "web/eth0",
    ]
    assert made.part(["host", "web", "other"]) == made
    assert made.part(["other"]).nodes == ()


def test_hostile_names_stay_names() -> None:
    links = tuple(seen(number, name, "bridge") for number, name in enumerate(HOSTILE, 2))
    ports = tuple(seen(90 + n, f"p{n}", master=n) for n in range(2, 2 + len(HOSTILE)))
    scopes = (Scope("host", 'dead" \\', False, desired(Link(HOSTILE[0], "bridge")), "bad\n\x1b[31m"),)
    made = picture(Place("host", links + ports), scopes=scopes)
    for line in tree(made, ascii=False):
        assert line.isprintable()
    text = "\n".join(dot(made))
    assert all(character.isprintable() or character == "\n" for character in text)
    _accepted(text, len(made.nodes))


def test_dot_is_accepted_by_graphviz() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    made = picture(host, web, scopes=(keeps_host, keeps_web, Scope("empty", "-")))
    text = "\n".join(dot(made))
    assert '    n1 [label="web0\\nveth, up, web"];' in text.splitlines()
    assert "  n0 -- n1 [style=solid];" in text.splitlines()
    assert "  n1 -- n2 [style=bold];" in text.splitlines()
    assert text.count("subgraph") == 3
    _accepted(text, len(made.nodes) + 1)


def _accepted(text: str, nodes: int) -> None:
    assert text.count("{") == text.count("}") or any("{" in name for name in HOSTILE)
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed: whether it takes this is not tried")
    done = subprocess.run(
        ["dot", "-Tplain"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(line.startswith("node ") for line in done.stdout.replace("\\\n", "").splitlines()) == nodes


@pytest.mark.parametrize(
    "spoil",
    [
        lambda form: form.update(version=2),
        lambda form: form.pop("links"),
        lambda form: form["links"][0].pop("id"),
        lambda form: form["edges"][0].update(relation="friend"),
        lambda form: form["scopes"][0].pop("state"),
        lambda form: form["links"][0].update(addresses=None),
        lambda form: form["edges"][0].update(above="host/nobody"),
    ],
)
def test_what_is_no_picture_is_refused(spoil: object) -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    form = as_json(picture(host, web, scopes=(keeps_host, keeps_web)))
    assert callable(spoil)
    spoil(form)
    with pytest.raises(ValueError, match=r"not a picture|version is 2, want 1"):
        from_json(form)


def test_what_a_later_version_adds_is_passed_over() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    made = picture(host, web, scopes=(keeps_host, keeps_web))
    form = as_json(made)
    for part in (form, form["links"][0], form["edges"][0], form["scopes"][0]):
        part["colour"] = "blue"
    assert from_json(form) == made


def test_a_thousand_containers_cost_in_proportion() -> None:
    def cost(count: int) -> int:
        links = [seen(1, "br0", "bridge")]
        places, scopes = [], []
        for n in range(count):
            links.append(seen(n + 2, f"v{n}", "veth", master=1, link=2, nsid=n))
            places.append(
                Place(f"c{n}", (lo(), seen(2, "eth0", "veth", link=n + 2, nsid=0)), (), {0: "host"})
            )
            scopes.append(Scope(f"c{n}", "converged", True, desired(veth("eth0", f"v{n}")), "done"))
        host = Place("host", tuple(links), (), {n: f"c{n}" for n in range(count)})

        def all_of_it() -> None:
            made = put_together(Seen((host, *places), tuple(scopes)))
            assert len(list(rows(made, ascii=False))) == 2 + 3 * count
            assert len(list(dot(made))) > 4 * count
            assert as_json(made)

        return lines_run(all_of_it)

    # What is quadratic in any step runs a hundred times as many lines.
    assert cost(1000) < 11 * cost(100)
