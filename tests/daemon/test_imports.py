# SPDX-License-Identifier: MIT
"""What a daemon loads it keeps for as long as it runs, once for each container: what only other commands
need must not come with it."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from linxd.cli import linxctl
from linxd.cli.daemon import Options, options_of
from linxd.lean import _Later
from tests.daemon.running import Daemon, ip

ROOT = Path(__file__).resolve().parents[2]
KEPT_OUT = {
    "_hashlib": "OpenSSL, for digests that Python has of its own",
    "dataclasses": "it writes all methods of all classes at once",
    "asyncio.sslproto": "what ssl would be for",
    "argparse": "a megabyte with what it needs, for two words that units always say",
    "dbus_next.aio": "a client that ours replaces",
    "ast": "Python in Python, for inspect",
    "datetime": "for TOML",
    "difflib": "for slips alone",
    "ipaddress": "the C library spells addresses",
    "inspect": "for what asyncio never does here",
    "linxd.bus.attach": "the host's",
    "linxd.bus.manager": "the host's",
    "linxd.bus.introspect": "for the documentation",
    "linxd.cli.capture": "a command",
    "linxd.cli.linxctl": "a command",
    "linxd.config.loading": "files are read by another process",
    "linxd.config.schema": "for the documentation",
    "glob": "for what is included by a pattern",
    "linecache": "for errors that are nobody's",
    "locale": "for letters that other programs say",
    "lzma": "comes with shutil",
    "pathlib": "brings urllib, to put a path together",
    "pyroute2": "for tests",
    "random": "for a few milliseconds more or less",
    "shutil": "brings four compressors",
    "ssl": "nobody is asked in secret",
    "string": "for a log's forms that nobody asks for",
    "subprocess": "programs are begun in our own ways",
    "tempfile": "brings shutil",
    "tomllib": "files are read by another process",
    "traceback": "for errors that are nobody's",
    "urllib": "for a percent sign in an address",
    "xml": "for the documentation",
}


def test_a_daemon_that_has_run_and_healed_has_loaded_nothing_of_it_either(
    netns: str, tmp_path: Path
) -> None:
    file = tmp_path / "scope.toml"
    file.write_text(
        '[link.lo]\naddresses = ["192.0.2.1/32"]\n[sysctl]\n"net.ipv4.ip_forward" = 1\n'
        '[netfilter]\nruleset = "table inet filter { chain input { type filter hook input priority 0; } }"\n'
    )
    with Daemon(netns, file, tmp_path / "state", env={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
        daemon.converged()
        ip(netns, "address", "del", "192.0.2.1/32", "dev", "lo")
        daemon.line("restored address")
        daemon.signal(signal.SIGHUP)
        daemon.line("reload|unchanged|read again")
        assert daemon.stop() == 0
        loaded = {
            line.rpartition("|")[2].strip() for line in daemon.lines if line.startswith("import time:")
        }
    assert "linxd.sources.rtnl.source" in loaded
    # That of ssl is told though it is refused.
    assert {name: why for name, why in KEPT_OUT.items() if name in loaded and name != "ssl"} == {}


def test_a_daemon_loads_what_it_needs() -> None:
    code = (
        "import sys; from linxd.cli.daemon import options_of; options_of(sys.argv[1:])\n"
        "import linxd.lean; import linxd.cli.serving; print(*sys.modules)"
    )
    words = ["--scope", "c1", "--state-dir", "/run/x"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "linxd.sources.rtnl.source" in loaded
    assert {name: why for name, why in KEPT_OUT.items() if name in loaded} == {}
    assert "linxd.cli.terminal" not in loaded, "for those who have no journal"


def test_the_command_line_says_the_same_either_way() -> None:
    words = ["--scope", "c1", "--file", "f", "--state-dir", "d", "--debug"]
    said = {"scope": "c1", "file": "f", "state_dir": "d", "reload": False, "debug": True}
    assert vars(options_of(words)) == said
    # The second form is argparse's to read.
    assert vars(options_of([f"{words[0]}={words[1]}", *words[2:]])) == said
    assert vars(options_of(["--reload", "--scope", "c1"])) == vars(Options()) | {
        "scope": "c1",
        "reload": True,
    }


FOR_OTHER_COMMANDS = {
    "linxd.cli.watch": "another command",
    "linxd.sources.rtnl.capture": "another command",
    "linxd.topology": "another command",
    "ssl": "nobody is asked in secret",
    "tempfile": "for a plan's copies of ledgers",
    "xml": "brings http, and that ssl",
}


def test_a_command_loads_nothing_of_others() -> None:
    code = (
        "import sys; from linxd.cli.linxctl import parser; parser('apply').parse_args(sys.argv[1:])\n"
        "import linxd.cli.pager; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "apply", "--once", "x.toml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "linxd.cli.plan" in loaded
    assert {name: why for name, why in FOR_OTHER_COMMANDS.items() if name in loaded} == {}


def test_what_finds_a_namespace_loads_no_more_than_it_needs_either() -> None:
    code = "import sys, linxd.cli.link; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"ssl", "inspect", "subprocess", "traceback"} & set(done.stdout.split())


def test_each_command_is_in_the_module_that_is_named_for_it() -> None:
    def said(parser: argparse.ArgumentParser) -> list[str]:
        (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        return list(commands.choices)

    assert said(linxctl.parser()) == list(linxctl.COMMANDS)
    for command in linxctl.COMMANDS:
        assert command in said(linxctl.parser(command))
    assert said(linxctl.parser("no-command")) == list(linxctl.COMMANDS)


@pytest.mark.parametrize(
    "words", [[], ["--scope"], ["--scope", "--debug"], ["--scope", "c1", "more"], ["--no"]]
)
def test_what_makes_no_sense_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options_of(words)
    assert end.value.code == 2
    assert "usage: linxd" in capsys.readouterr().err


PUT_OFF = """
import sys, linxd.lean, linxd.cli.serving
put_off = {*linxd.lean._RARELY, "ssl"}
print(*put_off & set(sys.modules))
import asyncio, logging
record = logging.LogRecord("name", 20, "path", 1, "said", (), None)
print(logging.Formatter("{levelname} {message}", style="{").format(record))
print(logging.Formatter("${levelname} $message", style="$").format(record))
try:
    1 / 0
