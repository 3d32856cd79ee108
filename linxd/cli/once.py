# SPDX-License-Identifier: MIT
"""A scope for the length of one command: its files, its namespace, its sources and its ledgers, without a
daemon.

What the command then does with them is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from linxd import statedir
from linxd.access import Kernel
from linxd.config import ConfigError, NetnsRef, ScopeConfig, load, valid_name
from linxd.config.model import HOST, NETNS_DIRECTORY
from linxd.ledger import FileLedger
from linxd.netns import Namespace, NotThere, Refused, boot_id, enter, find, open_host
from linxd.part import Opened
from linxd.records import dataclass
from linxd.scope import NOTHING, ORDER, declared

T = TypeVar("T")


class Trouble(Exception):  # noqa: N818 - it becomes an exit code
    """The command can't do what was asked; the text is for people."""

    def __init__(self, text: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = tuple(details)


class Absent(Trouble):
    """There is no such namespace."""


class Barred(Trouble):
    """It takes root to go there."""


def finished(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to, in an event loop of its own. `asyncio.run` must not get to see it: before
    Python 3.12 it has a text made of its task, with the result in it, to put back the handler of SIGINT,
    and that of 10,000 ops takes longer than to do them."""
    come: list[T] = []

    async def main() -> None:
        come.append(await work)

    asyncio.run(main())
    return come[0]


def name_of(file: str) -> str:
    """The scope that a file is for, by its name."""
    stem = os.path.basename(file).removesuffix(".toml")
    if stem != HOST and not valid_name(stem):
        raise Trouble(f"{file}: {stem!r} is no name of a scope; say which one it is for with --scope")
    return stem


def configured(scope: str | None, file: str | None, *, drafts: bool = False) -> ScopeConfig:
    """A scope's configuration. ``drafts``: FILE may be anybody's. Raises Trouble with every fault."""
    name = scope or (name_of(file) if file else "")
    try:
        if file is not None and drafts:
            return load(name, file=file, owners=None)
        return load(name, file=file)
    except ConfigError as error:
        raise Trouble(
            "the configuration does not load", details=[str(fault) for fault in error.faults]
        ) from None


def default_netns(name: str) -> NetnsRef:
    """The namespace of a scope that says nothing of it."""
    return NetnsRef("host") if name == HOST else NetnsRef("path", f"{NETNS_DIRECTORY}/{name}")


def go_to(name: str, ref: NetnsRef) -> Namespace:
    """Enter the namespace of a scope. Raises Trouble."""
    try:
        namespace = find(ref)
        if namespace.host and name != HOST:
            raise Refused(f"{ref} is the host's own network namespace, which only the scope host may touch")
        if not namespace.home:
            enter(namespace.fd)
    except NotThere as error:
        raise Absent(str(error)) from None
    except Refused as error:
        raise Trouble(str(error)) from None
    except PermissionError as error:
        raise Barred(f"{ref}: {error.strerror} (needs root)") from None
    except OSError as error:
        raise Trouble(f"{ref}: {error.strerror}") from None
    return namespace


@dataclass
class Piece:
    """One source of the scope."""

    name: str
    desired: Any
    opened: Opened
    ledger: FileLedger


@contextlib.contextmanager
def visiting(
    name: str,
    ref: NetnsRef,
    config: ScopeConfig | None,
    base: str,
    *,
    write: bool,
    sources: Sequence[str] = ORDER,
) -> Iterator[list[Piece]]:
    """The ``sources`` of a scope in the order of first passes, in its namespace, with what they own.

    ``write``: under the namespace's lock and with the ledgers themselves; else with copies of them, whoever
    serves the namespace. Without ``config`` nothing is declared. Raises Trouble.
    """
    with contextlib.ExitStack() as stack:
        host_fd = open_host()
        if host_fd is not None:
            stack.callback(os.close, host_fd)
        namespace = go_to(name, ref)
        stack.callback(namespace.close)
        try:
            if write:
                stack.callback(statedir.Lock(base, namespace.cookie, name).release)
                directory = statedir.prepare(base, name)
                stack.callback(os.close, statedir.occupy(base, name))
            else:
                import tempfile

                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="linxctl-"))
                _copy(os.path.join(base, name), directory)
        except statedir.Busy as busy:
            raise Trouble(str(busy)) from None
        except OSError as error:
            raise Trouble(f"{error.filename}: {error.strerror}") from None
        kernel = Kernel(directory, namespace.cookie, boot_id(base), host_fd=host_fd)
        known = statedir.ledgers(os.path.dirname(directory), os.path.basename(directory))
        pieces = []
        for source in sources:
            desired = None if config is None else declared(config, source)
            if desired is None and source not in known:
                continue
            try:
                opened = kernel.open(source)
            except OSError as error:
                raise Trouble(f"{source}: {error.strerror or error}") from None
            stack.callback(opened.close)
            ledger = kernel.ledger(source)
            stack.callback(ledger.close)
            pieces.append(Piece(source, NOTHING[source] if desired is None else desired, opened, ledger))
        yield pieces


def _copy(source: str, target: str) -> None:
    """Ledgers as they are now. A line that is being written is left out by whoever reads them."""
    import shutil

    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.listdir(source):
            if entry.endswith(statedir.LEDGER):
                shutil.copyfile(
                    os.path.join(source, entry), os.path.join(target, entry), follow_symlinks=False
                )
