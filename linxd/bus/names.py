# SPDX-License-Identifier: MIT
"""What things of a scope's are called on the bus: names, paths, actions, errors. Pure."""

from __future__ import annotations

import re

ROOT = "/org/linxd1"
"""Where the ObjectManager is, and on the host's name the Manager."""
HOST_NAME = "org.linxd1"
PREFIX = "org.linxd1.netns"
UNIT = "linx-reconcile@{}.service"

_DBUS = "org.freedesktop.DBus"
ACCESS_DENIED = f"{_DBUS}.Error.AccessDenied"
INTERACTIVE = f"{_DBUS}.Error.InteractiveAuthorizationRequired"
LIMITS = f"{_DBUS}.Error.LimitsExceeded"
INVALID_ARGS = f"{_DBUS}.Error.InvalidArgs"
UNKNOWN_METHOD = f"{_DBUS}.Error.UnknownMethod"
UNKNOWN_OBJECT = f"{_DBUS}.Error.UnknownObject"
UNKNOWN_INTERFACE = f"{_DBUS}.Error.UnknownInterface"
UNKNOWN_PROPERTY = f"{_DBUS}.Error.UnknownProperty"
READ_ONLY = f"{_DBUS}.Error.PropertyReadOnly"
FAILED = f"{_DBUS}.Error.Failed"

_ERROR = "org.linxd1.Error"
NO_SUCH_SCOPE = f"{_ERROR}.NoSuchScope"
NO_SUCH_OBJECT = f"{_ERROR}.NoSuchObject"
INVALID_NAME = f"{_ERROR}.InvalidName"
INVALID_CONFIG = f"{_ERROR}.InvalidConfig"
NAMESPACE_GONE = f"{_ERROR}.NamespaceGone"
PAUSED = f"{_ERROR}.Paused"
BUSY = f"{_ERROR}.Busy"
TIMED_OUT = f"{_ERROR}.TimedOut"


def label(name: str) -> str:
    """A scope's name as one label of a bus name or a path: systemd's bus_label_escape()."""
    return (
        "".join(
            chr(byte)
            if chr(byte).isascii() and (chr(byte).isalpha() or (at and chr(byte).isdigit()))
            else f"_{byte:02x}"
            for at, byte in enumerate(name.encode())
        )
        or "_"
    )


def unlabel(text: str) -> str:
    """The name that a label stands for."""
    if text == "_":
        return ""
    raw = re.sub(
        rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogateescape")
    )
    return raw.decode("utf-8", "replace")


def bus_name(scope: str) -> str:
    """The name that a scope's daemon has."""
    return HOST_NAME if scope == "host" else f"{PREFIX}.{label(scope)}"


def scope_of(name: str) -> str | None:
    """The scope whose daemon has a name; None where it is another's name."""
    if name == HOST_NAME:
        return "host"
    if not name.startswith(f"{PREFIX}."):
        return None
    rest = name.removeprefix(f"{PREFIX}.")
    return unlabel(rest) if "." not in rest else None


def scope_path(scope: str) -> str:
    """Where a scope's object is."""
    return f"{ROOT}/scope/{label(scope)}"


def unit_of_scope(scope: str) -> str:
    """The unit that runs a scope's daemon."""
    return "linxd.service" if scope == "host" else UNIT.format(scope)
