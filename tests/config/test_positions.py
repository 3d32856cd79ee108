# SPDX-License-Identifier: MIT
"""The scanner of positions against tomllib: the same keys and indices, each where its text stands."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linxd.config import document
from linxd.config.build import build
from linxd.config.document import DEEPEST, Node, Source, grow, parse
from linxd.config.faults import ConfigError
from linxd.config.positions import Spot, depth, spots


def same_shape(value: Any, spot: Spot) -> None:
    """Every leaf and table of tomllib's result has a spot, and there is no other."""
    if isinstance(value, dict):
        assert set(spot.children) == set(value)
    elif isinstance(value, list):
        assert set(spot.children) == set(range(len(value)))
    else:
        assert not spot.children
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        same_shape(item, spot.children[key])


def agree(text: str, value: Any, spot: Spot) -> None:
    """What stands at a leaf's offset begins like the leaf's value, and what stands at a key's like the
    key."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            child = spot.children[key]
            if isinstance(key, str):
                begins = text[child.key :]
                assert begins.startswith((key, '"', "'")) or begins == ""
            agree(text, item, child)
    elif isinstance(value, bool):
        assert text.startswith("true" if value else "false", spot.value)
    elif isinstance(value, str):
        assert text[spot.value] in "\"'"
    elif isinstance(value, int):
        assert re.match(r"[-+0-9]", text[spot.value])


# --- TOML texts --------------------------------------------------------------------------------------------

blanks = st.sampled_from(["", " ", "\t", "  "])
bare_keys = st.sampled_from(["a", "b", "c", "link", "eth0", "1", "-", "x_y"])
basic_escapes = st.sampled_from(["\\n", "\\\\", '\\"', "\\u00e9", "\\U0001F600", "\\t"])
plain_chars = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\"'\\")


@st.composite
def quoted(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return "'" + "".join(draw(st.lists(st.one_of(plain_chars, st.just('"')), max_size=4))) + "'"
    parts = st.one_of(plain_chars, basic_escapes, st.just("'"), st.just("#"), st.just("]"))
    return '"' + "".join(draw(st.lists(parts, max_size=4))) + '"'


@st.composite
def multi_line(draw: st.DrawFn) -> str:
    pieces = ["a", "\n", "\r\n", "#", "]", "}", "=", "[x]", " "]
    if draw(st.booleans()):
        body = "".join(draw(st.lists(st.sampled_from([*pieces, '"', '""', "\\"]), max_size=6)))
        return f"'''{body}" + draw(st.sampled_from(["", "'", "''"])) + "'''"
    body = "".join(
        draw(st.lists(st.sampled_from([*pieces, "'", '"x', '""y', '\\"', "\\\n  ", "\\\\"]), max_size=6))
    )
    return f'"""{body}' + draw(st.sampled_from(["", '"', '""'])) + '"""'


scalars = st.one_of(
    quoted(),
    multi_line(),
    st.sampled_from(
        ["1", "-17", "+0", "0x1F", "1_000", "3.14", "1e6", "-inf", "nan", "true", "false", "1979-05-27",
         "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.999", "1979-05-27 07:32:00-07:00",
         "0b11", "0o17"]
    ),
)  # fmt: skip
gaps = st.sampled_from(["", " ", "\n", " # [no] = {table}\n  ", "\r\n\t"])


@st.composite
def dotted_keys(draw: st.DrawFn) -> str:
    members = draw(st.lists(st.one_of(bare_keys, quoted()), min_size=1, max_size=3))
    return (draw(blanks) + "." + draw(blanks)).join(members)


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(values, max_size=3))
    text = "[" + draw(gaps)
    for item in items:
        text += item + draw(gaps) + "," + draw(gaps)
    return text + "]"


@st.composite
def inline_tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    pairs = [
        f"{draw(dotted_keys())}{draw(blanks)}={draw(blanks)}{item}"
        for item in draw(st.lists(values, max_size=3))
    ]
    return "{" + draw(blanks) + (draw(blanks) + "," + draw(blanks)).join(pairs) + draw(blanks) + "}"


values = st.recursive(scalars, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6)


@st.composite
def lines(draw: st.DrawFn) -> str:
    key = draw(dotted_keys())
    match draw(st.integers(0, 9)):
        case 0 | 1:
            return f"[{draw(blanks)}{key}{draw(blanks)}]"
        case 2 | 3:
            return f"[[{draw(blanks)}{key}{draw(blanks)}]]"
        case 4:
            return draw(st.sampled_from(["", "# a comment = 1", "  # [x]"]))
    end = draw(st.sampled_from(["", " # end"]))
    return f"{draw(blanks)}{key}{draw(blanks)}={draw(blanks)}{draw(values)}{end}"


