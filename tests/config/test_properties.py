# SPDX-License-Identifier: MIT
"""What holds for every file: it loads or is refused, survives a round trip, and costs what its size does."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from linxd.config import ConfigError, ScopeConfig, declare
from linxd.config.build import build
from linxd.config.document import parse
from linxd.config.inet import canonical, masked
from linxd.config.schema import schema
from linxd.config.write import write
from tests.config.shapes import anything, files
from tests.config.test_files_of_faults import scope_of

jsonschema = pytest.importorskip("jsonschema")
VALIDATOR = jsonschema.Draft202012Validator(schema())
GOOD = [path.read_text() for path in sorted((Path(__file__).parent / "good").glob("*.toml"))]

many = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def tried(scope: str, raw: dict[str, Any]) -> ScopeConfig | None:
    """The configuration, or None when it was refused in good order."""
    try:
        return declare(scope, raw)
    except ConfigError as error:
        refused = error
    assert refused.errors
    for fault in refused.faults:
        assert fault.message
        assert str(fault)
        assert fault.as_dict()["path"] == fault.path
    return None


@many
@given(files())
def test_every_file_loads_or_is_refused_with_faults(file: tuple[str, dict[str, Any]]) -> None:
    tried(*file)


@many
@given(st.dictionaries(st.text(max_size=8), anything, max_size=4))
def test_anything_at_all_loads_or_is_refused_with_faults(raw: dict[str, Any]) -> None:
    tried("c1", raw)


@many
@given(files())
def test_what_is_written_reads_as_what_it_was_written_from(file: tuple[str, dict[str, Any]]) -> None:
    config = tried(*file)
    if config is None:
        return
    again = build(config.name, [parse("again.toml", write(config))]).finish()
    assert again.rtnl == config.rtnl
    assert again.sysctl == config.sysctl
    assert again.attach == config.attach
    for name in ("netns", "resync", "on_stop", "foreign", "on_conflict"):
        assert getattr(again, name) == getattr(config, name)
    assert (again.netfilter is None) == (config.netfilter is None)
    if again.netfilter is not None and config.netfilter is not None:
        assert [piece.text.strip("\n") for piece in again.netfilter.rulesets] == [
            piece.text.strip("\n") for piece in config.netfilter.rulesets
        ]
        assert again.netfilter.filled == config.netfilter.filled
        assert again.netfilter.take == config.netfilter.take
    assert write(again) == write(config)


@pytest.mark.parametrize("text", GOOD)
def test_a_good_file_comes_back_from_being_written(text: str) -> None:
    config = build(scope_of(text), [parse("f.toml", text)]).finish()
    again = build(config.name, [parse("again.toml", write(config))]).finish()
    assert again.rtnl == config.rtnl
    assert again.sysctl == config.sysctl
    assert again.attach == config.attach
    assert write(again) == write(config)


@many
@given(files())
def test_the_schema_takes_what_loads(file: tuple[str, dict[str, Any]]) -> None:
    if tried(*file) is not None:
        VALIDATOR.validate(file[1])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_a_mutilated_file_loads_or_is_refused_with_faults(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        piece = data.draw(
            st.one_of(st.text(max_size=4), st.sampled_from(["\n", "[", "]", "[[", '"', "'''", "=", "."]))
        )
        text = text[:start] + piece + text[end:]
    try:
        build("c1", [parse("f.toml", text)]).finish()
    except ConfigError as error:
        faults = error.faults
    else:
        return
    assert all(1 <= fault.line <= text.count("\n") + 1 for fault in faults)


# --- canonical forms ---------------------------------------------------------------------------------------

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


@given(v6)
@example(ipaddress.ip_address("::ffff:10.0.0.1"))
@example(ipaddress.ip_address("::10.0.0.1"))
def test_every_spelling_of_an_address_is_the_same_address(address: ipaddress.IPv6Address) -> None:
    known = canonical(str(address))
    assert known is not None
    for spelling in (address.exploded, address.exploded.upper(), known[1]):
        assert canonical(spelling) == known
    assert ipaddress.ip_address(known[1]) == address


@given(st.one_of(v4, v6), st.integers(0, 128))
def test_masking_clears_the_host_bits(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    length = min(length, address.max_prefixlen)
    known = canonical(str(address))
    assert known is not None
    network = ipaddress.ip_network((address, length), strict=False)
    assert ipaddress.ip_address(masked(known[0], known[1], length)) == network.network_address


@given(v6, st.integers(1, 128))
def test_the_same_objects_in_any_spelling_are_the_same_configuration(
    address: ipaddress.IPv6Address, length: int
) -> None:
    network = ipaddress.ip_network((address, length), strict=False)

    def told(spell: Callable[[ipaddress.IPv6Address], str]) -> ScopeConfig | None:
        to, via = spell(network.network_address), spell(address)  # type: ignore[arg-type]
        raw = {
            "link": {"eth0": {"addresses": [f"{via}/{length}"]}},
            "route": [{"to": f"{to}/{length}", "via": via, "dev": "eth0"}],
            "rule": [{"from": f"{to}/{length}", "table": 254}],
            "neighbour": [{"address": via, "dev": "eth0", "lladdr": "02:00:00:00:00:0A"}],
        }
        return tried("c1", raw)

    plain = told(str)
    shouted = told(lambda one: one.exploded.upper())
    assert (plain is None) == (shouted is None)
    if plain is not None and shouted is not None:
        assert plain.rtnl == shouted.rtnl


# --- cost --------------------------------------------------------------------------------------------------


def calls(text: str) -> int:
    """How many functions are called, Python's and C's, while a text is read: the same on every machine."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        build("c1", [parse("f.toml", text)]).faults()
    except ConfigError:
        pass
    finally:
        sys.setprofile(before)
    return count


