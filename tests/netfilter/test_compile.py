# SPDX-License-Identifier: MIT
"""Compiling in a scratch namespace: includes, variables, faults at the user's own line, and nft
misbehaving."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from linxd.sources.netfilter.compile import Compiled, Compiler
from linxd.sources.netfilter.faults import RulesetError, ScratchError
from linxd.sources.netfilter.model import Desired, Ruleset
from linxd.sources.netfilter.scratch import Scratch
from linxd.sources.netfilter.split import Pieces
from linxd.sources.netfilter.syntax import outline

from .conftest import Tool


async def breathe() -> None:
    await asyncio.sleep(0)


async def compiled(
    *texts: str, compiler: Compiler | None = None, roots: tuple[str, ...] = (), base: str = "/nowhere"
) -> Compiled:
    rulesets = tuple(Ruleset(text, f"{number}.nft", 10, base) for number, text in enumerate(texts, 1))
    return await (compiler or Compiler()).compile(Desired(rulesets, roots), lambda name: 1, breathe)


async def faults_of(*texts: str, **options: object) -> list[str]:
    with pytest.raises(RulesetError) as caught:
        await compiled(*texts, **options)  # type: ignore[arg-type]
    assert not isinstance(caught.value, ScratchError), caught.value
    return [str(fault) for fault in caught.value.faults]


def table(*lines: str) -> str:
    inside = "\n".join("\t\t" + line for line in lines)
    return f"table inet t {{\n\tchain c {{\n\t\ttype filter hook input priority 0;\n{inside}\n\t}}\n}}\n"


# --- faults -----------------------------------------------------------------------------------------


async def test_a_syntax_error_is_shown_at_the_line_of_the_users_file() -> None:
    [fault] = await faults_of(table("tcp dport 22 accept", "tcp dprot 80 accept"))
    assert fault.startswith("1.nft:14:7: chain c of table inet t: syntax error")
    assert fault.endswith("tcp dprot 80 accept")


async def test_what_the_kernel_refuses_is_shown_at_its_line_with_the_kernels_words() -> None:
    text = table("tcp dport 22 accept", "jump nowhere", "counter")
    [fault] = await faults_of(table("accept"), text.replace("inet t", "inet u"))
    assert re.match(r"2\.nft:14:\d+: chain c of table inet u: Could not process rule: No such file", fault)
    assert "jump nowhere" in fault


async def test_a_fault_in_an_included_file_is_shown_there(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "web.nft").write_text("\n\t\ttcp dport 80 acept\n")
    (tmp_path / "rules.nft").write_text('\t\tinclude "rules/*.nft"\n')
    text = table('include "./rules.nft"', "counter")
    [fault] = await faults_of(text, roots=(str(tmp_path),), base=str(tmp_path))
    assert fault.startswith(f"{tmp_path}/rules/web.nft:2:21: chain c of table inet t: ")


async def test_columns_count_in_the_users_file_behind_an_include_too(tmp_path: Path) -> None:
    (tmp_path / "one.nft").write_text("tcp dport 22 accept")
    text = 'table inet t {\n\tchain c {\n\t\tinclude "one.nft"; tcp dprot 9 drop\n\t}\n}\n'
    [fault] = await faults_of(text, roots=(str(tmp_path),), base=str(tmp_path))
    assert fault.startswith("1.nft:12:26: ")


async def test_every_fault_is_told_at_once() -> None:
    text = table("jump one", "accept", "jump two")
    assert [re.findall(r":(\d+):", fault)[0] for fault in await faults_of(text)] == ["13", "15"]


# --- includes and variables -------------------------------------------------------------------------


async def test_includes_and_variables_work(tmp_path: Path) -> None:
    (tmp_path / "defs.nft").write_text("define ports = { 22, 80 } # no newline at the end")
    (tmp_path / "body.nft").write_text("tcp dport $ports accept\n")
    text = 'include "defs.nft"\n' + table('include "body.nft" # and a word', 'log prefix "include \\"x"')
    text = text.replace('log prefix "include \\"x"', 'log prefix "include x"')
    found = await compiled(text, roots=(str(tmp_path),), base=str(tmp_path))
    assert sorted(found.texts.values()) == ['log prefix "include x"', "tcp dport { 22, 80 } accept"]


async def test_a_variable_of_one_ruleset_is_known_in_the_next() -> None:
    found = await compiled("define port = 22\n", table("tcp dport $port accept"))
    assert list(found.texts.values()) == ["tcp dport 22 accept"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.nft", "is outside"),
        ("link.nft", "is outside"),
        ("missing.nft", "No such file or directory"),
        ("open.nft", "its group or everybody can write to it"),
        ("loop.nft", "more than 16 files include each other"),
        ("sub", "is a directory"),
        ("latin.nft", "is not UTF-8"),
        ("pipe.nft", "is not a regular file"),
        ("huge.nft", "want at most"),
    ],
)
async def test_an_include_that_can_not_be_is_refused(name: str, message: str, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "outside.nft").write_text("")
    (inside / "link.nft").symlink_to(tmp_path / "outside.nft")
    (inside / "open.nft").write_text("")
    (inside / "open.nft").chmod(0o666)
    (inside / "loop.nft").write_text('include "loop.nft"\n')
    (inside / "latin.nft").write_bytes(b"# caf\xe9\n")
    os.mkfifo(inside / "pipe.nft", 0o600)
    with (inside / "huge.nft").open("wb") as file:
        file.truncate(1 << 40)
    faults = await faults_of(f'\ninclude "{name}"\n', roots=(str(inside),), base=str(inside))
    assert len(faults) == 1
    assert message in faults[0]
    if name != "loop.nft":
        assert faults[0].startswith(f'1.nft:11:1: include "{name}": ')


async def test_files_that_include_all_files_are_an_end(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.nft").write_text('include "*.nft"\n')
    faults = await faults_of('include "*.nft"\n', roots=(str(tmp_path),), base=str(tmp_path))
    assert sum("more than 1000 times" in fault for fault in faults) == 1


async def test_a_pattern_without_a_match_includes_nothing(tmp_path: Path) -> None:
    found = await compiled('include "*.nft"\n' + table("accept"), roots=(str(tmp_path),), base=str(tmp_path))
    assert len(found.texts) == 1


# --- what may not be declared -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("#!/usr/sbin/nft -f\nflush ruleset\n" + table("accept"), 11, "would touch every other table"),
        (table("accept") + "flush ruleset inet", 16, "would touch every other table"),
        (table("accept") + "destroy table ip other", 16, "touches table ip other, which is not declared"),
        (table("accept") + "destroy table other", 16, "touches table ip other"),
        (table("accept") + "list ruleset", 16, '"list" declares nothing'),
        (table("accept") + "reset counters", 16, '"reset" declares nothing'),
        ("table inet t {\n\tflags owner\n}\n", 11, "belongs to one process"),
        ("table inet t { flags owner; }\n", 10, "belongs to one process"),
        (table("accept", 'iif "lo" accept'), 14, "iifname"),
        (table('iif "eth77" accept'), 13, "iifname"),
        (table("oif vmap { lo : accept }"), 13, "oifname"),
        (table('meta iif "lo" accept'), 13, "iifname"),
        (table("fib saddr . iif oif lo accept"), 0, "iifname"),
    ],
)
async def test_what_may_not_be_declared_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    if (
        "destroy" in text
        and subprocess.run(["nft", "-c", "-f", "-"], input=b"destroy table ip x").returncode
    ):
        pytest.skip("this nft has no destroy")
    faults = await faults_of(text)
    assert message in "\n".join(faults)
    if line:
        assert any(fault.startswith(f"1.nft:{line}:") for fault in faults), faults


async def test_the_reload_idiom_is_no_offence() -> None:
    found = await compiled("table inet t\ndelete table inet t\n" + table("accept"))
    assert len(found.texts) == 1


async def test_fib_and_names_that_look_like_indices_are_fine() -> None:
    found = await compiled(
        "table inet t {\n\tset iifs { type ifname; }\n\tchain c {\n"
        "\t\ttype filter hook prerouting priority 0;\n"
        "\t\tfib saddr . iif oif missing drop\n\t\tiifname @iifs accept\n"
        '\t\tcounter comment "iif lo"\n\t}\n}\n'
    )
    assert len(found.texts) == 3


# --- nothing happens outside ------------------------------------------------------------------------


async def test_the_scratch_namespace_is_another_and_leaves_nothing_behind() -> None:
    before = os.stat("/proc/self/ns/net").st_ino
    async with Scratch() as scratch:
        outcome = await scratch.run(["readlink", "/proc/self/ns/net", "/proc/self/ns/user"])
        net, user = outcome.output.split()
        assert net != os.readlink("/proc/self/ns/net")
        assert user != os.readlink("/proc/self/ns/user")
        assert (await scratch.run(["ip", "-br", "link"])).output.split()[0] == "lo"
        pid = int((await scratch.run(["sh", "-c", "echo $PPID"])).output)
    assert os.stat("/proc/self/ns/net").st_ino == before
    assert not os.path.exists(f"/proc/{pid}")


async def test_one_who_is_nobody_can_compile(tool: Tool) -> None:
    """As a process without any capability does, through a user namespace."""
    if "chroot" in tool.command:
        pytest.skip("chroot(2) is for root")
    here = Path(__file__).parents[2]
    script = textwrap.dedent(
        """
        import asyncio, sys
        sys.path.insert(0, sys.argv[1])
        from linxd.sources.netfilter.compile import Compiler
        from linxd.sources.netfilter.model import Desired, Ruleset
        async def main():
            async def breathe(): await asyncio.sleep(0)
            text = "table ip t { chain c { type filter hook input priority 0; tcp dport 22 accept\\n}\\n}\\n"
            found = await Compiler().compile(Desired((Ruleset(text, "x"),)), lambda name: 0, breathe)
            print(*found.texts.values())
        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--no-new-privs",
            "/usr/bin/python3",
            "-B",
            "-c",
            script,
            str(here),
        ],
        text=True,
        capture_output=True,
        cwd="/",
    )
    if "Permission denied" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("the working tree is not readable by nobody")
    assert done.stdout == "tcp dport 22 accept\n", done.stderr