documents = st.lists(lines(), max_size=8).flatmap(
    lambda parts: st.sampled_from(["\n", "\r\n"]).map(lambda newline: newline.join(parts))
)


@given(documents)
def test_every_key_and_value_of_tomllib_has_a_position_and_no_other(text: str) -> None:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    root = spots(text)
    same_shape(value, root)
    agree(text, value, root)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_told_off(text: str) -> None:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ConfigError) as error:
            parse("f.toml", text)
        (fault,) = error.value.faults
        assert fault.file == "f.toml"
        assert fault.line >= 1
        assert fault.column >= 1
    else:
        assert repr(parse("f.toml", text).plain()) == repr(value)


# --- places a person looks at ------------------------------------------------------------------------------


def node_at(tree: Node, *path: str | int) -> Node:
    for member in path:
        assert isinstance(tree.value, dict | list)
        tree = tree.value[member]  # type: ignore[index]
    return tree


TEXT = '''\
# first line
[scope]
resync = "30s"
[link."eth0.100"]
  mtu   =  1500
addresses = [ "10.0.0.5/24", # one
  { address = "fd00::5/64", nodad = true } ]
port.cost = 4
[[route]]
to = "default"
[[route]]
to = "10.1.0.0/16"
nexthops = [{ via = "10.0.0.1" }]
[netfilter]
ruleset = """
table inet a {}
"""
'''


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("scope",), (2, 2), (2, 1)),
        (("scope", "resync"), (3, 1), (3, 10)),
        (("link", "eth0.100"), (4, 7), (4, 1)),
        (("link", "eth0.100", "mtu"), (5, 3), (5, 12)),
        (("link", "eth0.100", "addresses", 0), (6, 15), (6, 15)),
        (("link", "eth0.100", "addresses", 1, "nodad"), (7, 29), (7, 37)),
        (("link", "eth0.100", "port", "cost"), (8, 6), (8, 13)),
        (("route", 0, "to"), (10, 1), (10, 6)),
        (("route", 1), (11, 3), (11, 1)),
        (("route", 1, "nexthops", 0, "via"), (13, 15), (13, 21)),
        (("netfilter", "ruleset"), (15, 1), (15, 11)),
    ],
)
def test_positions_are_lines_and_columns(
    path: tuple[Any, ...], key: tuple[int, int], value: tuple[int, int]
) -> None:
    node = node_at(parse("f.toml", TEXT), *path)
    assert (node.key_where.line, node.key_where.column) == key
    assert (node.where.line, node.where.column) == value


def test_a_text_begins_after_the_newline_that_opens_it() -> None:
    tree = parse("f.toml", 'a = """\nx"""\nb = """x"""\nc = "x"\nd = \'\'\'\r\nx\'\'\'\n')
    assert [tree.table()[key].text_line for key in "abcd"] == [2, 3, 4, 6]


def test_without_a_text_everything_stands_at_the_top() -> None:
    node = grow({"route": [{"to": "default"}]}, Source("(desired)", None)).table()["route"]
    assert str(node.where) == "(desired):1"
    assert (node.where.line, node.where.column) == (1, 1)


def test_a_text_is_scanned_when_somebody_asks_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    monkeypatch.setattr(document, "spots", lambda text: scanned.append(text) or spots(text))
    text = '[link.e0]\naddresses = ["10.0.0.1/24"]\n[[route]]\nto = "10.1.0.0/16"\ndev = "e0"\n'
    config = build("c1", [parse("f.toml", text)]).finish()
    assert scanned == []
    where = [one.where for one in config.rtnl.routes.values()]
    assert [str(one) for one in where] == ["f.toml:3"]
    assert scanned == [text]


def told(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse("f.toml", text)
    return str(error.value)


def test_a_syntax_error_has_tomllibs_line_and_column() -> None:
    assert told("a = 1\nb = = 2\n") == "f.toml:2:5: not TOML: invalid value"


def test_an_error_at_the_end_is_on_the_last_line() -> None:
    assert told("a = 1\nb = [1,\n\n") == "f.toml:2:8: not TOML: invalid value"


def test_an_integer_beyond_what_python_reads_is_a_fault() -> None:
    assert told("a = 1\nb = " + "9" * 5000).startswith("f.toml:2:5: not TOML: Exceeds the limit")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 40 + "]" * 40, "a = " + "[" * 5000 + "]" * 5000, "[" + "a." * 9000 + "a]"]
)
def test_nesting_has_a_bound(text: str) -> None:
    assert told(text) == f"f.toml:1:1: tables and arrays are nested more than {DEEPEST} deep"


def test_a_byte_order_mark_is_named() -> None:
    assert "byte order mark" in told("\ufeffa = 1\n")


def test_depth_counts_tables_and_arrays() -> None:
    assert depth({"a": [{"b": 1}]}) == 3
    assert depth(1) == 0
