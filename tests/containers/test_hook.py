# SPDX-License-Identifier: MIT
"""What the OCI hook makes of the states that runtimes hand it, and of processes and files; the rest is shown
with podman's containers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linxd import ocihook as hook
from linxd.config import model
from linxd.config.document import parse

ROOT = Path(__file__).resolve().parents[2]


def state(**more: Any) -> bytes:
    return json.dumps(
        {
            "ociVersion": "1.0.2",
            "id": "0123abcd",
            "status": "created",
            "pid": 4711,
            "bundle": "/run/box",
            "annotations": {hook.SCOPE: "c1"},
            **more,
        }
    ).encode()


def test_a_container_says_its_scope_and_what_it_waits_for() -> None:
    assert hook.read(state()) == hook.Container("0123abcd", 4711, "c1", settled=True, bundle="/run/box")
    patient = {hook.SCOPE: "web-1.x", hook.REQUIRE: "ready", "other": "1"}
    assert hook.read(state(annotations=patient)) == hook.Container(
        "0123abcd", 4711, "web-1.x", settled=False, bundle="/run/box"
    )


def test_one_that_has_ended_needs_no_process() -> None:
    for gone in ({"pid": 0}, {"pid": None}):
        assert hook.read(state(status="stopped", **gone)).pid == 0


@pytest.mark.parametrize(
    "name", ["", "host", "a/b", "../c1", "-c1", "c1\n", "c 1", "x" * 65, "c1@x", None, 5]
)
def test_only_names_of_scopes_are_taken(name: object) -> None:
    with pytest.raises(hook.Refusal, match="no scope's name"):
        hook.read(state(annotations={hook.SCOPE: name}))


def test_names_are_what_the_configuration_takes() -> None:
    assert (hook.NAME.pattern, hook.NAME.flags) == (model.NAME.pattern, model.NAME.flags)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", state(id=""), state(id="a b"), state(id=7), state(annotations=None),
     b"x" * (1 << 21), b"\xff\xfe", b'{"id": "\xff"}'],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(hook.Refusal):
        hook.read(data)


SOON = {"annotations": {hook.SCOPE: "c1", hook.REQUIRE: "soon"}}


@pytest.mark.parametrize("more", [{"pid": -1}, {"pid": "1"}, {"pid": 1.5}, SOON])
def test_nonsense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(hook.Refusal):
        hook.read(state(**more))


@pytest.mark.parametrize("words", [["createRuntime"], ["poststop"], ["prestart"], []])
def test_nobody_sees_a_traceback(words: list[str]) -> None:
    done = subprocess.run(
        [ROOT / "packaging/oci/oci-hook", *words],
        input=b"\x00",
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Without the package it is the tree's module that has to be found, which -I prevents.
    if b"No module named" in done.stderr:
        done = subprocess.run(
            ["/usr/bin/python3", "-m", "linxd.ocihook", *words],
            input=b"\x00",
            capture_output=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert b"container " in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_drop_in_is_read_back() -> None:
    text = hook.text_for(["0123abcd", "ffff"], hook.rest_for("unit:libpod-0123abcd.scope"))
    assert parse("x", text).table()["scope"].table()["netns"].value == "unit:libpod-0123abcd.scope"


@pytest.fixture
def process() -> Iterator[int]:
    """A process in a namespace of its own, in whatever unit this test is in."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield one.pid
        one.kill()


def test_a_process_without_a_unit_of_its_own_is_found_by_its_number(process: int) -> None:
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        try:
            # Two containers in one unit, or in none: it does not tell which.
            assert hook.place_of(process) == f"pid:{process}"
        finally:
            one.kill()


def test_the_drop_in_goes_with_its_container_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "DIRECTORY", str(tmp_path))
    folder = tmp_path / "c1.toml.d"
    drop_in = folder / hook.DROP_IN
    ours, other = hook.read(state()), hook.read(state(id="ffff"))
    hook.forget(ours)
    assert not folder.exists()
    folder.mkdir()
    drop_in.write_text(hook.text_for([ours.id], hook.rest_for("pid:1")))
    hook.forget(other)
    assert drop_in.exists()
    (folder / "mine.toml").write_text("")
    hook.forget(ours)
    assert [path.name for path in folder.iterdir()] == ["mine.toml"]
    (folder / "mine.toml").unlink()
    drop_in.write_text(hook.text_for([ours.id], hook.rest_for("pid:1")))
    hook.forget(ours)
    assert not folder.exists()


def test_the_drop_in_of_a_pod_goes_with_the_last_of_its_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "DIRECTORY", str(tmp_path))
    folder = tmp_path / "c1.toml.d"
    folder.mkdir()
    drop_in = folder / hook.DROP_IN
    containers = [hook.read(state(id=identity)) for identity in ("aa", "bb", "cc")]
    rest = hook.rest_for("unit:libpod-dd.scope")
    drop_in.write_text(hook.text_for([one.id for one in containers], rest))
    hook.forget(containers[1])
    assert drop_in.read_text() == hook.text_for(["aa", "cc"], rest)
    hook.forget(containers[1])
    hook.forget(containers[0])
    assert drop_in.read_text() == hook.text_for(["cc"], rest)
    hook.forget(containers[2])
    assert not folder.exists()


def test_the_drop_in_of_a_container_that_nobody_spoke_of_goes_with_its_scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: int
) -> None:
    monkeypatch.setattr(hook, "DIRECTORY", str(tmp_path))
    folder = tmp_path / "c1.toml.d"
    folder.mkdir()
    drop_in = folder / hook.DROP_IN
    # It may have been the scope alone that ended.
    drop_in.write_text(hook.text_for(["aa"], hook.rest_for(f"pid:{process}")))
    assert hook.main(["ended", "c1"]) == 0
    assert drop_in.exists()
    drop_in.write_text(hook.text_for(["aa"], hook.rest_for("unit:libpod-aa.scope")))
    assert hook.main(["ended", "c1"]) == 0
    assert not folder.exists()
    # What somebody else wrote is theirs.
    folder.mkdir()
    drop_in.write_text(hook.rest_for("unit:libpod-aa.scope"))
    assert hook.main(["ended", "c1"]) == 0
    assert drop_in.exists()
