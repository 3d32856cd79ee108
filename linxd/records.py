# SPDX-License-Identifier: MIT
"""Dataclasses whose methods are written when they are first called: what `dataclasses` would write for each
class as it is imported was two fifths of a daemon's start and two of its megabytes, most of it never used.

`dataclass`, `field` and `replace` mean what they mean in `dataclasses`, and `NamedTuple` what it means in
`typing`, as far as they are used here; a type checker sees those. It knows nothing of the classes.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import NamedTuple

    __all__ = ["NamedTuple", "dataclass", "field", "ready", "replace"]

    def ready(*classes: type) -> None:
        """Have `__init__` of these classes written now, so that the first who makes one need not wait for
        it."""
else:
    _MISSING: Any = object()

    class _Field:
        """What is said of a field besides its type."""

        __slots__ = ("compare", "default", "factory", "init", "name", "repr")

        def __init__(self, default: Any, factory: Any, init: bool, repr: bool, compare: bool) -> None:
            self.name = ""
            self.default, self.factory = default, factory
            self.init, self.repr, self.compare = init, repr, compare

    def field(
        *, default: Any = _MISSING, default_factory: Any = _MISSING, init=True, repr=True, compare=True
    ) -> Any:
        """A field that has more to it than a type and a default."""
        return _Field(default, default_factory, init, repr, compare)

    def dataclass(cls=None, /, *, frozen=False, slots=False, order=False):
        """A class of fields, as `dataclasses.dataclass` makes it."""

        def made(cls: type) -> type:
            fields = _fields(cls)
            if slots:
                cls = _slotted(cls, fields)
            return _furnish(cls, fields, frozen=frozen, order=order)

        return made if cls is None else made(cls)

    class _Named(type):
        """Makes tuples with names of classes. `typing` compiles the type of each field, of which nobody
        asks."""

        def __new__(mcs, name: str, bases: tuple[type, ...], given: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(mcs, name, bases, given)
            fields = given.get("__annotations__", {})
            defaults = [given[each] for each in fields if each in given]
            made = namedtuple(name, fields, defaults=defaults, module=given["__module__"])
            for key, value in given.items():
                if key not in fields and key not in ("__classcell__", "__module__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Named):
        """A tuple whose places have names, types and defaults."""

    def replace(obj: Any, /, **changes: Any) -> Any:
        """The same with other values in some fields; `__init__` decides what goes."""
        cls = type(obj)
        for each in cls.__record__:
            if each.init and each.name not in changes:
                changes[each.name] = getattr(obj, each.name)
        return cls(**changes)

    def _fields(cls: type) -> tuple[_Field, ...]:
        """Those of the bases, and then its own."""
        found: dict[str, _Field] = {}
        for base in cls.__mro__[-1:0:-1]:
            found.update((each.name, each) for each in base.__dict__.get("__record__", ()))
        for name, type_ in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063 - brings all of inspect
            if type_.startswith("ClassVar"):
                continue
            default = cls.__dict__.get(name, _MISSING)
            one = default if isinstance(default, _Field) else _Field(default, _MISSING, True, True, True)
            if one.default.__class__.__hash__ is None:
                raise ValueError(f"{cls.__qualname__}.{name}: all would share it, use default_factory")
            one.name = name
            found[name] = one
            if one.default is not _MISSING:
                setattr(cls, name, one.default)
            elif name in cls.__dict__:
                delattr(cls, name)
        return tuple(found.values())

    def _slotted(cls: type, fields: tuple[_Field, ...]) -> type:
        """A class anew, with a slot for each field: an existing one can't be given any."""
        inherited = {name for base in cls.__mro__[1:] for name in base.__dict__.get("__slots__", ())}
        names = [each.name for each in fields]
        given = {
            name: value for name, value in cls.__dict__.items()
            if name not in names and name not in ("__dict__", "__weakref__")
        }  # fmt: skip
        given["__slots__"] = tuple(name for name in names if name not in inherited)
        made = type(cls)(cls.__name__, cls.__bases__, given)
        made.__qualname__ = cls.__qualname__
        return made

    def _furnish(cls: type, fields: tuple[_Field, ...], *, frozen: bool, order: bool) -> type:
        given: dict[str, Any] = {
            "__record__": fields,
            "__match_args__": tuple(each.name for each in fields if each.init),
            "__dataclass_fields__": _FIELDS,
            "__dataclass_params__": _PARAMS,
            "__signature__": _SIGNATURE,
            "__init__": _later(cls, "__init__"),
            "__repr__": _repr,
            "__eq__": _later(cls, "__eq__"),
        }
        if frozen:
            given |= {
                "__setattr__": _frozen, "__delattr__": _frozen, "__hash__": _later(cls, "__hash__"),
                "__getstate__": _getstate, "__setstate__": _setstate,
            }  # fmt: skip
        elif "__eq__" not in cls.__dict__:
            given["__hash__"] = None
        if order:
            given |= {name: _later(cls, name) for name in _SIGNS if name != "__eq__"}
        own = cls.__dict__
        for name, value in given.items():
            if name not in own or (name == "__hash__" and own[name] is None):
                setattr(cls, name, value)
        return cls

    class _Twin:
        """What `dataclasses` and who reads its marks ask of a class; made when somebody does."""

        __slots__ = ("_name",)

        def __init__(self, name: str) -> None:
            self._name = name

        def __get__(self, obj: Any, cls: type) -> Any:
            import dataclasses

            one = [
                (
                    each.name,
                    Any,
                    dataclasses.field(
                        **({} if each.default is _MISSING else {"default": each.default}),
                        **({} if each.factory is _MISSING else {"default_factory": each.factory}),
                        init=each.init,
                        repr=each.repr,
                        compare=each.compare,
                        kw_only=False,
                    ),
                )
                for each in cls.__record__
            ]
            frozen = cls.__setattr__ is _frozen
            return getattr(dataclasses.make_dataclass(cls.__name__, one, frozen=frozen), self._name)

    class _Signature:
        """Has `__init__` written before `inspect` looks at what it takes."""

        def __get__(self, obj: Any, cls: type) -> Any:
            ready(cls)
            raise AttributeError("__signature__")

    _SIGNATURE = _Signature()
    _FIELDS, _PARAMS = _Twin("__dataclass_fields__"), _Twin("__dataclass_params__")

    # -- methods --------------------------------------------------------------------------------------------

    def _later(cls: type, name: str) -> Callable[..., Any]:
        """A method that writes itself when it is called."""

        def method(*args: Any, **kwargs: Any) -> Any:
            written = _WRITERS[name](cls, name)
            if cls.__dict__[name] is method:
                setattr(cls, name, written)
            return written(*args, **kwargs)

        method.__name__ = name
        return method

    _UNWRITTEN = _later(object, "").__code__

    def ready(*classes: type) -> None:
        for cls in classes:
            owner = next(base for base in cls.__mro__ if "__init__" in base.__dict__)
            if getattr(owner.__dict__["__init__"], "__code__", None) is _UNWRITTEN:
                owner.__init__ = _init(owner, "__init__")

    def _written(cls: type, name: str, parameters: str, body: list[str], given: Mapping[str, Any]) -> Any:
        made: dict[str, Any] = {}
        text = "\n ".join([f"def {name}({parameters}):", *(body or ["pass"])])
        exec(text, {"__name__": cls.__module__, **given}, made)
        method = made[name]
        method.__qualname__ = f"{cls.__qualname__}.{name}"
        return method

    def _init(cls: type, name: str) -> Any:
        """A frozen one is filled by way of its slots: in two thirds of the time that object.__setattr__
        takes."""
        parameters, body, given = ["self"], [], {"_missing": _MISSING, "_set": object.__setattr__}
        frozen = cls.__setattr__ is _frozen
        for number, each in enumerate(cls.__record__):
            # By numbers: Python keeps each name that there is, and those of fields are there.
            name, value = each.name, each.name
            if each.default is not _MISSING:
                given[f"_default{number}"] = each.default
            if each.factory is not _MISSING:
                given[f"_factory{number}"] = each.factory
                value = f"_factory{number}()"
                if each.init:
                    value += f" if {name} is _missing else {name}"
            if each.init:
                default = (
                    f"=_default{number}" if each.default is not _MISSING
                    else "=_missing" if each.factory is not _MISSING else ""
                )  # fmt: skip
                parameters.append(name + default)
            elif each.default is not _MISSING:
                value = f"_default{number}"
            elif each.factory is _MISSING:
                continue
            slot = getattr(cls, name, None)
            if not frozen:
                body.append(f"self.{name} = {value}")
            elif type(slot) is _SLOT:
                given[f"_slot{number}"] = slot.__set__
                body.append(f"_slot{number}(self, {value})")
            else:
                body.append(f"_set(self, {name!r}, {value})")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        return _written(cls, "__init__", ", ".join(parameters), body, given)

    class _Slotted:
        __slots__ = ("one",)

    _SLOT = type(_Slotted.__dict__["one"])

    def _values(cls: type, of: str) -> str:
        return "(" + "".join(f"{of}.{each.name}, " for each in cls.__record__ if each.compare) + ")"

    _SIGNS = {"__eq__": "==", "__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}

    def _compared(cls: type, name: str) -> Any:
        body = [
            "if other.__class__ is self.__class__:",
            f" return {_values(cls, 'self')} {_SIGNS[name]} {_values(cls, 'other')}",
            "return NotImplemented",
        ]
        return _written(cls, name, "self, other", body, {})

    def _hash(cls: type, name: str) -> Any:
        return _written(cls, name, "self", [f"return hash({_values(cls, 'self')})"], {})

    _WRITERS = {"__init__": _init, "__hash__": _hash, **dict.fromkeys(_SIGNS, _compared)}

    def _repr(self: Any) -> str:
        shown = ", ".join(
            f"{each.name}={getattr(self, each.name)!r}" for each in self.__record__ if each.repr
        )
        return f"{self.__class__.__qualname__}({shown})"

    def _frozen(self: Any, name: str, *_: Any) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot change field {name!r}")

    def _getstate(self: Any) -> list[Any]:
        return [getattr(self, each.name) for each in self.__record__]

    def _setstate(self: Any, state: list[Any]) -> None:
        for each, value in zip(self.__record__, state, strict=True):
            object.__setattr__(self, each.name, value)
