# SPDX-License-Identifier: MIT
"""Objects by what people call them: as they are listed, as the journal has them, or shorter.

Pure; what objects there are is for the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from linxd.patch import Key


def find(objects: Iterable[tuple[Key, str]], text: str) -> list[tuple[Key, str]]:
    """The objects, each a key and a name, that ``text`` may mean; several where it does not say which.

    ``address 10.0.0.5/24 dev eth0`` is the whole name; ``on`` counts as ``dev``; the kind, or the end, may
    be left out (``10.0.0.5/24``, ``route default``). The key as JSON, which ListObjects gives as ``id``, is
    taken, too. What fits best counts alone: the whole name before the others.
    """
    wanted = " ".join(text.split())
    wanted = wanted.replace(" on ", " dev ") if wanted.startswith(("address ", "neighbour ")) else wanted
    key = _key(text)
    found: tuple[list[tuple[Key, str]], ...] = ([], [], [])
    for one in objects:
        name = one[1]
        bare = name.partition(" ")[2]
        if name == wanted or one[0] == key:
            found[0].append(one)
        elif bare == wanted:
            found[1].append(one)
        elif name.startswith(f"{wanted} ") or bare.startswith(f"{wanted} "):
            found[2].append(one)
    return next((some for some in found if some), [])


def _key(text: str) -> Key | None:
    """A key that stands there as JSON."""
    try:
        form = json.loads(text)
    except ValueError:
        return None
    return tuple(form) if isinstance(form, list) else None
