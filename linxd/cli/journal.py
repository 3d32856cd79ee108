# SPDX-License-Identifier: MIT
"""`linxctl log`: patches, failures and states out of the journal, by their fields.

It reads what journalctl gives, and knows neither daemons nor the kernel. Anybody may write fields of any
name into the journal; entries count by who wrote them, which journald vouches for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from linxd.cli.once import Trouble
from linxd.cli.output import Subparsers
from linxd.cli.terminal import DIM, GREEN, RED, YELLOW, Paint
from linxd.config.model import HOST, valid_name
from linxd.log import FAILURE_ID, NEWS_ID, PATCH_ID, STATE_ID, WARNING, clean
from linxd.records import dataclass, field

USER = "linxd"
KINDS = {PATCH_ID: "patch", FAILURE_ID: "failure", STATE_ID: "state", NEWS_ID: "news"}


def add(commands: Subparsers) -> None:
    """The command's words."""
    parser = commands.add_parser(
        "log",
        help="show what was patched and who had broken it, out of the journal",
        description=(
            "Shows the patches of a scope out of the journal: what was done, and who had broken it where the"
            " kernel told. Entries count only if root's or linxd's own processes wrote them."
        ),
        epilog="exit codes: 0 done, 2 trouble",
    )
    parser.add_argument("scope", metavar="SCOPE", nargs="?", help="the scope; default: all")
    parser.add_argument("--full", action="store_true", help="show every op of each patch, however many")
    parser.add_argument("--all", action="store_true", help="show failures, states and news, too")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("-n", "--lines", metavar="N", type=_count, help="the last N entries only")
    parser.add_argument("--since", metavar="TIME", help="from then on, as journalctl(1) takes it")
    parser.add_argument("--until", metavar="TIME", help="until then")
    parser.add_argument("--directory", metavar="DIR", help="read the journal that lies there")
    parser.add_argument("--json", action="store_true", help="print for programs, one object a line")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


@dataclass
class Story:
    """One entry, or the parts of one, as journald kept it. ``ops``: those that are there, as `log.machine`
    wrote them; ``total`` the true count."""

    at: int
    """Microseconds of CLOCK_REALTIME."""
    kind: str
    scope: str
    source: str
    priority: int
    text: str
    details: list[str]
    fields: Mapping[str, Any]
    ops: list[Any]
    total: int = 0
    parts: set[int] = field(default_factory=lambda: {1})
    of: int = 1

    @property
    def whole(self) -> bool:
        """Whether every part is there."""
        return len(self.parts) == self.of


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    name: str | None = options.scope
    if name is not None and name != HOST and not valid_name(name):
        raise Trouble(f"{name!r} is no name of a scope")
    stories = _joined(_entries(_command(options)), full=options.full)
    if options.lines is not None and not options.follow:
        stories = iter(deque(stories, options.lines))
    paint = Paint(sys.stdout)
    for story in stories:
        if options.json:
            print(json.dumps(_form(story)))
        else:
            for line in _lines(story, paint, full=options.full):
                print(line)
        if options.follow:
            sys.stdout.flush()
    return 0


# -- asking journalctl
# ---------------------------------------------------------------------------------------------


def _command(options: argparse.Namespace) -> list[str]:
    # Without --all a field of more than 4096 bytes comes as null.
    words = ["journalctl", "--no-pager", "--quiet", "--output=json", "--all"]
    words += [f"--since={options.since}"] if options.since else []
    words += [f"--until={options.until}"] if options.until else []
    words += [f"--directory={options.directory}"] if options.directory else []
    if options.follow:
        words += ["--follow", f"--lines={options.lines if options.lines is not None else 10}"]
    if not options.full:
        # All parts but the first are for debugging, as far as journald knows.
        words.append("--priority=info")
    words += ["SYSLOG_IDENTIFIER=linxd"]
    words += [f"_UID={uid}" for uid in _uids()]
    words += [f"MESSAGE_ID={one}" for one, kind in KINDS.items() if options.all or kind == "patch"]
    words += [f"LINX_SCOPE={options.scope}"] if options.scope is not None else []
    return words


def _uids() -> tuple[int, ...]:
    with contextlib.suppress(KeyError):
        return (0, pwd.getpwnam(USER).pw_uid)
    return (0,)