# --- nft misbehaving --------------------------------------------------------------------------------


def program(path: Path, text: str) -> tuple[str, ...]:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path),)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "ended by signal 11"),
        ("exit 3", "nft ended with 3"),
        ("echo 'internal:0:0-0: Error: out of ideas' >&2; exit 1", "out of ideas"),
        ("exec head -c 100000000 /dev/zero", "ended by signal 25"),
    ],
)
async def test_an_nft_that_crashes_is_an_error_of_that_load(
    script: str, message: str, tmp_path: Path
) -> None:
    command = program(tmp_path / "nft", script)
    with pytest.raises(RulesetError) as caught:
        await compiled(table("accept"), compiler=Compiler(command))
    assert message in str(caught.value)


async def test_an_nft_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    command = program(tmp_path / "nft", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    began = time.monotonic()
    with pytest.raises(ScratchError) as caught:
        await compiled(table("accept"), compiler=Compiler(command, timeout=0.5))
    assert "no answer within" in str(caught.value)
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not os.path.exists(f"/proc/{pid}"):
            break
        await asyncio.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


async def test_an_nft_that_hangs_while_it_lists_is_not_waited_for_by_one_that_is_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'case "$*" in *list*) echo $$ > {tmp_path}/pid; exec sleep 1000;; esac; exec nft "$@"'
    command = program(tmp_path / "nft", script)

    async def stopped(*_: object) -> None:
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.005)
        raise asyncio.CancelledError

    monkeypatch.setattr("linxd.sources.netfilter.compile.assembled", stopped)
    # Had it been waited for, that it does not answer would be the error.
    with pytest.raises(asyncio.CancelledError):
        await compiled(table("accept"), compiler=Compiler(command, timeout=1.0))
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not os.path.exists(f"/proc/{pid}"):
            break
        await asyncio.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


