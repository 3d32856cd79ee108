# SPDX-License-Identifier: MIT
"""Loading a scope: its files found, read, merged, built and checked, also against the other scopes' files.

The one place where configuration meets the file system; what the files mean is not its business.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

from linxd.config.across import Summary, check_across, summarise
from linxd.config.build import as_warning, build
from linxd.config.document import Node, merge, parse
from linxd.config.faults import ConfigError, Fault, Refused, Undeclared, found
from linxd.config.files import DIRECTORIES, ROOT, Found, Opener, declared_names, find, main_file, unreadable
from linxd.config.model import HOST, ScopeConfig, valid_name
from linxd.config.names import IPROUTE2, Names


def load(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    directories: Sequence[str] = DIRECTORIES,
    check_others: bool = True,
    owners: Collection[int] | None = ROOT,
    iproute2: Sequence[str] = IPROUTE2,
) -> ScopeConfig:
    """The scope ``name`` (or "host") as declared.

    ``file`` stands in the place of all looked-up files; there are no drop-ins then, and what it names by
    ``file =`` or `include` lies in its own directory. ``directories``: where files are looked up.
    ``check_others``: hold it against the other scopes' files in ``directories``. ``owners``: user ids that
    files and directories may belong to, none being writable by anybody else; a user who loads a file of
    their own adds their id, and None looks at nothing. ``iproute2``: directories of iproute2's names.

    Raises `ConfigError` with all faults, or its subclass `Undeclared` when there is no file or it is masked.
    """
    if name != HOST and not valid_name(name):
        message = f"{found(name)} is no name of a scope, want 1 to 64 letters, digits, _ . and -"
        raise ConfigError([Fault("", 0, 0, "", message, "it begins with a letter, a digit or _")])
    opener = Opener(owners)
    roots: tuple[str, ...]
    if file is not None:
        path = os.path.abspath(file)
        files, roots = Found(name, path), (os.path.dirname(path),)
    else:
        files, roots = _find(name, directories), tuple(directories)
    trees = _read(files, opener)
    built = build(
        name,
        trees,
        names=Names(iproute2),
        open_file=lambda said_in, named: opener.included(said_in, named, roots),
        roots=roots,
    )
    if check_others:
        others: dict[str, Summary] = {}
        for other in declared_names(directories):
            if other != name:
                try:
                    others[other] = _summary(other, directories, opener)
                except ConfigError as error:
                    built.reader.faults += (as_warning(fault) for fault in error.faults)
        check_across(built, others)
    return built.finish()


def _find(name: str, directories: Sequence[str]) -> Found:
    first = os.path.join(directories[0], main_file(name)) if directories else name
    try:
        files = find(name, directories)
    except OSError as error:
        place = error.filename or first
        raise ConfigError([Fault(str(place), 0, 0, "", f"can't be read: {error.strerror}")]) from None
    if files.masked is not None:
        raise Undeclared([Fault(files.masked, 0, 0, "", f"masks {name}: nothing is declared")])
    if files.main is None:
        hint = "looked in " + ", ".join(directories)
        raise Undeclared([Fault(first, 0, 0, "", f"no file declares {name}", hint)])
    return files


def _read(files: Found, opener: Opener) -> list[Node]:
    """The trees of all files. Raises `ConfigError` with what is wrong in any of them."""
    faults: list[Fault] = []
    trees: list[Node] = []
    for layer, path in enumerate(files.files):
        try:
            trees.append(parse(path, opener.read(path), layer=layer))
        except Refused as error:
            faults.append(unreadable(path, error))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return trees


def _summary(name: str, directories: Sequence[str], opener: Opener) -> Summary:
    trees = _read(_find(name, directories), opener)
    tree = trees[0]
    for other in trees[1:]:
        tree = merge(tree, other)
    return summarise(name, tree)


def load_all(
    *,
    directories: Sequence[str] = DIRECTORIES,
    owners: Collection[int] | None = ROOT,
    iproute2: Sequence[str] = IPROUTE2,
) -> Iterator[tuple[str, ScopeConfig | ConfigError]]:
    """Every declared scope with what came of loading it, the host's first."""
    for name in declared_names(directories):
        try:
            yield name, load(name, directories=directories, owners=owners, iproute2=iproute2)
        except ConfigError as error:
            yield name, error
