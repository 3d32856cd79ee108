# SPDX-License-Identifier: MIT
"""The objects that we have on the bus: calls find their method, changes of properties are told once a turn,
and every error has a name.

It knows interfaces in general and none in particular.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any

from linxd.bus import names
from linxd.bus.connection import BUS, BUS_PATH, BusError, Call, Connection, Heard, Unreachable, Variant
from linxd.bus.interface import Interface, Method, xml_of
from linxd.bus.polkit import Authority
from linxd.log import clean

log = logging.getLogger(__name__)

MOST_CALLS = 32
"""Calls of one sender that may be under way at once."""
LONG = 1.0
"""Seconds after which it is noticed if whoever waits for an answer goes away."""

PROPERTIES = "org.freedesktop.DBus.Properties"
MANAGER = "org.freedesktop.DBus.ObjectManager"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"

_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_STANDARD = """\
<interface name="org.freedesktop.DBus.Peer">
 <method name="Ping"/>
 <method name="GetMachineId"><arg type="s" name="machine_uuid" direction="out"/></method>
</interface>
<interface name="org.freedesktop.DBus.Introspectable">
 <method name="Introspect"><arg type="s" name="xml_data" direction="out"/></method>
</interface>
"""
_PROPERTIES = """\
<interface name="org.freedesktop.DBus.Properties">
 <method name="Get">
  <arg type="s" name="interface_name" direction="in"/>
  <arg type="s" name="property_name" direction="in"/>
  <arg type="v" name="value" direction="out"/>
 </method>
 <method name="GetAll">
  <arg type="s" name="interface_name" direction="in"/>
  <arg type="a{sv}" name="props" direction="out"/>
 </method>
 <method name="Set">
  <arg type="s" name="interface_name" direction="in"/>
  <arg type="s" name="property_name" direction="in"/>
  <arg type="v" name="value" direction="in"/>
 </method>
 <signal name="PropertiesChanged">
  <arg type="s" name="interface_name"/>
  <arg type="a{sv}" name="changed_properties"/>
  <arg type="as" name="invalidated_properties"/>
 </signal>
</interface>
"""
_MANAGER = """\
<interface name="org.freedesktop.DBus.ObjectManager">
 <method name="GetManagedObjects">
  <arg type="a{oa{sa{sv}}}" name="objects" direction="out"/>
 </method>
 <signal name="InterfacesAdded">
  <arg type="o" name="object"/>
  <arg type="a{sa{sv}}" name="interfaces"/>
 </signal>
 <signal name="InterfacesRemoved">
  <arg type="o" name="object"/>
  <arg type="as" name="interfaces"/>
 </signal>
