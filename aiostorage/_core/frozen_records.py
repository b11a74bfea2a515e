"""Frozen records: dataclasses that are quickly imported and quickly made.

For each frozen class of a package that is imported, Python takes 0.4 ms to compile what
`dataclasses.dataclass` writes. Most of it is the same for all classes, and stands in
`FrozenRecord`; the rest is compiled at once. `dataclasses.replace`, `fields` and `asdict` take
these records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from reprlib import recursive_repr
from types import FunctionType
from typing import Any, TypeVar, dataclass_transform

__all__ = ["FrozenRecord", "frozen_record"]

T = TypeVar("T", bound="FrozenRecord")


class FrozenRecord:
    """The base of frozen records: they are compared, hashed, shown and pickled by their fields."""

    __slots__ = ()

    @staticmethod
    def _values(record: Any) -> tuple[Any, ...]:
        """Return the values of a record's fields; each class has a function of its own."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __hash__(self) -> int:
        return hash(self._values(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, self._values(self)

    @recursive_repr()
    def __repr__(self) -> str:
        names = self.__match_args__  # type: ignore[attr-defined]  # of each dataclass
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_record(cls: type[T]) -> type[T]:
    """Make a class of frozen records, with slots, of the annotations in a class body.

    A field may have a default; what else `dataclasses.field` knows is not supported.
    """
    made: type[T] = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    known = fields(made)  # type: ignore[arg-type]  # it is a dataclass now
    values = staticmethod(_values_of([one.name for one in known]))
    made._values = values  # type: ignore[assignment, method-assign]  # noqa: SLF001
    for method in _compiled(made, known):
        method.__qualname__ = f"{made.__qualname__}.{method.__name__}"
        setattr(made, method.__name__, method)
    return made


def _values_of(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Make the function that returns the values of a record's fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def _compiled(made: type[Any], known: Sequence[Field[Any]]) -> tuple[FunctionType, FunctionType]:
    """Compile ``__init__`` and ``__eq__``.

    The first sets slots by their descriptors, since attributes cannot be set.
    """
    given: dict[str, Any] = {}
    parameters, lines = ["self"], ["pass"]
    for one in known:
        given[f"set_{one.name}"] = getattr(made, one.name).__set__
        lines.append(f"set_{one.name}(self, {one.name})")
        if one.default is MISSING:
            parameters.append(one.name)
        else:
            given[f"default_{one.name}"] = one.default
            parameters.append(f"{one.name}=default_{one.name}")
    mine, theirs = (
        "".join(f"{record}.{one.name}, " for one in known) for record in ("self", "other")
    )
    text = f"""
def make({", ".join(given)}):
    def __init__({", ".join(parameters)}):
        {"; ".join(lines)}
    def __eq__(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return ({mine}) == ({theirs})
    return __init__, __eq__
"""
    namespace: dict[str, Any] = {}
    exec(text, namespace)  # noqa: S102  the names of fields, and nothing else
    init, equal = namespace["make"](**given)
    init.__annotations__ = {one.name: one.type for one in known} | {"return": None}
    return init, equal
