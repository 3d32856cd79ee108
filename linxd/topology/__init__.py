# SPDX-License-Identifier: MIT
"""How the links of a host and of its scopes hang together: from what was seen to a picture of it, and from
the picture to text.

Pure functions over values; it opens no socket and no file, and writes nothing.
"""

from __future__ import annotations

from linxd.topology.dot import dot
from linxd.topology.form import as_json, from_json
from linxd.topology.picture import Edge, Node, Picture, Relation, ScopeSign
from linxd.topology.put import put_together
from linxd.topology.seen import Kept, Place, Scope, Seen
from linxd.topology.svg import svg
from linxd.topology.tree import Row, rows

__all__ = [
    "Edge",
    "Kept",
    "Node",
    "Picture",
    "Place",
    "Relation",
    "Row",
    "Scope",
    "ScopeSign",
    "Seen",
    "as_json",
    "dot",
    "from_json",
    "put_together",
    "rows",
    "svg",
]
