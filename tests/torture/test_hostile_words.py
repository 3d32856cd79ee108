# SPDX-License-Identifier: MIT
"""Words that others chose: names with line ends and escapes, paths that lead elsewhere, files that never
end, rulesets with bytes changed. Nothing crashes, hangs or grows, the log can't be forged, and no file is
made where none belongs.

`LINXD_EXAMPLES` is how many spoilt rulesets there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linxd.config import ConfigError, load
from linxd.sources.netfilter.compile import Compiler
from linxd.sources.netfilter.faults import RulesetError
from linxd.sources.netfilter.model import Desired, Ruleset
from tests.torture.bed import PATIENCE, ROOT, Daemon, Namespace, linxctl, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces are made")

EXAMPLES = int(os.environ.get("LINXD_EXAMPLES", 60))
SEED = int(os.environ.get("LINXD_FUZZ_SEED", random.randrange(1 << 32)))
EVIL = "x\nlx/rtnl: restored nothing\r\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028"
"""A line of its own, and what drives a terminal."""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as one:
        one.batch(["link set lo up", "link add e0 type veth peer name f0", "link set e0 up"])
        yield one


def written(directory: Path, text: str) -> Path:
    file = directory / "scope.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


# -- the log and the terminal
# ------------------------------------------------------------------------------------------------------


def test_names_that_others_chose_forge_no_line(namespace: Namespace, tmp_path: Path) -> None:
    """Of links, of what stands on them, of nftables' comments, and of the process that did it."""
    text = """
[link.e0]
alias = "as declared"
[[route]]
to = "192.0.2.0/24"
dev = "e0"
[netfilter]
ruleset = '''
table inet ours {
	chain c { type filter hook input priority 0; counter; }
}
'''
"""
    evil_ip = tmp_path / "ip\n\x1b[31m]"
    evil_nft = tmp_path / "nft\x1b[2J\nx"
    for program, found in ((evil_ip, shutil.which("ip")), (evil_nft, shutil.which("nft"))):
        assert found is not None
        shutil.copy(found, program)
    within = ["ip", "netns", "exec", namespace.name]
    with Daemon(namespace.name, written(tmp_path, text), tmp_path) as daemon:
        daemon.started()
        subprocess.run([*within, evil_ip, "link", "set", "e0", "alias", EVIL], check=True)
        daemon.wait_for("restored link e0: alias")
        subprocess.run([*within, evil_ip, "route", "del", "192.0.2.0/24"], check=True)
        daemon.wait_for("restored route")
        rule = 'add rule inet ours c counter comment "\x1b[2Jx"'
        subprocess.run([*within, evil_nft, rule], check=True)
        daemon.wait_for("removed rule")
        name = "e\x1b[31m\x07z"
        subprocess.run([*within, evil_ip, "link", "add", "name", name, "type", "bridge"], check=True)
        subprocess.run([*within, evil_ip, "link", "set", "e0", "master", name], check=True)
        subprocess.run([*within, evil_ip, "link", "set", "e0", "alias", EVIL], check=True)
        until(
            lambda: "as declared" in namespace.ip("link", "show", "e0"),
            lambda: f"not healed\n{daemon.said}",
        )
        shown = [
            linxctl("diff", namespace.name, "--file", str(daemon.file), state=daemon.state).stdout,
            linxctl("status", namespace.name, state=daemon.state).stdout,
            daemon.said,
        ]
        assert daemon.stop() == 0
    for text in shown:
        for line in text.splitlines():
            assert line.isprintable(), line
    prefixes = (f"{namespace.name}:", f"{namespace.name}/", "    ")
    assert [line for line in daemon.said.split("\n") if line and not line.startswith(prefixes)] == []


def test_what_is_captured_loads_whatever_things_are_called(namespace: Namespace, tmp_path: Path) -> None:
    evil = [
        "ip", "-n", namespace.name, "link", "set", "e0", "alias",
        EVIL.replace("\x07", "").replace("\x9b", "") + '"""\\',
    ]  # fmt: skip
    subprocess.run(evil, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "linxd.cli.linxctl", "capture", "--netns", namespace.name],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file = written(tmp_path, done.stdout)
    load(namespace.name, file=str(file))
    state = tmp_path / "state"
    done = linxctl("diff", namespace.name, "--file", str(file), state=state)
    assert done.returncode == 0, done.stdout + done.stderr


# -- names and paths
# ------------------------------------------------------------------------------------------------------

NAMES = (
    "../x", "..", "/etc", "x\n", "x\x1b[2J", "", "%i", "x" * 5000, "host/../x", ".lock",
)  # fmt: skip


_EACH = """
import contextlib, io, json, sys
from linxd.cli import daemon, linxctl

state, file, *names = sys.argv[1:]
for name in names:
    for main, words in (
        (daemon.main, [f"--scope={name}", "--file", file, "--state-dir", state]),
        (daemon.main, [f"--scope={name}", "--reload", "--state-dir", state]),
        (linxctl.main, ["diff", "--state-dir", state, "--", name]),
        (linxctl.main, ["release", "--state-dir", state, "--", name]),
    ):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                code = main(words)
            except SystemExit as end:
                code = end.code
        print(json.dumps([words, code, said.getvalue()]))
"""


