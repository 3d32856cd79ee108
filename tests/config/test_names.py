# SPDX-License-Identifier: MIT
"""Names for numbers out of iproute2's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from linxd.config import ConfigError, load
from linxd.config.names import Names


def make(top: Path, path: str, text: str) -> None:
    file = top / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def names(top: Path) -> Names:
    return Names([str(top / "etc"), str(top / "share")])


def test_without_any_file_the_built_in_names_are_known(tmp_path: Path) -> None:
    assert names(tmp_path).of("rt_tables") == {"local": 255, "main": 254, "default": 253}
    assert names(tmp_path).of("rt_scopes")["link"] == 253
    assert names(tmp_path).of("rt_dsfield")["EF"] == 0xB8
    assert Names([]).of("group") == {"default": 0}


def test_the_first_directory_that_has_the_file_counts(tmp_path: Path) -> None:
    make(tmp_path, "share/rt_tables", "7 seven\n8 eight\n")
    assert names(tmp_path).of("rt_tables")["eight"] == 8
    make(tmp_path, "etc/rt_tables", "# tables\n7\tsieben # a comment\n0x10 sixteen\n\n")
    known = names(tmp_path).of("rt_tables")
    assert known["sieben"] == 7
    assert known["sixteen"] == 16
    assert "eight" not in known


def test_files_beside_it_are_added_and_the_same_name_hides(tmp_path: Path) -> None:
    make(tmp_path, "share/rt_tables.d/a.conf", "1 one\n")
    make(tmp_path, "share/rt_tables.d/b.conf", "2 two\n")
    make(tmp_path, "share/rt_tables.d/README", "3 three\n")
    make(tmp_path, "etc/rt_tables.d/a.conf", "11 one\n")
    known = names(tmp_path).of("rt_tables")
    assert (known["one"], known["two"]) == (11, 2)
    assert "three" not in known


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "etc/rt_tables", "x y\n5\n1 2 3\n6 six\n\udcff 7\n".encode("utf-8", "replace").decode())
    assert names(tmp_path).of("rt_tables")["six"] == 6


def test_a_file_is_loaded_with_the_names_it_is_given(tmp_path: Path) -> None:
    make(tmp_path, "etc/rt_tables", "100 blue\n")
    make(tmp_path, "etc/group", "7 uplinks\n")
    text = (
        '[[route]]\nto = "default"\nvia = "10.0.0.1"\ntable = "blue"\n'
        '[link.v]\nkind = "vrf"\ntable = "blue"\ngroup = "uplinks"\n'
    )
    make(tmp_path, "c1.toml", text)
    config = load(
        "c1", file=tmp_path / "c1.toml", directories=(), owners=None, iproute2=[str(tmp_path / "etc")]
    )
    (route,) = config.rtnl.routes.values()
    assert route.table == 100
    assert config.rtnl.links["v"].options == {"table": 100}
    assert config.rtnl.links["v"].attributes == {"group": 7}
    with pytest.raises(ConfigError) as error:
        load("c1", file=tmp_path / "c1.toml", directories=(), owners=None, iproute2=())
    assert len(error.value.errors) == 3
