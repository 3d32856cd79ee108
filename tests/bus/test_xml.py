# SPDX-License-Identifier: MIT
"""The XML under dbus/ is the contract: every member and signature of it is there, and nothing else is."""

from __future__ import annotations

import inspect
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("dbus_next")

from dbus_next.signature import SignatureTree

from linxd.bus.interface import Interface, xml_of
from linxd.bus.loop import LoopInterface
from linxd.bus.manager import ManagerInterface
from linxd.bus.scope import ScopeInterface
from linxd.loop import LoopState
from linxd.patch import State
from linxd.scope import ScopeState

ROOT = Path(__file__).resolve().parents[2]
INTERFACES = (ScopeInterface, LoopInterface, ManagerInterface)
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def element(interface: type[Interface]) -> ElementTree.Element:
    found = ElementTree.parse(ROOT / "dbus" / f"{interface.name}.xml").find("interface")
    assert found is not None
    assert found.get("name") == interface.name
    return found


def signature(member: ElementTree.Element, direction: str | None = None) -> str:
    return "".join(arg.get("type", "") for arg in member.iter("arg") if arg.get("direction") == direction)


def test_every_interface_has_its_file_and_every_file_its_interface() -> None:
    assert {file.stem for file in (ROOT / "dbus").glob("*.xml")} == {one.name for one in INTERFACES}


@pytest.mark.parametrize("interface", INTERFACES)
def test_methods_are_as_the_xml_says(interface: type[Interface]) -> None:
    declared = {
        method.get("name"): (signature(method, "in"), signature(method, "out"))
        for method in element(interface).iter("method")
    }
    methods = interface.methods()
    assert {name: (one.takes, one.gives) for name, (one, _) in methods.items()} == declared
    for one, attribute in methods.values():
        # As many arguments as the signature has, after the call itself.
        arguments = list(inspect.signature(getattr(interface, attribute)).parameters)[2:]
        assert len(arguments) == len(SignatureTree._get(one.takes).types)


@pytest.mark.parametrize("interface", INTERFACES)
def test_properties_are_as_the_xml_says(interface: type[Interface]) -> None:
    declared = {}
    for one in element(interface).iter("property"):
        assert one.get("access") == "read"
        (emits,) = [note.get("value") for note in one.iter("annotation") if note.get("name") == EMITS]
        declared[one.get("name")] = (one.get("type"), emits)
    have = {name: (one.signature, one.emits) for name, one in interface.properties.items()}
    assert have == declared


@pytest.mark.parametrize("interface", INTERFACES)
def test_signals_are_as_the_xml_says(interface: type[Interface]) -> None:
    declared = {signal.get("name"): signature(signal) for signal in element(interface).iter("signal")}
    assert dict(interface.signals) == declared


@pytest.mark.parametrize("interface", INTERFACES)
def test_polkit_actions_are_as_the_xml_says(interface: type[Interface]) -> None:
    """The XML says in a comment before each method which action it takes; none means everybody."""
    text = (ROOT / "dbus" / f"{interface.name}.xml").read_text()
    for name, (one, _) in interface.methods().items():
        before = text[: text.index(f'<method name="{name}"')].rstrip()
        comment = before[before.rindex("<!--") :] if before.endswith("-->") else ""
        if interface is ManagerInterface and one.action:
            assert one.action == "manage-scopes"
        elif one.action:
            assert f"polkit: org.linxd1.{one.action} " in comment
        else:
            assert "polkit" not in comment


@pytest.mark.parametrize("interface", INTERFACES)
def test_what_introspection_shows_is_the_xml_without_its_comments(interface: type[Interface]) -> None:
    shown = ElementTree.fromstring(xml_of(interface.name))
    assert ElementTree.canonicalize(ElementTree.tostring(shown), strip_text=True) == (
        ElementTree.canonicalize(ElementTree.tostring(element(interface)), strip_text=True)
    )


def test_words_of_states_and_counts_are_those_that_the_xml_lists() -> None:
    scope, loop = ((ROOT / "dbus" / f"org.linxd1.{one}.xml").read_text() for one in ("Scope", "Loop"))
    assert f"<!-- {', '.join(ScopeState)} -->" in scope
    assert f"<!-- {', '.join(LoopState)} -->" in loop
    assert f"<!-- {', '.join(State)} -->" in scope