except ZeroDivisionError:
    print(logging.Formatter().formatException(sys.exc_info()).splitlines()[-1])
import string
print(string.Template("$a").substitute(a=1), string.Formatter().format("{0}", 2))
async def begun():
    process = await asyncio.create_subprocess_exec("echo", "x", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode().strip()
print(asyncio.run(begun(), debug=True))
print(*sorted(put_off & set(sys.modules)))
"""


def test_what_is_put_off_is_there_when_it_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PUT_OFF], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, *rest, last = done.stdout.splitlines()
    assert first == ""
    assert rest == ["INFO said", "INFO said", "ZeroDivisionError: division by zero", "1 2", "x"]
    assert {"string", "subprocess", "traceback"} <= set(last.split())
    assert done.stderr == ""


def test_a_module_that_is_put_off_may_be_asked_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by what is imported while it stands in: another Python's asyncio may."""
    later = _Later("colorsys")
    monkeypatch.setitem(sys.modules, "colorsys", later)
    asked = later.hsv_to_rgb
    assert sys.modules["colorsys"] is not later
    assert asked is later.hsv_to_rgb is sys.modules["colorsys"].hsv_to_rgb


def test_the_end_of_options_names_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Older versions of Python take it for one, and say which ones there are; later ones leave it out."""
    with contextlib.suppress(SystemExit):
        linxctl.main(["--", "check", "/nowhere.toml"])
    said = capsys.readouterr().err
    assert said
    assert "choose from" not in said or "topology" in said