async def test_an_nft_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScratchError, match="no-such-nft: No such file or directory"):
        await compiled(table("accept"), compiler=Compiler((str(tmp_path / "no-such-nft"),)))


async def test_memory_is_bounded(tmp_path: Path) -> None:
    command = program(tmp_path / "nft", "ulimit -v >&2; exit 1")
    with pytest.raises(ScratchError) as caught:
        await compiled(table("accept"), compiler=Compiler(command))
    assert int(str(caught.value)) == 2 << 20


def without_user_namespaces() -> list[str]:
    """A command that runs in a user namespace in which no further one may be made."""
    return ["unshare", "--user", "--map-root-user", "sh", "-c"]


async def test_without_user_namespaces_it_is_said_what_to_switch_on(tmp_path: Path) -> None:
    here = Path(__file__).parents[2]
    script = tmp_path / "compile.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, sys
            sys.path.insert(0, sys.argv[1])
            from linxd.sources.netfilter.compile import Compiler
            from linxd.sources.netfilter.faults import ScratchError
            from linxd.sources.netfilter.model import Desired, Ruleset
            async def main():
                async def breathe(): await asyncio.sleep(0)
                try:
                    await Compiler().compile(Desired((Ruleset("table ip t {\\n}\\n", "x"),)), lambda n: 0,
                    breathe)
                except ScratchError as error:
                    print(error)
            asyncio.run(main())
            """
        )
    )
    command = (
        "echo 0 > /proc/sys/user/max_user_namespaces && "
        "exec setpriv --bounding-set=-sys_admin --inh-caps=-all "
        f"/usr/bin/python3 -B {script} {here}"
    )
    done = subprocess.run([*without_user_namespaces(), command], text=True, capture_output=True)
    assert "raise sysctl user.max_user_namespaces" in done.stdout, done.stderr
    assert "no scratch namespace" in done.stdout


# --- kept forms -------------------------------------------------------------------------------------


async def test_the_same_text_is_compiled_once() -> None:
    compiler = Compiler()
    first = await compiled(table("accept"), compiler=compiler)
    assert await compiled(table("accept"), compiler=compiler) is first
    assert compiler.runs == 1
    await compiled(table("drop"), compiler=compiler)
    assert compiler.runs == 2


async def test_forms_are_kept_on_disk_and_a_broken_one_is_made_again(tmp_path: Path) -> None:
    text = table("tcp dport { 22, 80 } counter accept")
    first = await compiled(text, compiler=Compiler(cache=str(tmp_path)))
    again = Compiler(cache=str(tmp_path))
    second = await compiled(text, compiler=again)
    assert again.runs == 0
    assert second == first
    [kept] = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    for broken in (kept.read_bytes()[:-20], b"", b"x" * 100):
        kept.write_bytes(broken)
        after = Compiler(cache=str(tmp_path))
        assert await compiled(text, compiler=after) == first
        assert after.runs == 1


async def test_of_old_forms_the_newest_are_kept(tmp_path: Path) -> None:
    for port in range(1, 9):
        await compiled(table(f"tcp dport {port} accept"), compiler=Compiler(cache=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 4


async def test_compiling_twice_comes_to_the_same_bytes(tool: Tool) -> None:
    text = (Path(__file__).with_name("corpus") / "service-proxy.nft").read_text()
    one, two = [await compiled(text, compiler=Compiler(tool.command)) for _ in range(2)]
    for where, found in one.tables.items():
        for name, chain in found.chains.items():
            assert [rule.canon for rule in chain.rules] == [
                rule.canon for rule in two.tables[where].chains[name].rules
            ]
        assert found.sets == two.tables[where].sets


# --- large rulesets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).with_name("corpus").glob("*.nft")), ids=lambda path: path.stem
)
async def test_a_text_loaded_in_pieces_comes_to_the_same(path: Path) -> None:
    text = path.read_text()
    if re.search(r"^# (needs|nft): ", text, re.M):
        pytest.skip("needs what not every machine has")
    rest = Pieces(outline(text))
    async with Scratch() as whole, Scratch() as parts:
        for scratch in (whole, parts):
            for name in ("dummy-a", "dummy-b"):
                scratch.placeholder(name)
        assert (await whole.run(["nft", "-f", "-"], text)).status == 0
        count = 0
        while not rest.empty:
            piece = rest.take(1)
            done = await parts.run(["nft", "-f", "-"], piece)
            assert done.status == 0, done.errors + piece
            rest.done()
            count += 1
        listed = [(await scratch.run(["nft", "list", "ruleset"])).output for scratch in (whole, parts)]
    strip = re.compile(r" expires \w+")
    assert strip.sub("", listed[0]) == strip.sub("", listed[1])
    assert count >= 1


async def test_a_piece_keeps_lines_and_columns() -> None:
    rules = [f"tcp dport {port} accept" for port in range(1, 2500)]
    rules[2000] = "tcp dport 7 acept"
    [fault] = await faults_of(table(*rules))
    assert fault.startswith("1.nft:2013:20: chain c of table inet t: ")
