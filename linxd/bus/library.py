# SPDX-License-Identifier: MIT
"""What is used of dbus-next: messages, their forms on the wire, variants. Nothing else knows the library.

Its package imports everything that it has, among that GLib where there is one, in every daemon of a machine;
so its modules are imported without it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

__all__ = ["Message", "MessageFlag", "MessageType", "SignatureTree", "Unmarshaller", "Variant"]

_NAME = "dbus_next"

if _NAME not in sys.modules:
    _found = importlib.util.find_spec(_NAME)
    if _found is None or not _found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    _package: Any = types.ModuleType(_NAME)
    _package.__path__ = list(_found.submodule_search_locations)
    _package.__spec__ = importlib.machinery.ModuleSpec(_NAME, None, is_package=True)
    sys.modules[_NAME] = _package
    try:
        # Its modules import one another in a circle; begun here, they get round it.
        importlib.import_module(f"{_NAME}.errors")
        importlib.import_module(f"{_NAME}._private.unmarshaller")
    except Exception:
        # Another release, perhaps: the package knows the way.
        for _module in [name for name in sys.modules if name.partition(".")[0] == _NAME]:
            del sys.modules[_module]
        importlib.import_module(_NAME)
    else:
        # Whoever imports the package after us is to have all of it.
        del sys.modules[_NAME]

if TYPE_CHECKING:
    from dbus_next._private.unmarshaller import Unmarshaller
    from dbus_next.constants import MessageFlag, MessageType
    from dbus_next.message import Message
    from dbus_next.signature import SignatureTree, Variant
else:
    _modules = sys.modules
    Unmarshaller = _modules[f"{_NAME}._private.unmarshaller"].Unmarshaller
    MessageFlag = _modules[f"{_NAME}.constants"].MessageFlag
    MessageType = _modules[f"{_NAME}.constants"].MessageType
    Message = _modules[f"{_NAME}.message"].Message
    SignatureTree = _modules[f"{_NAME}.signature"].SignatureTree
    Variant = _modules[f"{_NAME}.signature"].Variant
