# SPDX-License-Identifier: MIT
"""Names for numbers as iproute2 keeps them: routing tables, scopes, device groups, realms, traffic classes.

It reads iproute2's files and knows nothing of who asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from linxd.config.faults import did_you_mean

IPROUTE2 = ("/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2")

_BUILT_IN: Mapping[str, Mapping[str, int]] = {
    "rt_tables": {"local": 255, "main": 254, "default": 253},
    "rt_scopes": {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255},
    "group": {"default": 0},
    "rt_realms": {},
    "rt_dsfield": {
        "CS0": 0x00, "CS1": 0x20, "CS2": 0x40, "CS3": 0x60, "CS4": 0x80, "CS5": 0xA0, "CS6": 0xC0,
        "CS7": 0xE0,
        "AF11": 0x28, "AF12": 0x30, "AF13": 0x38, "AF21": 0x48, "AF22": 0x50, "AF23": 0x58, "AF31": 0x68,
        "AF32": 0x70, "AF33": 0x78, "AF41": 0x88, "AF42": 0x90, "AF43": 0x98, "EF": 0xB8,
    },
}  # fmt: skip
"""What iproute2's own code knows without any file (lib/rt_names.c), and RFC 2474, 2597 and 3246 for
rt_dsfield."""


class Names:
    """Names by file, read when first asked for.

    A file is taken from the first directory that has it; ``FILE.d/*.conf`` of all directories are added, the
    same name in an earlier one hiding later ones (iproute2's lib/rt_names.c). What can't be read or makes no
    sense is passed over, as iproute2 does: the name is then unknown, which is said where it is used.
    """

    __slots__ = ("_known", "directories")

    def __init__(self, directories: Sequence[str] = IPROUTE2) -> None:
        self.directories = tuple(directories)
        self._known: dict[str, Mapping[str, int]] = {}

    def of(self, file: str) -> Mapping[str, int]:
        """Numbers by name, the built-in ones included."""
        known = self._known.get(file)
        if known is None:
            found: dict[str, int] = {}
            for path in self._files(file):
                for name, number in _entries(path):
                    found.setdefault(name, number)
            known = self._known[file] = dict(_BUILT_IN.get(file, {})) | found
        return known

    def hint(self, file: str, word: str) -> str:
        """What to do about a word that is no name: one that is near, or where names come from."""
        near = did_you_mean(word, self.of(file))
        return near or (f"names come from {self.directories[0]}/{file}" if self.directories else "")

    def _files(self, file: str) -> Iterable[str]:
        for directory in self.directories:
            path = os.path.join(directory, file)
            if os.path.exists(path):
                yield path
                break
        more: dict[str, str] = {}
        for directory in self.directories:
            folder = os.path.join(directory, file + ".d")
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                if name.endswith(".conf") and not name.startswith("."):
                    more.setdefault(name, os.path.join(folder, name))
        for name in sorted(more):
            yield more[name]


def _entries(path: str) -> Iterable[tuple[str, int]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) != 2:
            continue
        try:
            number = int(words[0], 16 if words[0].lower().startswith("0x") else 10)
        except ValueError:
            continue
        yield words[1], number
