# SPDX-License-Identifier: MIT
"""What networkd.conf(5) says, read as networkd reads it, and what is said of it where it undoes what is
declared."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from linxd.beside import Beside, Networkd
from linxd.config import ScopeConfig, load
from linxd.log import Entry
from linxd.reload import Reloader
from linxd.scope import Scope
from linxd.systemd.networkd import ROUTES, RULES, UNIT, manages
from linxd.systemd.notify import Notifier


def written(root: Path, files: dict[str, str]) -> tuple[str, ...]:
    """The directories in which FILES are looked up, the one of an administrator first."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tuple(str(root / name) for name in ("etc", "run", "lib"))


ALONE = "[Network]\nManageForeignRoutes=no\n"
MINE = "[Network]\nManageForeignRoutes=yes\n"
DROP_IN = "networkd.conf.d/{}.conf"


@pytest.mark.parametrize(
    ("files", "managed"),
    [
        ({}, True),
        ({"etc/networkd.conf": ""}, True),
        ({"etc/networkd.conf": "[Network]\n#ManageForeignRoutes=no\n"}, True),
        ({"etc/networkd.conf": ALONE}, False),
        ({"lib/networkd.conf": ALONE}, False),
        ({"etc/networkd.conf": "", "lib/networkd.conf": ALONE}, True),
        ({"etc/networkd.conf": "[DHCPv4]\nManageForeignRoutes=no\n"}, True),
        ({"etc/networkd.conf": "[Network]\n ManageForeignRoutes = OFF \n[DHCPv4]\nx=y\n"}, False),
        ({"etc/networkd.conf": "[Network]\nManageForeignRoutes=\nManageForeignRoutes=perhaps\n"}, True),
        ({"etc/networkd.conf": ALONE + "ManageForeignRoutes=perhaps\n"}, False),
        ({"etc/" + DROP_IN.format("linxd"): ALONE}, False),
        ({"lib/" + DROP_IN.format("linxd"): ALONE}, False),
        ({"etc/networkd.conf": ALONE, "lib/" + DROP_IN.format("a"): MINE}, True),
        ({"lib/" + DROP_IN.format("a"): ALONE, "etc/" + DROP_IN.format("b"): MINE}, True),
        ({"etc/" + DROP_IN.format("a"): MINE, "lib/" + DROP_IN.format("b"): ALONE}, False),
        ({"etc/" + DROP_IN.format("a"): "", "lib/" + DROP_IN.format("a"): ALONE}, True),
        ({"etc/networkd.conf.d/linxd": ALONE}, True),
        ({"etc/networkd.conf": "\0\n[\n]\n[Network]\n=\nManageForeignRoutes\n"}, True),
    ],
)
def test_routes_of_others_are_managed(files: dict[str, str], managed: bool, tmp_path: Path) -> None:
    roots = written(tmp_path, files)
    assert manages(ROUTES, roots) is managed
    assert manages(RULES, roots) is True


LINK = '[link.lxt0]\nkind = "dummy"\naddresses = ["192.0.2.1/24"]\n'
ROUTE = '[[route]]\nto = "198.51.100.0/24"\nvia = "192.0.2.9"\n'
RULE = '[[rule]]\nfrom = "192.0.2.0/24"\ntable = 100\npriority = 1000\n'


class Machine:
    """A host on which networkd does what it is set to, and what is said there."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "host.toml"
        self.settings = {ROUTES: True, RULES: True}
        self.active: bool | None = True
        self.asked = 0
        self.said: list[list[str]] = []
        self.beside = Beside(self._say, Networkd(self.settings.__getitem__, self._runs))

    def _say(self, entry: Entry) -> None:
        self.said.append(list(entry.details))

    async def _runs(self, unit: str) -> bool | None:
        assert unit == UNIT
        self.asked += 1
        return self.active

    def declared(self, text: str, name: str = "host") -> ScopeConfig:
        self.file.write_text(text)
        return load(name, file=str(self.file))

    def warned(self, text: str, name: str = "host") -> list[str]:
        """The settings that are named when this is declared."""
        self.said.clear()
        asyncio.run(self.beside.look(self.declared(text, name)))
        assert len(self.said) <= 1
        return [line for lines in self.said for line in lines if line.endswith("=no")]


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_undone_is_said_when_it_is_first_declared(host: Machine) -> None:
    assert host.warned(LINK) == []
    assert host.warned(LINK + ROUTE, name="c1") == []
    assert host.asked == 0
    assert host.warned(LINK + ROUTE) == [f"{ROUTES}=no"]
    assert host.warned(LINK + ROUTE) == []
    assert host.warned(LINK + ROUTE + RULE) == [f"{ROUTES}=no", f"{RULES}=no"]
    assert host.warned(LINK + RULE) == []
    host.settings[RULES] = False
    assert host.warned(LINK + RULE) == []
    host.settings[RULES] = True
    assert host.warned(LINK + RULE) == [f"{RULES}=no"]


def test_one_that_ends_and_runs_again_is_warned_of_again(host: Machine) -> None:
    assert host.warned(LINK + ROUTE) == [f"{ROUTES}=no"]
    host.active = None
    assert host.warned(LINK + ROUTE) == []
    host.active = True
    assert host.warned(LINK + ROUTE) == []
    host.active = False
    assert host.warned(LINK + ROUTE) == []
    host.active = True
    assert host.warned(LINK + ROUTE) == [f"{ROUTES}=no"]


@pytest.mark.parametrize("active", [False, None])
def test_networkd_that_does_not_run_yet_is_warned_of_later(host: Machine, active: bool | None) -> None:
    host.active = active
    assert host.warned(LINK + ROUTE) == []
    host.active = True
    assert host.warned(LINK + ROUTE) == [f"{ROUTES}=no"]


def test_a_reload_looks_at_what_it_declared(host: Machine) -> None:
    did: list[str] = []

    async def declare(config: ScopeConfig) -> None:
        did.append("declared")

    scope: Any = SimpleNamespace(config=host.declared(LINK), declare=declare, state="converged")
    notifier: Any = SimpleNamespace(send=lambda **words: did.extend(words))
    reload = Reloader(
        cast(Scope, scope),
        lambda: host.declared(LINK + RULE),
        lambda entry: None,
        cast(Notifier, notifier),
        host.beside.look,
    )
    asyncio.run(reload())
    assert did == ["RELOADING", "declared", "READY"]
    [drop_in] = host.said
    assert drop_in == ["[Network]", f"{RULES}=no"]