def _each(count: int, line: str) -> str:
    return "".join(line.replace("@", str(number)) for number in range(count))


GROWING: dict[str, Callable[[int], str]] = {
    "links": lambda n: _each(n, '[link.e@]\naddresses = ["10.0.0.@/24"]\n'),
    "routes": lambda n: _each(n, '[[route]]\nto = "10.1.0.0/16"\nmetric = @\nvia = "10.0.0.1"\n'),
    "routes through links that nobody declared": lambda n: "[link.declared]\n"
    + _each(n, '[[route]]\nto = "10.1.0.0/16"\nmetric = @\ndev = "declare@"\n'),
    "gateways": lambda n: '[link.eth0]\naddresses = ["10.0.0.1/8"]\n'
    + _each(n, '[[route]]\nto = "10.0.0.@/32"\ndev = "eth0"\n')
    + _each(n, '[[route]]\nto = "11.0.0.@"\nvia = "12.0.0.@"\n'),
    "rules": lambda n: _each(n, '[[rule]]\nfamily = "both"\ntable = 7\npriority = @\n'),
    "unknown keys": lambda n: "[link.eth0]\n" + _each(n, "mtuu@ = 1\n"),
    "duplicates": lambda n: _each(n, '[[route]]\nto = "default"\nvia = "10.0.0.1"\n'),
    "a chain of masters": lambda n: _each(n, '[link.a@]\nmaster = "a@0"\n'),
    "sysctls": lambda n: "[sysctl]\n" + _each(n, '"net.ipv4.conf.e@.rp_filter" = 1\n'),
    "unquoted sysctls": lambda n: "[sysctl]\n" + _each(n, "net.ipv4.conf.e@.rp_filter = 1\n"),
    "one long text": lambda n: '[netfilter]\nruleset = """\n' + _each(n, 'say "@" \\" twice\n') + '"""\n',
    "one long array": lambda n: "[link.eth0]\nmac = [" + _each(n, "@, ") + "]\n",
}  # fmt: skip


@pytest.mark.parametrize("shape", GROWING)
def test_cost_grows_with_the_size_and_no_faster(shape: str) -> None:
    text = GROWING[shape]
    small, large = calls(text(120)), calls(text(240))
    assert large < 2.6 * small
