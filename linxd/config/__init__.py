# SPDX-License-Identifier: MIT
"""Files to desired state: what was declared for a scope, typed and checked, with the place of every fault.

It must not know loops, sources' behaviour, the bus or systemd; of the kernel it knows only what is written
in its headers. What is asked for here is imported when it is: a daemon has its files read by another process
(`linxd.config.apart`), and needs no more than what that comes to."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from linxd.config.build import declare
    from linxd.config.faults import ConfigError, Fault, Severity, Undeclared
    from linxd.config.files import DIRECTORIES, declared_names
    from linxd.config.loading import load, load_all
    from linxd.config.model import Attach, NetnsRef, ScopeConfig, valid_name

__all__ = [
    "DIRECTORIES",
    "Attach",
    "ConfigError",
    "Fault",
    "NetnsRef",
    "ScopeConfig",
    "Severity",
    "Undeclared",
    "declare",
    "declared_names",
    "load",
    "load_all",
    "valid_name",
]
_MODULES = {
    "build": ("declare",),
    "faults": ("ConfigError", "Fault", "Severity", "Undeclared"),
    "files": ("DIRECTORIES", "declared_names"),
    "loading": ("load", "load_all"),
    "model": ("Attach", "NetnsRef", "ScopeConfig", "valid_name"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            import importlib

            value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
