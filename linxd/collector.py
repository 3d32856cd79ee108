# SPDX-License-Identifier: MIT
"""Python's collector of cycles, kept from holding up the event loop while much is made at once.

It stops everything while it looks through what there is, a thread's work and the event loop's alike: 100 ms
and more with the plan for 100,000 objects. It knows nothing of what is made. Only a process that is ours
alone takes charge; a library's caller has a collector of their own.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MANY = 10_000
"""Objects from which on those just made are not looked through."""
SWITCH = 0.001
"""Seconds after which a thread lets the event loop go on. Python's own 5 ms would be paid for each system
call."""

_lock = threading.Lock()
_charge = False
_working = 0


def take_charge() -> None:
    """From now on the collector, and how threads take turns, are ours to handle in this process."""
    global _charge
    _charge = True
    sys.setswitchinterval(SWITCH)


def settle() -> None:
    """What there is now stays: it is not looked through any more."""
    gc.freeze()


def undisturbed(work: Callable[[], T]) -> T:
    """Do ``work``, in whichever thread, without the collector.

    Of what it made and keeps the collector knows nothing afterwards; without cycles in it, it goes when
    nobody needs it any more.
    """
    global _working
    if not _charge:
        return work()
    with _lock:
        _working += 1
        gc.disable()
    try:
        return work()
    finally:
        with _lock:
            _working -= 1
            if not _working:
                if gc.get_count()[0] > MANY:
                    gc.freeze()
                gc.enable()
