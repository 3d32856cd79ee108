# SPDX-License-Identifier: MIT
"""`linxctl watch`: what happens in scopes, as it happens, by the signals of their daemons.

Anybody may send a signal of any name on the bus: what counts is who has the daemons' names. It asks nothing
that is not open to everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from linxd.cli import journal
from linxd.cli.asking import has_bus
from linxd.cli.output import Subparsers
from linxd.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Paint
from linxd.log import clean, duration
from linxd.patch import Culprit

if TYPE_CHECKING:
    from linxd.bus.connection import Connection, Heard

AT_ONCE = 32
"""Daemons that are asked at the same time."""
SHOWN = 10
"""Ops of one patch that are shown."""
_COLOURS = {"converged": GREEN, "blocked": RED, "gone": DIM, "starting": DIM}


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "watch",
        help="show what happens, as it happens",
        description=(
            "Shows drifts, patches, failures and changes of state as they happen, until it is stopped."
            " Without a bus it follows the journal instead."
        ),
        epilog="exit codes: 130 stopped by Ctrl-C, 2 trouble",
    )
    parser.add_argument("scope", metavar="SCOPE", nargs="?", help="the scope; default: all")
    parser.add_argument("--json", action="store_true", help="print for programs, one object a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs until interrupted."""
    if has_bus() and asyncio.run(Watcher(options.scope, as_json=options.json).run()):
        return 0
    print("linxctl: there is no bus; this is the journal", file=sys.stderr)
    rest = {"full": False, "all": True, "follow": True, "lines": None, "since": "now", "until": None}
    return journal.run(argparse.Namespace(**{**rest, "directory": None, **vars(options)}))