def test_no_file_is_made_for_a_name_that_no_scope_can_have(tmp_path: Path) -> None:
    state = tmp_path / "in" / "state"
    file = written(tmp_path, "")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", _EACH, str(state), str(file), *NAMES],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 4 * len(NAMES)
    for words, code, said in results:
        assert code not in (None, 0, 70), (words, code, said)
        assert said, words
        assert "Traceback" not in said
        assert all(line.isprintable() for line in said.split("\n")), (words, said)
    assert sorted(tmp_path.rglob("*")) == before


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


@pytest.mark.parametrize(
    "what",
    [
        "/dev/zero", "/dev/urandom", "/proc/self/mem", "/proc/kmsg", "/etc/shadow", "../../../../etc/shadow",
        "fifo", "directory", "link", "huge", "missing", "nul\0name", "loop",
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["file", "include"])
def test_a_path_that_leads_elsewhere_is_a_fault(how: str, what: str, tmp_path: Path) -> None:
    """Refused at once, within a bounded memory, and nothing of what is there is shown."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    quoted = what.replace("\0", "\\u0000")
    text = f'[netfilter]\nfile = "{quoted}"\n'
    if how == "include":
        # nft knows no such escape
        text = f"[netfilter]\nruleset = '''\ninclude \"{what.replace(chr(0), '')}\"\n'''\n"
    path = written(tmp_path, text)
    with Namespace() as namespace:
        words = ["diff", namespace.name, "--file", str(path), "--state-dir", str(tmp_path / "state")]
        done = subprocess.run(
            [sys.executable, "-m", "linxd.cli.linxctl", *words],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE, preexec_fn=_limited,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 2, done
    assert "scope.toml" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert "root:" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["x" * 16, ".", "..", "a/b", "a b", "a\\nb", "a\\u0000b", "", "a:b", "\\u001b[2J", "%d"]
)
def test_a_name_that_no_link_can_have_is_a_fault_with_its_place(name: str, tmp_path: Path) -> None:
    for text in (
        f'[link."{name}"]\nmtu = 1500\n',
        f'[[route]]\nto = "192.0.2.0/24"\ndev = "{name}"\n',
        f'[[rule]]\nfrom = "192.0.2.0/24"\niif = "{name}"\ntable = 100\n',
    ):
        with pytest.raises(ConfigError) as caught:
            load("c1", file=str(written(tmp_path, text)))
        for fault in caught.value.faults:
            assert re.match(r".*scope\.toml:\d+", str(fault))
            assert str(fault).isprintable()


# -- rulesets
# ------------------------------------------------------------------------------------------------------

TOKENS = (
    "{", "}", "{{{", ";", "\\\n", '"', "'", "\0", "\x1b", 'include "/etc/*"', "define x = $x", "$x", "@",
    "flush ruleset", "table inet t {", "delete table inet t", "add chain inet t c", "element", "0/0", "::/0",
    "4294967296", "-1", "1-0", "vmap", "jump", "goto c", "type nat hook prerouting priority 0;", "\u2028",
    "elements = {", "ct state", "#", "/*", "counter", "é", "\r\n", "policy drop;", "list ruleset", "monitor",
    "reset", "iif lo", "meter m size 1 { ip saddr }", "synproxy", "queue", "xt target LOG", "describe ip",
)  # fmt: skip


def spoilt(rng: random.Random, text: str) -> str:
    """A ruleset with some of it gone, doubled, moved, or of another kind."""
    for _ in range(rng.randrange(1, 6)):
        at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        end = min(end, at + rng.choice((0, 1, 5, 40, 4000)))
        put = rng.choice((rng.choice(TOKENS), "", text[at:end] * 2, chr(rng.randrange(1, 0x3000))))
        text = text[:at] + put + text[end:]
    return text


def test_a_spoilt_ruleset_compiles_or_is_a_fault(tmp_path: Path) -> None:
    """And leaves nothing behind: no process, no file, no descriptor."""
    print(f"seed {SEED}, {EXAMPLES} rulesets")
    rng = random.Random(SEED)
    corpus = [path.read_text() for path in sorted((ROOT / "tests/netfilter/corpus").glob("*.nft"))]
    corpus = [text for text in corpus if len(text) < 5000]
    outcomes = {"compiled": 0, "refused": 0}

    async def breathe() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        fds = len(os.listdir("/proc/self/fd"))
        for _ in range(EXAMPLES):
            text = spoilt(rng, rng.choice(corpus))
            desired = Desired((Ruleset(text, "1.nft", 1, str(tmp_path)),), (str(tmp_path),))
            try:
                await asyncio.wait_for(Compiler().compile(desired, lambda name: 1, breathe), PATIENCE)
                outcomes["compiled"] += 1
            except RulesetError as error:
                outcomes["refused"] += 1 if error.faults else 1000
            except BaseException:
                print(text)
                raise
        assert len(os.listdir("/proc/self/fd")) <= fds + 2

    asyncio.run(main())
    print(outcomes)
    assert sum(outcomes.values()) == EXAMPLES
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if "nft" in Path(f"/proc/{pid}/comm").read_text()]
    assert list(tmp_path.iterdir()) == []
