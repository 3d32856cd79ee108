# SPDX-License-Identifier: MIT
"""Installed by pip, out of sdist and wheel, for every Python and beside every pyroute2 that is supported.

It knows what a user would type; what such a program does then stands in the package's own test.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "packaging/debian/tests/library.py"
"""What the Debian package is tested with, too."""
PYTHONS = ("3.11", "3.12", "3.13")
PYROUTE2 = ("0.7.2", "0.7.7", "0.8.1")
"""Releases that programs beside linxd have, and the newest besides."""
OLDEST_DBUS = "dbus-next==0.2.3"
OLDEST_SETUPTOOLS = ("setuptools==66.0.0", "wheel==0.38.4")
ALONE = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
FETCH_SECONDS = 240.0
SECONDS = 120.0


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it must succeed. Of what surrounds it, it gets PATH alone."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **ALONE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}"
    return done.stdout


@functools.cache
def python(version: str) -> Path | None:
    """A Python that makes virtual environments."""
    named = [
        Path(found) for path in ("/usr/bin", None) if (found := shutil.which(f"python{version}", path=path))
    ]
    homes = (os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), Path.home() / ".local/share/uv/python")
    kept = [
        path
        for home, pattern in zip(homes, ("versions/{}.*", "cpython-{}.*"), strict=True)
        for path in sorted(Path(home).glob(f"{pattern.format(version)}/bin/python{version}"), reverse=True)
    ]
    look = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in (*named, *kept):
        done = subprocess.run([candidate, "-c", look], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    return None


@pytest.fixture(scope="session", params=PYTHONS, ids=lambda version: f"python{version}")
def interpreter(request: pytest.FixtureRequest) -> Path:
    found = python(request.param)
    if found is None:
        pytest.skip(f"no Python {request.param} here")
    return found


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is installed here, fetched once by the pip of this Python as it is set up."""
    directory = tmp_path_factory.mktemp("shelf")
    fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", directory)
    for wanted in (
        *([f"pyroute2=={version}"] for version in PYROUTE2),
        ["pyroute2"],
        ["setuptools", "wheel", "build", "pytest", OLDEST_DBUS],
        OLDEST_SETUPTOOLS,
    ):
        try:
            done = subprocess.run(
                [*fetch, *wanted], capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"fetching {' '.join(wanted)} took too long")
        if done.returncode:
            said = done.stderr.strip() or "pip says nothing"
            pytest.skip(f"{' '.join(wanted)} can't be fetched: {said.splitlines()[-1]}")
    return directory


@dataclass(frozen=True)
class Environment:
    """A virtual environment without the system's packages."""

    directory: Path
    shelf: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin/python"

    def install(self, *what: str | Path) -> None:
        offline = ("--no-index", "--find-links", self.shelf)
        run(self.python, "-m", "pip", "install", "--quiet", *offline, *what, cwd=self.directory)

    def run(self, *words: str | Path, **environment: str) -> str:
        return run(self.directory / "bin" / words[0], *words[1:], cwd=self.directory, **environment)


Make = Callable[[Path], Environment]