class Watcher:
    """Prints what the daemons of ``scope``, None being all, tell."""

    def __init__(self, scope: str | None, *, as_json: bool) -> None:
        self._scope = scope
        self._json = as_json
        self._paint = Paint(sys.stdout)
        self._owners: dict[str, str] = {}
        """Scopes by the unique names of their daemons."""
        self._states: dict[str, str] = {}
        self._back = asyncio.Event()
        self._lost = asyncio.Event()
        self._missed: dict[str, float] = {}
        """Since when nothing was heard of a scope."""
        self._looks: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None

    async def run(self) -> bool:
        """Returns only if there is no bus at all: False."""
        from linxd.bus.connection import Connection, system_bus

        connection = Connection(
            system_bus(),
            rules=[
                "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0namespace='org.linxd1'",
                "type='signal',path_namespace='/org/linxd1'",
            ],
            heard=self._heard,
            say=self._said,
        )
        self._connection = connection
        running = asyncio.create_task(connection.run())
        try:
            up = asyncio.ensure_future(connection.up.wait())
            lost = asyncio.ensure_future(self._lost.wait())
            await asyncio.wait({up, lost}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, lost):
                task.cancel()
            if not connection.up.is_set():
                return False
            while True:
                self._back.clear()
                await self._look(connection)
                await self._back.wait()
        finally:
            running.cancel()
            for look in self._looks:
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def _said(self, text: str) -> None:
        if text.startswith("no bus"):
            self._lost.set()
            if self._connection is None or not self._states:
                return
            print(f"linxctl: {clean(text)}", file=sys.stderr)
            now = time.time()
            for scope in self._states:
                self._missed.setdefault(scope, now)
            # Names on another bus are other names, and how things are there is to be seen anew.
            self._owners.clear()
            self._states.clear()
        else:
            print(f"linxctl: {clean(text)}", file=sys.stderr)
            self._back.set()

    async def _look(self, connection: Connection) -> None:
        """Who is there, and how they are."""
        from linxd.bus import names
        from linxd.bus.connection import BUS, BUS_PATH, BusError, Unreachable

        with contextlib.suppress(BusError, Unreachable):
            (listed,) = await connection.call(BUS, BUS_PATH, BUS, "ListNames")
            found = [(name, names.scope_of(name)) for name in sorted(listed)]
            turn = asyncio.Semaphore(AT_ONCE)

            async def look(name: str, scope: str) -> None:
                # One that hangs holds up nobody else.
                async with turn:
                    await self._look_at(connection, name, scope)

            await asyncio.gather(
                *(look(name, scope) for name, scope in found if scope is not None and self._wanted(scope))
            )

    async def _look_at(self, connection: Connection, name: str, scope: str) -> None:
        """How one scope is now, and what was missed of it."""
        from linxd.bus import names
        from linxd.bus.connection import BUS, BUS_PATH, BusError, Unreachable

        with contextlib.suppress(BusError, Unreachable):
            (owner,) = await connection.call(BUS, BUS_PATH, BUS, "GetNameOwner", "s", [name])
            # What it says from now on is heard.
            self._owners[owner] = scope
            (objects,) = await connection.call(
                owner, names.ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
            )
            path = names.scope_path(scope)
            state = objects.get(path, {}).get("org.linxd1.Scope", {}).get("State")
            if state is None or self._owners.get(owner) != scope:
                return
            since = self._missed.pop(scope, 0.0)
            for one, interfaces in sorted(objects.items()):
                loop = _plain(interfaces.get("org.linxd1.Loop", {}))
                at = int(loop.get("LastPatch", 0)) / 1e6
                if since and at > since and one.startswith(f"{path}/"):
                    self._unheard(scope, str(loop.get("Source", "?")), at)
            self._state(scope, str(state.value))

    def _wanted(self, scope: str) -> bool:
        return self._scope is None or scope == self._scope

    # -- heard ----------------------------------------------------------------------------------------------

    def _heard(self, heard: Heard) -> None:
        from linxd.bus import names

        if heard.member == "NameOwnerChanged" and heard.sender == "org.freedesktop.DBus":
            name, before, after = heard.body
            scope = names.scope_of(name)
            if scope is not None and self._wanted(scope):
                self._owners.pop(before, None)
                if after:
                    self._owners[after] = scope
                    self._look_soon(name, scope)
                else:
                    self._state(scope, "gone")
            return
        scope = self._owners.get(heard.sender)
        if scope is None:
            return
        path = names.scope_path(scope)
        if heard.path == path:
            if heard.member == "PropertiesChanged" and heard.body[0] == "org.linxd1.Scope":
                state = heard.body[1].get("State")
                if state is not None:
                    self._state(scope, str(state.value))
        elif heard.path.startswith(f"{path}/") and heard.interface == "org.linxd1.Loop":
            self._told(scope, heard.path.removeprefix(f"{path}/"), heard.member, heard.body)

    def _look_soon(self, name: str, scope: str) -> None:
        """A daemon has come, or come back: what it tells from now on are only changes."""
        if self._connection is not None:
            look = asyncio.create_task(self._look_at(self._connection, name, scope))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    def _unheard(self, scope: str, source: str, at: float) -> None:
        """Something was patched while the bus was away; what it was the journal knows."""
        moment = time.strftime("%H:%M:%S", time.localtime(at))
        text = f"patched while the bus was away, last at {moment} (`linxctl log {scope}` tells what)"
        event = {"scope": scope, "source": source, "event": "unheard", "last": at}
        self._print(event, f"{scope}/{source}", text, YELLOW)

    def _state(self, scope: str, state: str) -> None:
        if self._states.get(scope) == state:
            return
        self._states[scope] = state
        text = "served by no daemon any more" if state == "gone" else state
        self._print(
            {"scope": scope, "event": "state", "state": state}, scope, text, _COLOURS.get(state, YELLOW)
        )

    def _told(self, scope: str, source: str, member: str, body: Sequence[Any]) -> None:
        where = f"{scope}/{source}"
        event: dict[str, Any] = {"scope": scope, "source": source, "event": member.lower()}
        if member == "ObjectFailed":
            name, number, text = body
            event |= {"object": name, "errno": number, "text": text}
            self._print(event, where, f"{name}: {text}", RED)
            return
        if member == "Drifted":
            ops, total, culprit = body
            what, colour, tail = "drifted", YELLOW, ""
        elif member == "Patched":
            ops, total, trigger, culprit, usec = body
            event |= {"trigger": trigger, "usec": usec}
            what, colour, tail = (
                "patched",
                GREEN,
                f", {total} op{'s' if total != 1 else ''} in {duration(usec)}",
            )
        else:
            return
        who = _plain(culprit)
        event |= {
            "total": total,
            "ops": [{"verb": op[0], "object": op[1], "attributes": _plain(op[2])} for op in ops],
            "culprit": who,
        }
        by = f" (by {_culprit(who)})" if who else ""
        shown = ", ".join(_op(op) for op in ops[:SHOWN]) + (
            f" and {total - SHOWN} more" if total > SHOWN else ""
        )
        self._print(event, where, f"{what}: {shown}{by}{tail}", colour)

    def _print(self, event: Mapping[str, Any], where: str, text: str, colour: str) -> None:
        now = time.time()
        if self._json:
            print(json.dumps({"at": now, **event}), flush=True)
            return
        stamp = self._paint(time.strftime("%H:%M:%S", time.localtime(now)), DIM)
        print(f"{stamp} {self._paint(clean(where), BOLD)}: {self._paint(clean(text), colour)}", flush=True)


def _plain(variants: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.value for key, value in variants.items()}


def _op(op: Sequence[Any]) -> str:
    verb, name, attributes = op
    changes = " ".join(f"{key} {value}" for key, value in _plain(attributes).items())
    return f"{verb} {name}" + (f" ({changes})" if changes and verb != "delete" else "")


def _culprit(who: Mapping[str, Any]) -> str:
    return Culprit(
        int(who.get("pid", 0)), who.get("comm"), who.get("unit"), confirmed=bool(who.get("confirmed"))
    ).words()
