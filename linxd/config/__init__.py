# SPDX-License-Identifier: MIT
"""Files to desired state: what was declared for a scope, typed and checked, with the place of every fault.

It must not know loops, sources' behaviour, the bus or systemd; of the kernel it knows only what is written
in its headers."""

from __future__ import annotations

from linxd.config.build import declare
from linxd.config.faults import ConfigError, Fault, Severity, Undeclared
from linxd.config.files import DIRECTORIES, declared_names
from linxd.config.load import load, load_all
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
