# SPDX-License-Identifier: MIT
"""Why a key can't be kept just now, or at all, in words an operator can act on. Pure text."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from linxd.patch import State
from linxd.sources.sysctl.model import Path, interface_of

_MODULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("net", "netfilter", "nf_conntrack"), "nf_conntrack"),
    (("net", "netfilter", "nf_flowtable"), "nf_flow_table"),
    (("net", "bridge"), "br_netfilter"),
    (("net", "ipv4", "vs"), "ip_vs"),
    (("net", "ipv6"), "ipv6 (and that IPv6 is not disabled)"),
    (("net", "mpls"), "mpls_router"),
    (("net", "sctp"), "sctp"),
    (("net", "dccp"), "dccp"),
    (("net", "rds"), "rds"),
    (("net", "smc"), "smc"),
    (("net", "vsock"), "vsock"),
    (("net", "rxrpc"), "rxrpc"),
    (("net", "phonet"), "phonet"),
    (("sunrpc",), "sunrpc"),
    (("fs", "nfs"), "nfs or lockd"),
)
"""Which module brings a key, by how the key begins."""


def module_of(path: Path) -> tuple[Path, str, str] | None:
    """The module that brings a key: the directory and the beginning of a name in it that show that it is
    there, and what it is called."""
    for start, module in _MODULES:
        if path[: len(start) - 1] == start[:-1] and path[len(start) - 1].startswith(start[-1]):
            return start[:-1], start[-1], module
    return None


def absent(path: Path, listing: Mapping[Path, frozenset[str] | None]) -> str:
    """Why a key is not there, and what it waits for. ``listing`` tells of directories of interfaces and of
    those that `module_of` names."""
    found = module_of(path)
    if found is not None:
        parent, start, module = found
        if not any(name.startswith(start) for name in listing.get(parent) or ()):
            return f"is not there: needs the kernel module {module}"
    name = interface_of(path)
    there = listing.get(path[:3])
    if name is not None and there is not None:
        return f"this kernel knows no such key of link {name}" if name in there else f"needs link {name}"
    return "is not there: this kernel does not know it, or the module that brings it is not loaded"


def trouble(number: int) -> tuple[State, str]:
    """What it means that a key can't be read."""
    match number:
        case errno.EISDIR:
            return State.FAILED, "is a directory of keys, not a key"
        case errno.EXDEV | errno.ELOOP:
            return State.FAILED, "leads out of /proc/sys"
        case errno.EINVAL:
            return State.FAILED, "is no key of sysctl(8)"
        case errno.ENODATA:
            return State.FAILED, "can only be written: there is no value that could be kept"
    return State.FAILED, f"can't be read: {os.strerror(number)}"


def refused(number: int, value: str, mode: int | None) -> str:
    """Why the kernel did not take a value. ``mode``: the key's permission bits, if known."""
    match number:
        case errno.EACCES | errno.EPERM if mode is not None and not mode & 0o222:
            return READ_ONLY
        case errno.EROFS:
            return "/proc/sys is mounted read-only"
        case errno.EACCES | errno.EPERM:
            return f"may not be written: {os.strerror(number)}"
        case errno.ENOENT:
            return "went away"
    return f"the kernel refuses {value!r}: {os.strerror(number)}"


READ_ONLY = "can only be read"