@pytest.fixture
def fresh(tmp_path: Path, shelf: Path) -> Iterator[Make]:
    """Makes such an environment."""
    directory = tmp_path / "venv"

    def make(interpreter: Path) -> Environment:
        run(interpreter, "-m", "venv", directory, cwd=tmp_path)
        return Environment(directory, shelf)

    yield make
    # They are large, and pytest keeps what tests leave.
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, for building writes into it."""
    copy = tmp_path_factory.mktemp("tree") / "linxd"
    dropped = shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=dropped, symlinks=True)
    return copy


@pytest.fixture(scope="session")
def dists(tree: Path, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sdist, and the wheel that is built out of it, with the newest setuptools."""
    work = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "venv", work / "venv", cwd=work)
    builder = Environment(work / "venv", shelf)
    builder.install("build")
    said = builder.run(
        "python", "-m", "build", "--outdir", work / "out", tree, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(shelf)
    )
    assert "deprecated" not in said.lower(), said
    [sdist], [wheel] = (list((work / "out").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    return {"sdist": sdist, "wheel": wheel}


def files(tree: Path, part: str = ".") -> set[str]:
    """Of a tree or a part of it. What a link leads to is packed as what it is: so are the interfaces on the
    bus, which linxd tells to who asks, and no other of the bus' files."""
    walked = os.walk(tree / part, followlinks=True)
    found = {Path(root, name).relative_to(tree) for root, _, names in walked for name in names}
    told = Path("linxd/bus/interfaces")
    return {path.as_posix() for path in found if path.parent != told or path.suffix == ".xml"}


def test_the_sdist_is_the_whole_tree(tree: Path, dists: dict[str, Path]) -> None:
    with tarfile.open(dists["sdist"]) as archive:
        packed = {each.name.partition("/")[2] for each in archive if each.isfile()}
    built = ("PKG-INFO", "linxd.egg-info/", "build/")
    there = {name for name in files(tree) if not name.startswith(built)}
    assert {name for name in packed if not name.startswith(built)} == there


def test_the_wheel_has_the_package_and_nothing_else(tree: Path, dists: dict[str, Path]) -> None:
    with zipfile.ZipFile(dists["wheel"]) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        said = archive.read(metadata).decode().partition("\n\n")[0].split("\n")
    assert packed == files(tree, "linxd")
    assert "License: MIT" in said
    # Used as a library it needs Python alone.
    assert [line for line in said if line.startswith("Requires-Dist:") and "extra ==" not in line] == []


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")


def test_out_of_the_sdist(interpreter: Path, fresh: Make, dists: dict[str, Path]) -> None:
    environment = fresh(interpreter)
    environment.install(dists["sdist"])
    is_of_use(environment)


def test_out_of_the_wheel_beside_every_pyroute2(
    interpreter: Path,
    fresh: Make,
    dists: dict[str, Path],
    tree: Path,
    shelf: Path,
    tmp_path: Path,
) -> None:
    environment = fresh(interpreter)
    environment.install(dists["wheel"])
    is_of_use(environment)
    environment.install(f"{dists['wheel']}[service]", OLDEST_DBUS, "pytest")
    # The tests alone: what they import has to be what pip installed.
    alone = tmp_path / "alone"
    shutil.copytree(tree / "tests", alone / "tests")
    shutil.copy(tree / "pyproject.toml", alone)
    for version in (*PYROUTE2, newest(shelf)):
        environment.install(f"pyroute2=={version}")
        environment.run("python", "-I", "-W", "error", LIBRARY, version)
        said = environment.run(
            "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", alone,
            "-c", alone / "pyproject.toml", alone / "tests/kinds/test_numbers.py",
        )  # fmt: skip
        assert " passed" in said
    assert "No broken requirements" in environment.run("python", "-m", "pip", "check")


def is_of_use(environment: Environment) -> None:
    """Fails unless an environment that has nothing but linxd has all of it but the bus."""
    said = json.loads(environment.run("python", "-m", "pip", "list", "--format=json"))
    assert {each["name"] for each in said} <= {"linxd", "pip", "setuptools"}
    environment.run("python", "-I", "-W", "error", LIBRARY)
    for file in sorted((ROOT / "tests/config/good").glob("*.toml")):
        assert "error" not in environment.run("linxctl", "check", file)
    assert "--scope" in environment.run("linxd", "--help")


def newest(shelf: Path) -> str:
    """The newest pyroute2 that was fetched."""
    found = [path.name.split("-")[1] for path in shelf.glob("pyroute2-*.whl")]
    return max(found, key=lambda version: [int(number) for number in version.split(".") if number.isdigit()])


def test_the_oldest_setuptools_builds_it(tree: Path, fresh: Make, tmp_path: Path) -> None:
    """What pyproject.toml admits, and Debian 12 has."""
    interpreter = python(PYTHONS[0])
    if interpreter is None:
        pytest.skip(f"no Python {PYTHONS[0]} here: later ones want a later setuptools")
    environment = fresh(interpreter)
    environment.install(*OLDEST_SETUPTOOLS)
    environment.run(
        "python", "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
        "--wheel-dir", tmp_path / "out", tree,
    )  # fmt: skip
    [wheel] = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files(tree, "linxd")
