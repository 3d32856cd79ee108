# SPDX-License-Identifier: MIT
"""`linxctl topology`: how the links of the host and of all scopes hang together, as a tree, for programs,
or as a drawing.

It chooses and prints; what is seen, and how it is drawn, is known elsewhere.
"""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Iterator

from linxd import statedir
from linxd.cli.once import Trouble
from linxd.cli.output import Subparsers, print_json
from linxd.cli.status import colour
from linxd.cli.survey import survey
from linxd.cli.terminal import BOLD, DIM, RED, YELLOW, Paint, table
from linxd.log import clean
from linxd.topology import Picture, Row, as_json, dot, put_together, rows, svg
from linxd.topology.tree import UNICODE


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "topology",
        help="show how the links of the host and of all scopes hang together",
        description=(
            "Shows all links of the host and of each scope: what is a port of what, what is stacked on what,"
            " which container's link hangs where, who keeps it, and how it stands. Writes nothing. Loopbacks"
            " that nobody declares and link-local IPv6 addresses are left out."
        ),
        epilog="exit codes: 0 done, 2 trouble",
    )
    parser.add_argument(
        "scope",
        metavar="SCOPE",
        nargs="*",
        help="show these, and what they hang on; default: everything",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print for programs")
    form.add_argument("--dot", action="store_true", help="print for Graphviz")
    form.add_argument("--svg", action="store_true", help="print a drawing, for a browser")
    parser.add_argument(
        "--file",
        metavar="FILE",
        action="append",
        default=[],
        help="for the scope of that name, read this file instead of those looked up; may be repeated",
    )
    parser.add_argument("--state-dir", metavar="DIR", help=f"where state is kept (default: {statedir.ROOT})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    picture = put_together(survey(statedir.root(options.state_dir), options.file))
    if options.scope:
        there = set(picture.places())
        for name in options.scope:
            if name not in there:
                raise Trouble(f"there is no scope {name}: it has no file and no daemon")
        picture = picture.part(options.scope)
    if options.json:
        print_json(as_json(picture))
    elif options.dot or options.svg:
        for line in svg(picture) if options.svg else dot(picture):
            print(line)
    else:
        encoding = _encoding()
        for line in _tree(picture, Paint(sys.stdout), ascii=not _writes(UNICODE, encoding)):
            print(line.encode(encoding, "backslashreplace").decode(encoding))
    return 0


def _encoding() -> str:
    """What the terminal can write; a pager before it is written to in any case."""
    stream = sys.__stdout__
    return (stream.encoding if stream is not None else "") or "ascii"


def _writes(characters: tuple[str, ...], encoding: str) -> bool:
    try:
        codecs.encode("".join(characters), encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def _tree(picture: Picture, paint: Paint, *, ascii: bool) -> Iterator[str]:
    drawn = list(rows(picture, ascii=ascii))
    links = [row for row in drawn if row.node is not None]
    cells, painted = [_cells(row) for row in links], [_painted(row, paint) for row in links]
    lines = iter(table(cells, paint=painted)) if links else iter(())
    for row in drawn:
        if row.node is None:
            sign = picture.sign(row.name)
            state = colour(sign.state) if sign is not None and sign.running else (DIM,)
            yield f"{paint(row.name, BOLD)}: {paint(row.said, *state)}"
        else:
            yield next(lines)
    for note in picture.notes:
        yield paint(f"note: {clean(note)}", DIM)


def _cells(row: Row) -> tuple[str, ...]:
    return (row.stem + row.name, row.kind, row.link, row.keeper, row.said)


def _painted(row: Row, paint: Paint) -> tuple[str, ...]:
    stem, name, kind, link, keeper, said = row.stem, row.name, row.kind, row.link, row.keeper, row.said
    assert row.node is not None
    if row.node.foreign:
        return (paint(stem, DIM) + name, kind, _link(link, paint), paint(keeper, DIM), said)
    return (
        paint(stem, DIM) + paint(name, BOLD),
        kind,
        _link(link, paint),
        keeper,
        said if row.node.well else paint(said, YELLOW),
    )


def _link(word: str, paint: Paint) -> str:
    return paint(word, *{"missing": (RED,), "no carrier": (YELLOW,), "not seen": (DIM,)}.get(word, ()))
