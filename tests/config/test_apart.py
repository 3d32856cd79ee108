# SPDX-License-Identifier: MIT
"""Files that are read by another process: the same comes of it, whatever is in them, and whatever becomes of
that process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import marshal
import os
import py_compile
import resource
import select
import signal
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import linxd.config.loading
import linxd.config.packed
from linxd.config import ConfigError, ScopeConfig, Undeclared, apart, load
from linxd.config.apart import Again, NotRead, Reading, main
from linxd.config.kept import _code, leave, squeeze
from linxd.config.packed import _CLASSES, _FIELDS, pack, unpack

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_time_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LATER", 0.0)


FILES = sorted(
    [*HERE.glob("good/**/*.toml"), *HERE.glob("bad/**/*.toml"), *HERE.parents[1].glob("examples/**/*.toml")]
)


def read(name: str, file: str | None = None, *, kept: int | None = None) -> ScopeConfig:
    """With what is kept, or with what there is where nothing is."""
    own = os.memfd_create("kept", os.MFD_CLOEXEC)
    try:
        return Again(name, file, kept=own if kept is None else kept)()
    finally:
        os.close(own)


def came(get: Any) -> ScopeConfig | tuple[type, object]:
    try:
        config = get()
    except ConfigError as error:
        return type(error), error.faults
    assert isinstance(config, ScopeConfig)
    return config


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HERE.parents[1])))
def test_packed_and_unpacked_is_what_it_was(file: Path) -> None:
    name = file.stem if file.stem == "host" else "c1"

    def loaded() -> ScopeConfig:
        return load(name, file=file, owners=None, check_others=False)

    def again() -> ScopeConfig:
        try:
            return unpack(pack(loaded()))
        except ConfigError as error:
            return unpack(pack(error))

    one, other = came(loaded), came(again)
    assert one == other
    assert repr(one) == repr(other)
    if isinstance(one, ScopeConfig) and isinstance(other, ScopeConfig):
        for each in ("links", "addresses", "routes", "rules", "neighbours"):
            assert list(getattr(one.rtnl, each).items()) == list(getattr(other.rtnl, each).items())


def test_there_are_files_of_both_sorts() -> None:
    assert {file.relative_to(HERE).parts[0] for file in FILES if file.is_relative_to(HERE)} == {
        "good",
        "bad",
    }


def test_every_field_goes_along_but_for_where_it_stands() -> None:
    """What is not said when one is made (its identity) is made anew."""
    for cls, names in zip(_CLASSES, _FIELDS, strict=True):
        left = {each.name for each in cls.__record__} - set(names)  # type: ignore[attr-defined]
        assert left <= {"where", "key"}, cls
        for each in cls.__record__:  # type: ignore[attr-defined]
            assert each.init or each.name == "key", cls


def test_what_no_declaration_has_is_not_packed() -> None:
    with pytest.raises(TypeError, match="bytearray"):
        pack(ScopeConfig("c1", files=(bytearray(),)))  # type: ignore[arg-type]


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    file = tmp_path / "c1.toml"
    file.write_text(
        '[link.d0]\nkind = "dummy"\naddresses = ["192.0.2.1/24"]\n[[route]]\nto = "0.0.0.0/0"\ndev = "d0"\n'
    )
    assert read("c1", str(file)) == load("c1", file=file)
    file.write_text('[link.d0]\nkind = "dumy"\nmtu = -1\n')
    assert came(lambda: read("c1", str(file))) == came(lambda: load("c1", file=file))
    assert came(lambda: read("c1", str(tmp_path / "none.toml"))) == came(
        lambda: load("c1", file=tmp_path / "none.toml")
    )
    with pytest.raises(Undeclared):
        read("no-such-scope-as-this")


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    file = tmp_path / "c1.toml"
    file.write_text("")
    before = sorted(os.listdir("/proc/self/fd"))
    reading = Reading("c1", str(file))
    reading.result()
    asyncio.run(reading.ended())
    os.close(reading.kept)
    assert reading._process is not None
    assert not Path(f"/proc/{reading._process.pid}").exists()
    before_it = children()
    read("c1", str(file))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert children() == before_it


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_later_ones_read_with_what_the_first_one_has_left(tmp_path: Path) -> None:
    """An upgrade may replace or take away what it comes from: they have no other way to it."""
    file = tmp_path / "c1.toml"
    file.write_text('[link.d0]\nkind = "dummy"\n')
    reading = Reading("c1", str(file))
    try:
        assert reading.result() == load("c1", file=file)
        asyncio.run(reading.ended())
        assert 50_000 < os.fstat(reading.kept).st_size < 300_000
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apart, "_ROOT", "/nowhere/at-all")
            for text in ('[link.d1]\nkind = "dummy"\n', '[link.d0]\nkind = "dumy"\nmtu = -1\n', "what"):
                file.write_text(text)
                kept = came(lambda: read("c1", str(file), kept=reading.kept))
                assert kept == came(lambda: load("c1", file=file))
            for name in FILES:
                kept = came(lambda name=name: read("c1", str(name), kept=reading.kept))
                assert kept == came(lambda name=name: load("c1", file=name))
    finally:
        os.close(reading.kept)


def test_what_is_left_is_that_of_the_sources_and_can_be_squeezed_once(tmp_path: Path) -> None:
    kept = os.memfd_create("kept", os.MFD_CLOEXEC)
    try:
        leave(kept)
        large = os.fstat(kept).st_size
        file = tmp_path / "c1.toml"
        file.write_text('[link.d0]\nkind = "dummy"\n')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apart, "_ROOT", "/nowhere/at-all")
            assert read("c1", str(file), kept=kept) == load("c1", file=file)
            asyncio.run(squeeze(kept))
            small = os.fstat(kept).st_size
            assert small < large / 1.7
            assert read("c1", str(file), kept=kept) == load("c1", file=file)
        asyncio.run(squeeze(kept))
        assert os.fstat(kept).st_size == small
        assert not os.get_inheritable(kept)
    finally:
        os.close(kept)


def test_what_stands_ready_of_another_source_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file below __pycache__ may be older than the source that was loaded."""
    source = tmp_path / "linxd_lone.py"
    source.write_text("A = 1\n")
    cached = py_compile.compile(str(source))
    assert cached is not None
    spec = importlib.util.spec_from_file_location("linxd.lone", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for text in ("A = 1\n", "A = 22\n"):
        source.write_text(text)
        found: dict[str, Any] = {}
        exec(marshal.loads(_code(module)), found)
        assert found["A"] == (1 if text == "A = 1\n" else 22)


def test_what_another_python_or_nobody_has_left_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "c1.toml"
    file.write_text('[link.d0]\nkind = "dummy"\n')
    for left in (b"", b"2.7.18\0what it was"):
        kept = os.memfd_create("kept", os.MFD_CLOEXEC)
        try:
            os.pwrite(kept, left, 0)
            before = sorted(os.listdir("/proc/self/fd"))
            assert read("c1", str(file), kept=kept) == load("c1", file=file)
            assert sorted(os.listdir("/proc/self/fd")) == before
        finally:
            os.close(kept)


def test_one_that_is_killed_is_told_apart_from_what_is_in_the_files(tmp_path: Path) -> None:
    reading = Reading("c1", str(tmp_path / "c1.toml"))
    assert reading._process is not None
    os.kill(reading._process.pid, signal.SIGKILL)
    with pytest.raises(NotRead, match="was ended by signal 9"):
        reading.result()
    os.close(reading.kept)


def test_one_that_is_killed_while_it_tells_is_no_error_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "c1.toml"
    routes = (f'[[route]]\nto = "10.{at >> 8}.{at & 255}.0/24"\ndev = "d0"\n' for at in range(3000))
    file.write_text("".join(routes))
    reading = Reading("c1", str(file))
    try:
        assert reading._process is not None
        # It has more to tell than goes into a pipe.
        select.select([reading._pipe], [], [])
        os.kill(reading._process.pid, signal.SIGKILL)
        with pytest.raises(NotRead, match="ended before it had told all"):
            reading.result()
        assert reading._process.result() == -signal.SIGKILL
    finally:
        os.close(reading.kept)


def test_one_that_nobody_needs_any_more_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    kept = os.memfd_create("kept", os.MFD_CLOEXEC)
    os.pwrite(kept, sys.version.encode() + b"\0r" + marshal.dumps({"linxd": (True, STOPS)}), 0)
    again = Again("c1", str(tmp_path / "never"), kept=kept)
    try:
        with ThreadPoolExecutor(1) as pool:
            reads = pool.submit(again)
            while not (reading := again._reading) or not stopped(reading):
                assert not reads.done()
            again.close()
            with pytest.raises(ConfigError, match="was ended by signal 9"):
                reads.result()
        with pytest.raises(ConfigError, match="was ended by signal 9"):
            again()
    finally:
        os.close(kept)


STOPS = marshal.dumps(compile("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "stops", "exec"))


def stopped(reading: Reading) -> bool:
    if reading._process is None:
        return False
    return Path(f"/proc/{reading._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_an_error_of_its_own_has_no_traceback_unless_one_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("that was not foreseen")

    monkeypatch.setattr(linxd.config.loading, "load", broken)
    out = os.dup(1)
    try:
        assert main(["c1", ""]) == 70
        os.dup2(out, 1)
        assert capfd.readouterr().out == "RuntimeError: that was not foreseen"
        with pytest.raises(RuntimeError):
            main(["c1", "debug"])
    finally:
        os.dup2(out, 1)
        os.close(out)


def test_it_is_this_very_linxd_and_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("linxd", "tomllib", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('another')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c1.toml").write_text('[link.d0]\nkind = "dummy"\n')
    assert read("c1", str(tmp_path / "c1.toml")).rtnl.links


def test_what_lies_beside_linxd_is_not_taken_for_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packages are installed there may be one that once stood in for a module of Python's."""
    (tmp_path / "linxd").symlink_to(HERE.parents[1] / "linxd")
    for name in ("tomllib", "enum", "marshal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('another')\n")
    monkeypatch.setattr(apart, "_ROOT", str(tmp_path))
    (tmp_path / "c1.toml").write_text('[link.d0]\nkind = "dummy"\n')
    assert read("c1", str(tmp_path / "c1.toml")).rtnl.links


def test_it_may_lie_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = tmp_path / "linxd.zip", HERE.parents[1]
    with zipfile.ZipFile(archive, "w") as into:
        for source in root.glob("linxd/**/*.py"):
            into.write(source, source.relative_to(root))
    monkeypatch.setattr(apart, "_ROOT", str(archive))
    file = tmp_path / "c1.toml"
    file.write_text('[link.d0]\nkind = "dummy"\n')
    reading = Reading("c1", str(file))
    try:
        assert reading.result().rtnl.links
        asyncio.run(reading.ended())
        archive.unlink()
        assert read("c1", str(file), kept=reading.kept).rtnl.links
    finally:
        os.close(reading.kept)


def test_a_file_whose_name_is_empty_was_named(tmp_path: Path) -> None:
    """What is looked up is something else."""
    assert came(lambda: read("c1", "")) == came(lambda: load("c1", file=""))
    with pytest.raises(ConfigError, match="is not a regular file"):
        read("c1", "")


@pytest.mark.parametrize("name", ["a b", "a\nb", "-c", "\udcff", "ü", "é\udc80'\""])
def test_a_file_may_have_any_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text('[link.d0]\nkind = "dummy"\n')
    assert read("c1", str(file)) == load("c1", file=file)
    file.write_text("what")
    assert came(lambda: read("c1", str(file))) == came(lambda: load("c1", file=file))


def test_where_there_are_no_more_descriptors_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "c1.toml").write_text("")
    kept = os.memfd_create("kept", os.MFD_CLOEXEC)
    again = Again("c1", str(tmp_path / "c1.toml"), kept=kept)
    with contextlib.suppress(ConfigError):
        again()  # with all that it imports
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for free in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (kept + 1 + free, limits[1]))
            with pytest.raises(ConfigError, match="no process to read the files can be started: "):
                again()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(kept)
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_very_many_are_loaded_some_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing else goes on meanwhile in a daemon."""
    routes = (f'[[route]]\nto = "10.{at >> 8}.{at & 255}.0/24"\ndev = "d0"\n' for at in range(3000))
    (tmp_path / "c1.toml").write_text("".join(routes))
    config = load("c1", file=tmp_path / "c1.toml")
    data = pack(config)
    counts: list[int] = []

    def count(value: object) -> int:
        return 1 + sum(map(count, value)) if isinstance(value, list | tuple) else 1

    def loads(data: bytes) -> Any:
        value = marshal.loads(data)
        counts.append(count(value))
        return value

    monkeypatch.setattr(linxd.config.packed, "marshal", SimpleNamespace(loads=loads))
    again = unpack(data)
    assert again == config
    assert list(again.rtnl.routes) == list(config.rtnl.routes)
    assert max(counts) < sum(counts) / 5


def test_what_another_version_has_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a package are replaced while its daemons run."""
    (tmp_path / "c1.toml").write_text("")
    monkeypatch.setattr(linxd.config.packed, "__version__", "0.0.0+before")
    with pytest.raises(ConfigError) as caught:
        read("c1", str(tmp_path / "c1.toml"))
    (fault,) = caught.value.faults
    assert "is installed" in str(fault)
    assert "restart" in str(fault)


def test_where_no_process_can_be_started_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="no process to read the files can be started: No such file"):
        read("c1")
    assert sorted(os.listdir("/proc/self/fd")) == before
