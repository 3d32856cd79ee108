# SPDX-License-Identifier: MIT
"""Python's collector of cycles, kept from holding up the event loop where there are very many objects.

A look through all of them stops everything, a thread's work and the event loop's alike: a second and more
while 100,000 declared objects are read. It knows nothing of what there is. Only a process that is ours alone
takes charge; a library's caller has a collector of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys

FEW = 20_000
"""Objects that may be looked through: some milliseconds."""
EVERY = 600.0
"""Seconds between two looks."""
SWITCH = 0.0003
"""Seconds after which a thread lets the event loop go on. Python's own 5 ms would be paid for each system
call, of which a pass makes a dozen before it lets others have their turn."""
_NEVER = 1 << 30


def take_charge() -> None:
    """From now on the collector, and how threads take turns, are ours to handle in this process.

    What is young is looked through as ever, some thousand objects at a time; what is old only by `tidy`.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    sys.setswitchinterval(SWITCH)


def settle() -> None:
    """What there is now stays: it is not looked through any more. What a beginning needed goes back to the
    system."""
    gc.freeze()
    trim()


def trim() -> None:
    """Have the C library give back what it only keeps in hand: a megabyte of twenty after a beginning."""
    with contextlib.suppress(OSError, AttributeError):  # musl has no such thing
        ctypes.CDLL(None).malloc_trim(0)


async def tidy() -> None:
    """Look through what is old now and then, if it is little. What is much (a declaration that was read
    since) has no cycles and goes when nobody needs it any more: it is not looked through from now on, and
    what comes after it is. What the C library has come to keep in hand meanwhile goes back: in a daemon
    that sees containers come and go it is half a kilobyte for each of them."""
    while True:
        await asyncio.sleep(EVERY)
        if len(gc.get_objects(generation=2)) <= FEW:
            gc.collect()
            trim()
        else:
            settle()
