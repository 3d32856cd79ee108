# SPDX-License-Identifier: MIT
"""Why a figure is what it is, in words, for the page: said where a target is not reached.

Prose by hand. Nothing here decides whether something is reached; that is in the figures.
"""

from __future__ import annotations

import re

BELOW: dict[str, str] = {
    "idle": """
        A wake-up each second is that of the sysctls of whose change the kernel tells nothing; a scope
        without such a key has none of them. Whoever mounts something on the machine meanwhile wakes all of
        them, twice at most in 0.1 s: that is how the end of a namespace is heard.
    """,
}
"""What is said below a row in any case."""

_REASONS: tuple[tuple[str, str, str, str], ...] = (
    ("heal", "", "within 6 times the C program", """
        **Six times the C program.** linxd decodes the event, glances at who wrote it, merges it with what
        else was told, compares with what is declared, asks whether the object is fought over or left alone,
        makes sure that the ledger knows it, and only then sends: some 50 calls of Python, seventy µs when
        they have just been made and two or three times that after a rest, when neither code nor data are in
        the processor's caches. The order of these steps is a promise (what is written is known to be ours
        whenever the process is killed) and not given up for speed.
    """),
    ("heal", "", "ahead of the pyroute2 loop by 5", """
        **The pyroute2 loop** decodes one event and sends one message. It is another few hundred µs of
        Python, without a ledger, without comparing, without asking whose the object is, and it brings back
        whatever goes, declared or not. A fifth of that is less than the interpreter needs to wake up, decode
        one message and send one.
    """),
    ("heal", "", "ahead of the shell loop by 5", """
        **The shell loop** starts one `ip`, `nft` or `sysctl` for each event, which takes this kernel little
        more than a millisecond. What linxd does takes a fifth of that, in one run a little less and in
        another a little more.
    """),
    ("apply", "the whole command", "", """
        **The whole command** starts Python and imports linxd, for a tenth of a second before the first
        request, and reads a TOML file, at 25 µs for a route, of which 10 are the TOML reader's; it is beside
        the C tools only where there is very much to do. A daemon pays that once.
    """),
    ("apply", "the pass", "within 1.3 times ip -batch", """
        **The pass beside `ip -batch`** looks at what there is, writes a ledger entry for each object ahead
        of the kernel, hears the answer to each, and reads all of them back. Of some 20 µs a route a third
        is the kernel's; planning, the ledger, the message and the account of it are some µs of Python each.
    """),
    ("apply", "nft", "within 1.3 times nft -f", """
        **The first load of a ruleset** has nft load the text in a namespace made for it, reads back what
        the kernel has there, and then loads that: nft's own work is done once, the kernel's twice. In that
        namespace nft has no right to anything outside, and so may not send more than 208 KiB at once: a
        large text is loaded in pieces, and half of the time goes there. With the compiled form from before
        (a restart, a flush) it is what the kernel needs.
    """),
    ("quiet", "foreign", "", """
        **Few among very many** are asked for one by one. What no question leads to (behind a rule or a
        narrower route, or IPv6's), and all of them where no events are heard, takes a filtered dump, and
        that of the connected routes another one.
    """),
    ("quiet", "nft", "", """
        **An unchanged ruleset** is one question for its generation, and the pass around it.
    """),
    ("scopes", "", "every heal under 50 ms", """
        **All at once** are as many processes that want the same few processors at the same moment: each
        heals before it tells of it, and the last one waits for the heals of all others.
    """),
    ("start", "", "", """
        **The start** is Python's, the imports of a daemon, and nft for the ruleset; the scripts beside it
        are the same commands without any of that. Python with asyncio alone takes twice what the script
        does.
    """),
    ("memory", "PSS", "14 MiB", """
        **Memory** is code: a daemon that has been imported and has read nothing takes all of it but a
        megabyte. 6 MiB are Python with asyncio and logging, half of a MiB the library of the bus, and the
        rest linxd's own modules, of which all that may be needed is imported before the daemon says that it
        is ready, since an upgrade may replace the files. To have one process for each namespace is a
        promise, and so nothing of it is shared.
    """),
)  # fmt: skip
"""Row, a pattern of the figure's name, part of the target's words, and the reason; the first one counts."""


def below(row: str) -> str:
    """What is to be said of a row in any case; empty where there is nothing."""
    return " ".join(BELOW.get(row, "").split())


def limit(row: str, name: str, words: str) -> str:
    """The reason for a target that is not reached; empty where none is known."""
    for where, pattern, target, text in _REASONS:
        if where == row and re.search(pattern, name) and target in words:
            return " ".join(text.split())
    return ""
