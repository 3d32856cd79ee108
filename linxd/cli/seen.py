# SPDX-License-Identifier: MIT
"""How scopes are by the word of their daemons on the bus, which everybody may ask: for those who may not
read the state directories.

It asks for properties only, and says what they say in the form in which daemons leave word of themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from linxd.cli.asking import has_bus

ANSWER = 3.0
"""Seconds within which a daemon says how it is."""
AT_ONCE = 32
"""Daemons that are asked at the same time."""


def on_bus(known: Callable[[str, int], bool]) -> dict[str, dict[str, Any]]:
    """Word of each scope on the bus, but for those that are ``known`` by name and pid; empty where there is
    no bus."""
    return asyncio.run(_on_bus(known)) if has_bus() else {}


async def _on_bus(known: Callable[[str, int], bool]) -> dict[str, dict[str, Any]]:
    from linxd.bus import names
    from linxd.bus.connection import BUS, BUS_PATH, BusError, Connection, Unreachable, system_bus

    connection = Connection(system_bus())
    turn = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> dict[str, Any] | None:
        scope = names.scope_of(name) or ""
        async with turn:
            try:
                (pid,) = await connection.call(BUS, BUS_PATH, BUS, "GetConnectionUnixProcessID", "s", [name])
                if known(scope, pid):
                    return None
                (objects,) = await connection.call(
                    name,
                    names.ROOT,
                    "org.freedesktop.DBus.ObjectManager",
                    "GetManagedObjects",
                    seconds=ANSWER,
                )
            except BusError:
                return None  # gone meanwhile
            except Unreachable:
                return {"scope": scope, "pid": pid, "state": "silent"}
            return {"scope": scope, "pid": pid, **_word(names.scope_path(scope), objects)}

    try:
        await connection.open()
        (owned,) = await connection.call(BUS, BUS_PATH, BUS, "ListNames")
        found = await asyncio.gather(*(ask(name) for name in owned if names.scope_of(name)))
    except (OSError, ValueError, Unreachable, BusError):
        return {}
    finally:
        connection.close()
    return {word["scope"]: word for word in found if word is not None}


def _word(path: str, objects: Mapping[str, Any]) -> dict[str, Any]:
    scope = _plain(objects, path, "org.linxd1.Scope")
    loops = [_loop(_plain(objects, one, "org.linxd1.Loop")) for one in objects if one.startswith(f"{path}/")]
    word: dict[str, Any] = {
        "version": scope.get("Version"),
        "netns": scope.get("Namespace"),
        "cookie": scope.get("NamespaceCookie"),
        "files": scope.get("Files", []),
        "state": scope.get("State", "silent"),
        "loops": [loop for loop, _ in loops],
        "conditions": [],
        "last_patch": None,
        "paused_until": scope.get("PausedUntil", 0) / 1e6,
        "paused": [
            {"source": source, "object": name, "until": at / 1e6}
            for source, name, at in scope.get("PausedObjects", ())
        ],
    }
    at, source = max(((at, loop["source"]) for loop, at in loops), default=(0, ""))
    if at:
        word["last_patch"] = {"source": source, "at": at / 1e6, "text": "the journal tells (linxctl log)"}
    return word


def _plain(objects: Mapping[str, Any], path: str, interface: str) -> dict[str, Any]:
    values: Collection[tuple[str, Any]] = objects.get(path, {}).get(interface, {}).items()
    return {key: value.value for key, value in values}


def _loop(loop: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A loop's word, and when its last patch was, in microseconds."""
    counts = loop.get("Counts", {})
    return {
        "source": loop.get("Source", "?"),
        "state": loop.get("State", "?"),
        "watch": loop.get("Watch", "?"),
        "objects": sum(counts.values()),
        "counts": {state: count for state, count in counts.items() if count},
        "error": loop.get("LastError", ""),
        "drifts": loop.get("Drifts", 0),
        "ops": loop.get("OpsApplied", 0),
        "heal_usec": list(loop.get("HealLatencyUSec", (0, 0, 0))),
    }, int(loop.get("LastPatch", 0))
