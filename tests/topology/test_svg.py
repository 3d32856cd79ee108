# SPDX-License-Identifier: MIT
"""The drawing: it is XML, everything is in it, and nothing lies over anything else."""

from __future__ import annotations

import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from linxd.topology import Picture, Place, Scope, Seen, put_together, svg
from linxd.topology.layout import Box, Panel, lay_out
from tests.topology.things import (
    HOSTILE,
    Kept,
    Link,
    LinkRef,
    desired,
    host_and_web,
    lines_run,
    lo,
    seen,
    v4,
    veth,
)

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture: Picture) -> ElementTree.Element:
    """The drawing, read again."""
    text = "\n".join(svg(picture)) + "\n"
    assert text.isascii()
    return ElementTree.fromstring(text)


def texts(root: ElementTree.Element) -> list[str]:
    """All that can be read in it."""
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def many(count: int) -> Picture:
    """A bridge with containers, a second bridge and stacked links in each."""
    links = [seen(2, "br0", "bridge"), seen(3, "eth0")]
    places, scopes = [], []
    for n in range(count):
        links.append(seen(10 + n, f"v{n}", "veth", master=2, link=2, nsid=n))
        inside = (
            lo(),
            seen(2, "eth0", "veth", link=10 + n, nsid=0),
            seen(3, "br", "bridge"),
            seen(4, "port", master=3),
            seen(5, "mac", "macvlan", link=4),
        )
        places.append(Place(f"c{n}", inside, (v4(2, "10.0.0.7", 24),), {0: "host"}))
        scopes.append(
            Scope(
                f"c{n}",
                "converged",
                True,
                desired(veth("eth0", f"v{n}"), Link("gone", "macvlan", parent=LinkRef("eth0", "host"))),
                "done",
                links={"eth0": Kept("contended", "again and " * 20)} if n % 3 == 0 else {},
            )
        )
    host = Place("host", tuple(links), (), {n: f"c{n}" for n in range(count)})
    return put_together(Seen((host, *places), tuple(scopes), ("a note", "another one")))


def test_everything_is_in_it() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    picture = put_together(Seen((host, web), (keeps_host, keeps_web, Scope("empty", "-")), ("not all",)))
    root = drawn(picture)
    found = texts(root)
    for text in (
        "host",
        "converged",
        "br0",
        "10.20.0.1/24",
        "web0",
        "veth, up, web",
        "eth0",
        "empty",
        "note: not all",
    ):
        assert text in found
    assert [path.get("class") for path in root.iter(f"{SVG}path")] == ["port", "pair"]
    assert len(list(root.iter(f"{SVG}g"))) == len(picture.nodes)


def test_what_is_wrong_shows() -> None:
    root = drawn(many(1))
    looks = {group.get("class") for group in root.iter(f"{SVG}g")}
    assert {"link bad", "link foreign", "link bad absent"} <= looks
    assert any(text.startswith("contended: again") for text in texts(root))


def test_nothing_lies_over_anything_else() -> None:
    layout = lay_out(many(12))
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        assert apart(one, other)
    for first, second in itertools.combinations(layout.panels, 2):
        assert apart(first, second)
    panels = {panel.place: panel for panel in layout.panels}
    for box in layout.boxes.values():
        panel = panels[box.node.place]
        assert panel.x < box.x
        assert box.x + box.width < panel.x + panel.width
        assert panel.y < box.y
        assert box.y + box.height < panel.y + panel.height
    for panel in layout.panels:
        assert panel.x + panel.width < layout.width
        assert panel.y + panel.height < layout.height


def apart(one: Box | Panel, other: Box | Panel) -> bool:
    """Whether two rectangles have nothing in common."""
    return (
        one.x + one.width < other.x
        or other.x + other.width < one.x
        or one.y + one.height < other.y
        or other.y + other.height < one.y
    )


def test_containers_stand_in_the_order_of_what_they_hang_on() -> None:
    layout = lay_out(many(12))
    assert [panel.place for panel in layout.panels] == ["host", *(f"c{n}" for n in range(12))]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    scope = Scope(name, name, True, desired(Link(name, "bridge")), name, links={name: Kept("failed", name)})
    place = Place(name, (seen(2, name, name), seen(3, "p", master=2, link=9, nsid=1)), (), {1: name})
    root = drawn(put_together(Seen((place,), (scope,), (name,))))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "style", "rect", "path", "g", "text"),
    }
    assert all(text.isprintable() for text in texts(root))
    shown = name if name.isprintable() else name.encode("unicode_escape").decode()
    assert shown in texts(root)


def test_cables_between_containers_and_within_one_without_a_host() -> None:
    a = Place(
        "a",
        (
            seen(2, "x", "veth", link=2, nsid=0, master=3),
            seen(3, "br", "bridge"),
            seen(4, "k", "macvlan", link=5, master=3),
            seen(5, "eth0"),
        ),
        (),
        {0: "b"},
    )
    b = Place("b", (seen(2, "y", "veth", link=2, nsid=7),), (), {7: "a"})
    picture = put_together(Seen((a, b)))
    classes = [path.get("class") for path in drawn(picture).iter(f"{SVG}path")]
    assert sorted(map(str, classes)) == ["pair", "port", "port", "stacked"]
    assert drawn(Picture()).tag == f"{SVG}svg"


def test_the_same_picture_gives_the_same_file() -> None:
    host, web, keeps_host, keeps_web = host_and_web()
    one = put_together(Seen((host, web), (keeps_host, keeps_web)))
    other = put_together(
        Seen((web, dataclasses.replace(host, links=host.links[::-1])), (keeps_web, keeps_host))
    )
    assert list(svg(one)) == list(svg(other))


def test_a_thousand_links_cost_in_proportion() -> None:
    def cost(count: int) -> int:
        picture = many(count)

        def draw() -> None:
            assert sum(line.startswith("<g ") for line in svg(picture)) == len(picture.nodes)

        return lines_run(draw)

    # What is quadratic in any step runs a hundred times as many lines.
    assert cost(200) < 11 * cost(20)
