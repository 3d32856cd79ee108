# SPDX-License-Identifier: MIT
# ruff: noqa: N806 - classes by their names
"""Our dataclasses are those of `dataclasses`, written later."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from linxd import records

ROOT = Path(__file__).resolve().parents[2]


def _kinds(of: Any) -> tuple[type, type, type, type]:
    """The same four classes, by one module or the other."""

    @of.dataclass(frozen=True, slots=True)
    class Point:
        """A place."""

        kind: ClassVar[str] = "point"
        x: int
        y: int = 2
        tags: dict[str, int] = of.field(default_factory=dict, compare=False)
        note: str = of.field(default="", compare=False, repr=False)
        sum: int = of.field(init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "sum", self.x + self.y)

    @of.dataclass(frozen=True, slots=True)
    class Place(Point):
        name: str = "here"
        y: int = 5

    @of.dataclass(slots=True)
    class Basket:
        eggs: list[int] = of.field(default_factory=list)
        full: bool = False

    @of.dataclass(frozen=True, slots=True, order=True)
    class Life:
        unit: str
        number: int

    return Point, Place, Basket, Life


OURS, THEIRS = _kinds(records), _kinds(dataclasses)
BOTH = pytest.mark.parametrize("kinds", [OURS, THEIRS], ids=["ours", "theirs"])


@BOTH
def test_made_compared_hashed_and_shown(kinds: tuple[Any, ...]) -> None:
    Point, Place, Basket, Life = kinds
    point = Point(1)
    assert (point.x, point.y, point.tags, point.note, point.sum) == (1, 2, {}, "", 3)
    assert Point(1, tags={"a": 1}).tags == {"a": 1}
    assert Point(1).tags is not Point(1).tags
    assert point == Point(1, 2, {"a": 1}, "else")
    assert point != Point(2)
    assert point != (1, 2)
    assert hash(point) == hash(Point(1, note="else")) == hash((1, 2))
    assert repr(point).endswith("Point(x=1, y=2, tags={}, sum=3)")
    place = Place(1)
    assert (place.x, place.y, place.name, place.sum) == (1, 5, "here", 6)
    assert place != Point(1, 5)
    assert Point.kind == "point"
    assert Point.__doc__ == "A place."
    basket = Basket()
    basket.eggs.append(1)
    basket.full = True
    assert (basket, Basket()) == (Basket([1], True), Basket())
    with pytest.raises(TypeError, match="unhashable"):
        hash(basket)
    assert sorted([Life("b", 1), Life("a", 2), Life("a", 1)]) == [Life("a", 1), Life("a", 2), Life("b", 1)]
    assert Life("a", 1) <= Life("a", 1) < Life("a", 2) >= Life("a", 1)
    with pytest.raises(TypeError):
        assert Life("a", 1) < ("a", 2)


@BOTH
def test_what_is_frozen_stays(kinds: tuple[Any, ...]) -> None:
    Point, _, Basket, _ = kinds
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert point.x == 1
    with pytest.raises(AttributeError):
        Basket().legs = 4
    assert not hasattr(point, "__dict__")


@BOTH
def test_wrong_calls_are_refused(kinds: tuple[Any, ...]) -> None:
    Point = kinds[0]
    for arguments, words in (((), {}), ((1, 2, {}, "", 5), {}), ((1,), {"sum": 3}), ((1,), {"z": 3})):
        with pytest.raises(TypeError):
            Point(*arguments, **words)


@pytest.mark.parametrize("of", [records, dataclasses], ids=["ours", "theirs"])
def test_defaults_that_need_care(of: Any) -> None:
    @of.dataclass(slots=True)
    class Counter:
        name: str
        count: int = of.field(default=3, init=False)

    assert Counter("a").count == 3
    with pytest.raises(ValueError, match="use default_factory"):

        @of.dataclass
        class Shared:
            names: list[str] = []  # noqa: RUF012


@pytest.mark.parametrize("of", [records, dataclasses], ids=["ours", "theirs"])
def test_how_it_is_called_can_be_asked_before_it_is(of: Any) -> None:
    Point, Place, _, _ = _kinds(of)

    class Fixed(Point):
        def __init__(self, where: int) -> None:
            super().__init__(where)

    class Same(Place):
        pass

    assert list(inspect.signature(Same).parameters) == ["x", "y", "tags", "note", "name"]
    assert list(inspect.signature(Point).parameters) == ["x", "y", "tags", "note"]
    assert list(inspect.signature(Fixed).parameters) == ["where"]
    assert Fixed(4).x == 4


@BOTH
def test_copied_and_matched(kinds: tuple[Any, ...]) -> None:
    point = kinds[0](1, 3, {"a": [1]})
    for again in (copy.copy(point), copy.deepcopy(point)):
        assert (again, again.tags, again.sum) == (point, point.tags, point.sum)
    assert kinds[0].__match_args__ == ("x", "y", "tags", "note")


@pytest.mark.parametrize("replace", [records.replace, dataclasses.replace])
def test_replaced_by_either_module(replace: Any) -> None:
    Point, Place, Basket, _ = OURS
    point = Point(1, 2, {"a": 1}, "note")
    other = replace(point, y=7)
    assert (other.x, other.y, other.tags, other.note, other.sum) == (1, 7, {"a": 1}, "note", 8)
    assert replace(Place(1), name="there").name == "there"
    assert replace(Basket(), full=True) == Basket([], True)
    with pytest.raises((TypeError, ValueError)):
        replace(point, sum=3)


class Spot(records.NamedTuple):
    """A place with a name."""

    x: int
    name: str = "here"

    @property
    def words(self) -> str:
        return f"{self.name} at {self.x}"


def test_a_tuple_with_names_is_one() -> None:
    spot = Spot(1)
    assert spot == (1, "here") == Spot(x=1, name="here")
    assert isinstance(spot, tuple)
    assert (spot.x, spot.name, spot.words) == (1, "here", "here at 1")
    assert repr(spot) == "Spot(x=1, name='here')"
    assert spot._replace(x=2) == Spot(2)
    assert spot._asdict() == {"x": 1, "name": "here"}
    assert (Spot.__doc__, Spot._fields) == ("A place with a name.", ("x", "name"))
    assert (Spot.__module__, Spot.__annotations__) == (__name__, {"x": "int", "name": "str"})
    assert pickle.loads(pickle.dumps(spot)) == spot
    match spot:
        case Spot(1, name):
            assert name == "here"
        case _:
            pytest.fail("it is not matched")
    with pytest.raises(AttributeError):
        spot.x = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Spot()  # type: ignore[call-arg]


def test_dataclasses_knows_ours_for_its_own() -> None:
    Point, Place, Basket, _ = OURS
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Place)] == ["x", "y", "tags", "note", "sum", "name"]
    assert [each.name for each in dataclasses.fields(Basket())] == ["eggs", "full"]
    assert dataclasses.asdict(Basket([1])) == {"eggs": [1], "full": False}

    @dataclasses.dataclass(frozen=True)
    class Mine(Point):
        more: int = 0

    assert (Mine(1, more=4).more, Mine(1).y) == (4, 2)
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclasses.dataclass
        class Thawed(Point):
            pass


def test_a_daemon_is_imported_with_few_methods_written() -> None:
    """What is made while modules are imported needs some; all of them would be seven hundred."""
    code = (
        "import builtins; written = []; real = builtins.exec\n"
        "builtins.exec = lambda text, *rest: (written.append(text), real(text, *rest))[1]\n"
        "import linxd.cli.serving; print(sum(type(text) is str for text in written))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 60


def test_what_has_to_be_quick_is_written_before_it_is_made() -> None:
    Point, *_ = _kinds(records)
    unwritten = Point.__init__
    records.ready(Point)
    written = Point.__init__
    assert written is not unwritten
    records.ready(Point)
    assert Point(1) == Point(1)
    assert Point.__init__ is written


def test_the_first_heal_of_a_process_has_no_methods_to_write() -> None:
    program = """
from linxd import records
from linxd.culprit import Glimpse, Identifier, Process
from linxd.reflex import Answered, Reflex
from linxd.patch import Change, Op, Verb
from linxd.source import Hint
Reflex(lambda op, result: True)
Identifier()
records._written = None
hint = records.replace(Hint(("a", "b")), may_wait=True)
class Named:
    key = ("a", "b")
op = Op(Verb.UPDATE, Named(), Named(), (Change("x", "1", "2"),))
Answered(hint, op, None, None, 1.0)
Glimpse(1, process=Process(1, (1,), "a", 1.0, False, True, 1, ()), read_at=1.0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