def _entries(command: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """What journalctl gives, one by one. Raises Trouble."""
    if shutil.which(command[0]) is None:
        raise Trouble("there is no journalctl: without systemd a daemon's log is on its stderr")
    # What it complains of goes to our stderr as it is.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and _vouched_for(entry):
                        yield entry
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
    if code:
        raise Trouble(f"journalctl ended with code {code}")


def _vouched_for(entry: Mapping[str, Any]) -> bool:
    """Whether who wrote it may speak for the scope: root for all, the daemon of a namespace for its own."""
    if entry.get("_UID") == "0":
        return True
    return entry.get("_SYSTEMD_UNIT") == f"linx-reconcile@{_text(entry.get('LINX_SCOPE'))}.service"


# -- entries to stories
# --------------------------------------------------------------------------------------------


def _joined(entries: Iterable[Mapping[str, Any]], *, full: bool) -> Iterator[Story]:
    """Stories in the order in which they began; with ``full``, the parts of one put together again."""
    open_ones: dict[tuple[object, ...], Story] = {}
    waiting: deque[Story] = deque()
    for entry in entries:
        story, part = _story(entry)
        key = (story.scope, story.source, entry.get("_PID"), entry.get("_BOOT_ID"))
        if not full:
            if part == 1:
                yield story
            continue
        begun = open_ones.get(key)
        if part > 1 and begun is not None and part not in begun.parts and begun.of == story.of:
            begun.parts.add(part)
            begun.ops += story.ops
            begun.details += story.details
            if begun.whole:
                del open_ones[key]
        else:
            # Whatever its predecessor still lacks was lost: a daemon says one thing after the other.
            open_ones.pop(key, None)
            waiting.append(story)
            if not story.whole:
                open_ones[key] = story
        while waiting and all(waiting[0] is not one for one in open_ones.values()):
            yield waiting.popleft()
    yield from waiting


def _story(entry: Mapping[str, Any]) -> tuple[Story, int]:
    """One entry, and which part it is."""
    text, *details = _text(entry.get("MESSAGE")).split("\n")
    ops = []
    for one in _texts(entry.get("LINX_OP")):
        with contextlib.suppress(ValueError):
            ops.append(json.loads(one))
    part, _, of = _text(entry.get("LINX_PART")).partition("/")
    number, parts = _number(part) or 1, _number(of) or 1
    story = Story(
        at=_number(entry.get("_SOURCE_REALTIME_TIMESTAMP")) or _number(entry.get("__REALTIME_TIMESTAMP")),
        kind=KINDS.get(_text(entry.get("MESSAGE_ID")), "news"),
        scope=_text(entry.get("LINX_SCOPE")),
        source=_text(entry.get("LINX_SOURCE")),
        priority=_number(entry.get("PRIORITY")),
        text=text,
        details=[line.removeprefix("  ") for line in details if not line.startswith("  … and ")],
        fields=entry,
        ops=ops,
        total=_number(entry.get("LINX_OPS")),
        parts={number},
        of=max(number, parts),
    )
    return story, number


def _texts(value: object) -> list[str]:
    """A field's values: journalctl gives one as a string, several as an array, bytes as an array of
    numbers."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    if value and all(isinstance(one, int) and 0 <= one < 256 for one in value):
        return [bytes(value).decode("utf-8", "replace")]
    return [text for one in value for text in _texts(one)]


def _text(value: object) -> str:
    return next(iter(_texts(value)), "")


def _number(value: object) -> int:
    text = _text(value)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else 0


# -- stories to lines
# ----------------------------------------------------------------------------------------------


def _lines(story: Story, paint: Paint, *, full: bool) -> Iterator[str]:
    moment = time.strftime("%b %d %H:%M:%S", time.localtime(story.at / 1e6))
    where, colon, rest = story.text.partition(": ")
    colour: tuple[str, ...] = ()
    if story.kind == "patch" and rest.startswith("restored"):
        colour = (GREEN,)
    elif story.priority <= WARNING:
        colour = (RED,) if story.priority < WARNING else (YELLOW,)
    yield f"{paint(moment, DIM)} {paint(clean(where + colon), DIM)}{paint(clean(rest), *colour)}"
    if full:
        yield from (f"    {clean(line)}" for line in story.details)
        missing = story.total - len(story.ops)
        if story.kind == "patch" and missing > 0:
            yield f"    … and {missing} more, which the journal does not have"


def _form(story: Story) -> dict[str, object]:
    fields = story.fields
    form: dict[str, object] = {
        "time_usec": story.at,
        "kind": story.kind,
        "scope": story.scope,
        "source": story.source,
        "text": story.text,
    }
    if story.kind == "patch":
        form |= {"total": story.total, "ops": story.ops}
    for name, key in (("trigger", "LINX_TRIGGER"), ("state", "LINX_STATE")):
        if value := _text(fields.get(key)):
            form[name] = value
    for name, key in (("pass_usec", "LINX_PASS_USEC"), ("heal_usec", "LINX_HEAL_USEC"), ("errno", "ERRNO")):
        if number := _number(fields.get(key)):
            form[name] = number
    if pid := _number(fields.get("LINX_CULPRIT_PID")):
        form["culprit"] = {
            "pid": pid,
            "comm": _text(fields.get("LINX_CULPRIT_COMM")) or None,
            "unit": _text(fields.get("LINX_CULPRIT_UNIT")) or None,
            "confirmed": _text(fields.get("LINX_CULPRIT_CONFIRMED")) == "1",
        }
    if story.kind != "patch" and story.details:
        form["details"] = story.details
    return form
