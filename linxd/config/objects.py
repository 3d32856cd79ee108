# SPDX-License-Identifier: MIT
"""What objects of every kind have in common in a file. Knows none of the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linxd.config.reader import Field
from linxd.config.values import word

CONFLICT = word("refuse", "take")
ON_CONFLICT = Field(CONFLICT, "what to do where a foreign object, different, stands in its place")


def take_of(values: Mapping[str, Any]) -> bool | None:
    """The object's own on-conflict; None leaves it to the scope's."""
    said = values.get("on-conflict")
    return None if said is None else said == "take"
