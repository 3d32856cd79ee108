# SPDX-License-Identifier: MIT
"""Machines for the tests: one of each release for a module, with linxd in it as the package would put it
there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.system import bed, install


@pytest.fixture(scope="session")
def boot() -> Callable[..., bed.Machine]:
    """Boots machines, or skips with the reason."""

    def boot(release: str, **more: object) -> bed.Machine:
        try:
            return bed.Machine(release, **more)  # type: ignore[arg-type]
        except bed.Unavailable as error:
            pytest.skip(f"no machine of Debian {release}: {error}")

    return boot


@pytest.fixture(scope="module", params=sorted(bed.RELEASES), ids=lambda release: f"debian{release}")
def machine(request: pytest.FixtureRequest, boot: Callable[..., bed.Machine]) -> Iterator[bed.Machine]:
    """A running machine with linxd installed and nothing declared."""
    try:
        package = install.package()
        with boot(request.param) as machine:
            install.install(machine, package)
            yield machine
    except bed.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def _packages_are_removed() -> Iterator[None]:
    yield
    install.forget()


@pytest.fixture
def scope(machine: bed.Machine) -> Iterator[str]:
    """A name with an empty namespace, of which nothing is left when the test ends."""
    name = f"c{next(_numbers)}"
    machine.do("ip", "netns", "add", name)
    yield name
    machine.run("systemctl", "stop", f"linx-reconcile@{name}.service")
    machine.run("ip", "netns", "delete", name)
    machine.run("rm", "-rf", f"/etc/linxd/netns/{name}.toml", f"/run/linxd-state/{name}")
    machine.run("systemctl", "reset-failed", f"linx-reconcile@{name}.service")


_numbers = itertools.count(1)