</interface>
"""
_STANDARD_CALLS = {
    (PEER, "Ping"): "",
    (PEER, "GetMachineId"): "",
    (INTROSPECTABLE, "Introspect"): "",
    (PROPERTIES, "Get"): "ss",
    (PROPERTIES, "GetAll"): "s",
    (PROPERTIES, "Set"): "ssv",
    (MANAGER, "GetManagedObjects"): "",
}


class Objects:
    """Objects on ``connection``, below an ObjectManager at ``root``. ``authority`` says who may call what is
    not everybody's."""

    def __init__(self, connection: Connection, authority: Authority, *, root: str = names.ROOT) -> None:
        self._connection = connection
        self._authority = authority
        self._root = root
        self._objects: dict[str, dict[str, Interface]] = {root: {}}
        self._told: dict[tuple[str, str], dict[str, Any]] = {}
        """What was last said of each property that is to be told."""
        self._flush: asyncio.Handle | None = None
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        """Calls under way, by who made them."""
        self._watches: dict[str, asyncio.Task[None]] = {}
        """Who is watched for going away, as long as a call of theirs is under way."""

    # -- which there are ------------------------------------------------------------------------------------

    def add(self, path: str, interface: Interface) -> None:
        """From now on the object at ``path`` has this interface."""

        def emit(interface: str, member: str, signature: str, body: Sequence[Any]) -> None:
            # What is told of a change comes after the state it led to was told.
            self.flush()
            self._connection.signal(path, interface, member, signature, body)

        self._objects.setdefault(path, {})[interface.name] = interface
        interface.emit = emit
        values = interface.values()
        self._told[path, interface.name] = _telling(interface, values)
        if path != self._root:
            added = [path, {interface.name: _variants(interface, values)}]
            self._connection.signal(self._root, MANAGER, "InterfacesAdded", "oa{sa{sv}}", added)

    def remove(self, path: str) -> None:
        """There is no such object any more."""
        gone = self._objects.pop(path, {})
        for name, interface in gone.items():
            interface.emit = None
            self._told.pop((path, name), None)
        if gone:
            self._connection.signal(self._root, MANAGER, "InterfacesRemoved", "oas", [path, list(gone)])

    def __contains__(self, path: object) -> bool:
        return path in self._objects

    def close(self) -> None:
        """Answer nobody any more."""
        if self._flush is not None:
            self._flush.cancel()
        self.forget_callers()

    def forget_callers(self) -> None:
        """Nobody waits for an answer any more: the bus that they were on is gone."""
        for sender in list(self._tasks):
            self._hang_up(sender)

    # -- what changes ---------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Properties may have changed: tell so at the end of this turn of the event loop."""
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Tell what has changed."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for path, interfaces in self._objects.items():
            for name, interface in interfaces.items():
                told = self._told[path, name]
                now = _telling(interface, interface.values()) if told else {}
                changed = {key: value for key, value in now.items() if told[key] != value}
                if changed:
                    told.update(changed)
                    body = [name, _variants(interface, changed), []]
                    self._connection.signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    # -- what is asked --------------------------------------------------------------------------------------

    def heard(self, heard: Heard) -> None:
        """Of those who have gone nobody waits for an answer."""
        if heard.sender == BUS and heard.member == "NameOwnerChanged" and not heard.body[2]:
            self._hang_up(heard.body[0])

    def _hang_up(self, sender: str) -> None:
        for task in self._tasks.get(sender, ()):
            task.cancel()

    def called(self, call: Call) -> None:
        """Answer a call, now or later."""
        try:
            if call.cut:
                raise BusError(names.LIMITS, "the arguments are too long")
            self._dispatch(call)
        except BusError as error:
            self._refuse(call, error.name, str(error))
        except Exception as error:
            self._unexpected(call, error)

    def _dispatch(self, call: Call) -> None:
        interfaces = self._objects.get(call.path)
        below = call.path.rstrip("/") + "/"
        if interfaces is None and not any(path.startswith(below) for path in self._objects):
            raise BusError(names.UNKNOWN_OBJECT, f"there is no object {call.path}")
        for (interface, member), signature in _STANDARD_CALLS.items():
            if call.member == member and call.interface in ("", interface):
                _check(call, signature)
                self._standard(call, interface, interfaces or {})
                return
        chosen = [one for name, one in (interfaces or {}).items() if call.interface in ("", name)]
        if not chosen:
            raise BusError(names.UNKNOWN_INTERFACE, f"{call.path} has no interface {call.interface}")
        for one in chosen:
            found = one.methods().get(call.member)
            if found is not None:
                _check(call, found[0].takes)
                self._begin(call, one, *found)
                return
        raise BusError(names.UNKNOWN_METHOD, f"{call.path} has no method {call.member}")

    def _begin(self, call: Call, interface: Interface, method: Method, attribute: str) -> None:
        tasks = self._tasks.setdefault(call.sender, set())
        if len(tasks) >= MOST_CALLS:
            raise BusError(names.LIMITS, f"{MOST_CALLS} calls are under way already")
        task = asyncio.create_task(self._work(call, interface, method, attribute))
        tasks.add(task)
        if call.sender not in self._watches:
            self._watches[call.sender] = asyncio.create_task(self._watch(call.sender))

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not tasks:
                self._tasks.pop(call.sender, None)
                watch = self._watches.pop(call.sender, None)
                if watch is not None:
                    watch.cancel()

        task.add_done_callback(done)

    async def _work(self, call: Call, interface: Interface, method: Method, attribute: str) -> None:
        try:
            if method.action:
                await self._authority.allow(call, method.action)
            answer = interface.call(attribute, call)
            if isinstance(answer, Awaitable):
                answer = await answer
            self.flush()
            self._connection.answer(call, method.gives, answer, size=_size(answer))
        except BusError as error:
            self.flush()
            self._refuse(call, error.name, str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._unexpected(call, error)

    async def _watch(self, sender: str) -> None:
        """Notice when ``sender`` goes away, if it comes to that. One rule serves all their calls: the bus
        allows some hundred to a connection."""
        await asyncio.sleep(LONG)
        rule = f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{sender}'"

        def ask(member: str, argument: str = rule) -> Coroutine[Any, Any, Sequence[Any]]:
            return self._connection.call(BUS, BUS_PATH, BUS, member, "s", [argument])

        try:
            await ask("AddMatch")
            if not (await ask("NameHasOwner", sender))[0]:
                # Gone before we began to listen.
                self._hang_up(sender)
            await asyncio.Event().wait()
        except (BusError, Unreachable):
            pass  # without a bus nobody waits either
        finally:
            if self._connection.up.is_set():
                _left_alone(ask("RemoveMatch"))

    def _unexpected(self, call: Call, error: Exception) -> None:
        log.debug("%s.%s", call.interface, call.member, exc_info=error)
        text = f"unexpected error in linxd: {type(error).__name__}: {error}"
        self._refuse(call, names.FAILED, text)

    def _refuse(self, call: Call, name: str, text: str) -> None:
        self._connection.refuse(call, name, "\n".join(map(clean, text.split("\n"))))

    # -- what every object has ------------------------------------------------------------------------------

    def _standard(self, call: Call, interface: str, here: Mapping[str, Interface]) -> None:
        answer = self._connection.answer
        if interface == PEER:
            if call.member == "Ping":
                answer(call, "", [])
            else:
                answer(call, "s", [_machine_id()])
        elif interface == INTROSPECTABLE:
            answer(call, "s", [self._introspect(call.path, here)])
        elif interface == MANAGER:
            if call.path != self._root:
                raise BusError(names.UNKNOWN_METHOD, f"the objects are managed at {self._root}")
            self.flush()
            answer(call, "a{oa{sa{sv}}}", [self._managed()])
        else:
            self._properties(call, here)

    def _managed(self) -> dict[str, Any]:
        return {
            path: {name: _variants(one, one.values()) for name, one in interfaces.items()}
            for path, interfaces in self._objects.items()
            if path != self._root
        }

    def _properties(self, call: Call, here: Mapping[str, Interface]) -> None:
        name = call.body[0]
        if name in (PEER, INTROSPECTABLE, PROPERTIES, MANAGER):
            values: dict[str, Variant] = {}
        else:
            # Who gets a value has been told of it before.
            self.flush()
            chosen = [one for key, one in here.items() if name in ("", key)]
            if not chosen:
                raise BusError(names.UNKNOWN_INTERFACE, f"{call.path} has no interface {name}")
            values = {key: value for one in chosen for key, value in _variants(one, one.values()).items()}
        if call.member == "GetAll":
            self._connection.answer(call, "a{sv}", [values])
            return
        if call.body[1] not in values:
            raise BusError(names.UNKNOWN_PROPERTY, f"{call.path} has no property {call.body[1]}")
        if call.member == "Set":
            raise BusError(names.READ_ONLY, f"{call.body[1]} can only be read")
        self._connection.answer(call, "v", [values[call.body[1]]])

    def _introspect(self, path: str, here: Mapping[str, Interface]) -> str:
        text = _STANDARD + (_PROPERTIES if here else "") + (_MANAGER if path == self._root else "")
        text += "".join(f"{xml_of(name)}\n" for name in here)
        below = path.rstrip("/") + "/"
        nodes = {
            other.removeprefix(below).partition("/")[0] for other in self._objects if other.startswith(below)
        }
        text += "".join(f'<node name="{node}"/>\n' for node in sorted(nodes))
        return f"{_DOCTYPE}<node>\n{text}</node>\n"


def _check(call: Call, signature: str) -> None:
    if call.signature != signature:
        text = f"{call.member} takes {signature or 'nothing'!r}, not {call.signature or 'nothing'!r}"
        raise BusError(names.INVALID_ARGS, text)


def _telling(interface: Interface, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if interface.properties[key].emits == "true"}


def _variants(interface: Interface, values: Mapping[str, Any]) -> dict[str, Variant]:
    return {key: Variant(interface.properties[key].signature, value) for key, value in values.items()}


def _size(answer: Sequence[Any]) -> int:
    return sum(len(value) for value in answer if isinstance(value, list))


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        raise BusError(names.FAILED, "there is no /etc/machine-id") from None


_errands: set[asyncio.Task[Any]] = set()


def _left_alone(work: Coroutine[Any, Any, Any]) -> None:
    """Have something done that nobody waits for."""
    task = asyncio.create_task(work)
    _errands.add(task)

    def done(task: asyncio.Task[Any]) -> None:
        _errands.discard(task)
        if not task.cancelled():
            task.exception()

    task.add_done_callback(done)
