# SPDX-License-Identifier: MIT
"""From what was seen to the picture, and from the picture to a tree, JSON and dot."""

from __future__ import annotations

import json

from linxd.topology import Picture, Place, Relation, Scope, Seen, as_json, from_json, put_together, rows
from tests.topology.things import (
    host_and_web,
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
