# SPDX-License-Identifier: MIT
"""BLAKE2b, without the library for every other digest.

hashlib is a door to OpenSSL, and loads it: half a megabyte of every daemon for what Python has of its own.
"""

from __future__ import annotations

from _blake2 import blake2b

__all__ = ["blake2b"]
