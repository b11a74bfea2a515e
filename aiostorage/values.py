"""What a trial is made of: parameters, results, and the names of its states."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self, SupportsFloat, TypeAlias, TypeVar

from aiostorage._core.event_log import EventLog
from aiostorage._core.kinds import shown
from aiostorage._core.normalise import normalise
from aiostorage.errors import EncodingError, InvalidArgument, InvalidResult

__all__ = [
    "FINAL_STATUSES",
    "Param",
    "Params",
    "Result",
    "Results",
    "TrialStatus",
    "Value",
    "as_results",
    "conflict_of_names",
    "flat_values",
    "has_nan",
    "identity_form",
    "make_values",
    "read_values",
    "typed_params",
    "validate_status",
    "values_from_flat",
]

events: Final = EventLog("records")

_ATOMS: Final = frozenset({str, int, float, bool, type(None)})
"""Types whose values need neither conversion nor copying; most parameters are of these."""


class TrialStatus(StrEnum):
    """The status of a trial."""

    NEW = "new"
    RESERVED = "reserved"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    BROKEN = "broken"


FINAL_STATUSES: Final = (TrialStatus.COMPLETED.value, TrialStatus.BROKEN.value)
"""The statuses of trials that have ended and are not tried again."""

_STATUSES: Final = {status.value: status.value for status in TrialStatus}


def validate_status(status: str) -> str:
    """Return `status` as a plain str; ValueError unless it is the value of a `TrialStatus`."""
    try:
        return _STATUSES[status]
    except (KeyError, TypeError):
        known = ", ".join(_STATUSES)
        raise InvalidArgument(
            f"unknown trial status {shown(status)}; allowed are: {known}", argument="status"
        ) from None


def identity_form(value: Any) -> Any:
    """Return the value that the id of a trial is made of: as it is stored, with times as Oríon's.

    Oríon has naive times in UTC. A value that cannot be stored is returned as it is.
    """
    return value if value.__class__ in _ATOMS else _with_naive_times(_as_stored(value))


def _as_stored(value: Any) -> Any:
    try:
        return normalise(value)
    except EncodingError:
        return value


def _with_naive_times(value: Any) -> Any:
    if value.__class__ is datetime:
        return value.replace(tzinfo=None)
    if value.__class__ is list:
        return list(map(_with_naive_times, value))
    if value.__class__ is dict:
        return {key: _with_naive_times(item) for key, item in value.items()}
    return value


def _unknown_type(name: object, type: object, kind: Any) -> ValueError:  # noqa: A002
    known = ", ".join(kind.allowed_types)
    return ValueError(f"unknown type {type!r} of {name!r}; allowed are: {known}")


class Value:
    """A value with a name and a type; equal to another one with the same three.

    Parameters
    ----------
    name : str
        The name of the parameter or result; dots separate the levels of a nested parameter.
    type : str, optional
        One of `allowed_types`; ValueError for any other.
    value
        Anything that can be stored. Values with a ``tolist``, such as numpy's, become Python's.
    """

    __slots__ = ("name", "type", "value")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it can change
    allowed_types: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, type: str | None = None, value: Any = None) -> None:  # noqa: A002 -- its stored name
        if type is not None and type not in self.allowed_types:
            raise _unknown_type(name, type, self)
        self.name: str = name
        self.type: str | None = type
        if value.__class__ not in _ATOMS and hasattr(value, "tolist"):
            # a datetime64 of nanoseconds would become an int
            is_time = getattr(getattr(value, "dtype", None), "kind", None) == "M"
            value = _as_stored(value) if is_time else value.tolist()
        self.value: Any = value

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form; the value itself is not copied."""
        return {"name": self.name, "type": self.type, "value": self.value}

    def copy(self) -> Self:
        """Return a copy that shares no mutable value with this one."""
        atom = self.value.__class__ in _ATOMS
        value = self.value if atom else copy.deepcopy(self.value)
        return self.__class__(self.name, self.type, value)

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Value) else NotImplemented

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"{self.__class__.__name__}({fields})"


class Param(Value):
    """The value of one parameter: an integer, real, categorical or fidelity."""

    __slots__ = ()
    allowed_types: ClassVar[tuple[str, ...]] = ("integer", "real", "categorical", "fidelity")


class Result(Value):
    """One outcome: an objective, constraint, gradient or statistic, or a lie (made-up)."""

    __slots__ = ()
    allowed_types: ClassVar[tuple[str, ...]] = (
        "objective",
        "constraint",
        "gradient",
        "statistic",
        "lie",
    )


_V = TypeVar("_V", bound=Value)

Flat: TypeAlias = tuple[Any, ...]
"""The name, the type and the value of one value, then those of the next."""


def make_values(kind: type[_V], items: Iterable[Any]) -> list[_V]:
    """Make values of mappings or of Oríon's counterparts; instances are kept as they are."""
    values = []
    for item in items:
        if isinstance(item, kind):
            if item.type is not None and item.type not in kind.allowed_types:  # set afterwards
                raise _unknown_type(item.name, item.type, kind)
            values.append(item)
        elif isinstance(item, Mapping):
            values.append(kind(**item))
        elif hasattr(item, "name") and hasattr(item, "type") and hasattr(item, "value"):
            values.append(kind(item.name, item.type, item.value))
        else:
            raise TypeError(f"expected a mapping or a {kind.__name__}, not {reprlib.repr(item)}")
    return values


def read_values(kind: type[_V], documents: Iterable[Mapping[str, Any]] | None) -> list[_V]:
    """Make values of their stored forms; keys may be missing, and others are ignored."""
    values: list[_V] = []
    allowed = kind.allowed_types
    for document in documents or ():
        get = document.get
        name, type_, value = get("name"), get("type"), get("value")
        if type_ in allowed and value.__class__ in _ATOMS:  # as nearly all are
            made = kind.__new__(kind)
            made.name, made.type, made.value = name, type_, value  # type: ignore[assignment]
        else:
            made = kind(name, type_, value)  # type: ignore[arg-type]
        values.append(made)
    return values


def flat_values(kind: type[Value], documents: Iterable[Mapping[str, Any]] | None) -> Flat:
    """Check the stored forms of values, as `read_values` does, and return them as a flat tuple.

    A tuple of strings and numbers takes little memory, and the garbage collector passes it by.
    """
    flat: list[Any] = []
    allowed = kind.allowed_types
    for document in documents or ():
        name, type_, value = document.get("name"), document.get("type"), document.get("value")
        if type_ is not None and type_ not in allowed:
            raise _unknown_type(name, type_, kind)
        if value.__class__ not in _ATOMS and hasattr(value, "tolist"):
            value = kind(str(name), type_, value).value
        flat += (name, type_, value)
    return tuple(flat)


def values_from_flat(kind: type[_V], flat: Flat) -> list[_V]:
    """Make the values that `flat_values` has checked."""
    items = iter(flat)
    return [kind(*three) for three in zip(items, items, items, strict=True)]


Params: TypeAlias = Mapping[str, Any] | Iterable[Param | Mapping[str, Any]]
Results: TypeAlias = SupportsFloat | Mapping[str, Any] | Iterable[Result | Mapping[str, Any]]


def as_results(value: Results, *, bools: bool = False) -> list[Result]:
    """Return the results of a trial, in any form that a user may pass, as a list of `Result`s.

    Parameters
    ----------
    value
        A number: the objective. A mapping of names to values: its entry ``objective``, or else its
        first, is the objective, the others are statistics. Or `Result`s or their dicts as a list.
        Numbers may be numpy's.
    bools
        Whether a bool may be the objective among `Result`s, as it may in Oríon.

    Raises
    ------
    InvalidResult
        There is no objective, it is neither an int nor a float (NaN is a float, a bool is neither),
        or `value` is something else.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        if isinstance(value, bool):
            raise TypeError("a bool is not an objective")  # noqa: TRY301  like those from within
        if isinstance(value, (int, float)):
            results = [Result("objective", "objective", value)]
        elif isinstance(value, Mapping):
            best = "objective" if "objective" in value else next(iter(value), None)
            kinds = (("objective" if name == best else "statistic") for name in value)
            results = list(map(Result, value, kinds, value.values()))
            _check_result_names(results)
        else:
            results = make_values(Result, value)  # type: ignore[arg-type]
            _check_result_names(results)
    except (TypeError, ValueError) as error:
        what = "a number, a mapping of names to values or a list of results"
        within = isinstance(value, Iterable | bool) and not isinstance(value, str)
        detail = f": {error}" if within else ""
        raise InvalidResult(f"results must be {what}, not {shown(value)}{detail}") from error
    objectives = [result for result in results if result.type == "objective"]
    if not objectives:
        raise InvalidResult(f"no result is of type objective in results={shown(results)}")
    best = objectives[0].value
    if not isinstance(best, (int, float)) or (isinstance(best, bool) and not bools):
        raise InvalidResult(
            f"the objective among the results must be an int or a float: {shown(objectives[0])}"
        )
    if len(objectives) > 1:
        events.warning(
            "several_objectives",
            "only the first objective counts, of several: %(objectives)s",
            objectives=objectives,
        )
    return results


def _check_result_names(results: Iterable[Result]) -> None:
    for result in results:
        name: Any = result.name
        if name is not None and not isinstance(name, str):  # Oríon has None
            raise TypeError(f"the name of a result is a str: {result!r}")


def has_nan(results: Iterable[Result]) -> bool:
    """Return whether the objective, which is the first result of that type, is NaN."""
    for result in results:
        if result.type == "objective":
            return bool(result.value != result.value)
    return False


def typed_params(params: Mapping[str, Any]) -> list[Param]:
    """Make params of names and values, possibly nested; the values determine the types.

    Raises
    ------
    ValueError
        Two values have one name, as in ``{"a": {"b": 1}, "a.b": 2}``, or one leads into another,
        as ``a.b`` into ``a`` in ``{"a": 1, "a.b": 2}``.
    """
    made = list(_typed_params(params, ""))
    for param in made:
        if "." in param.name:
            conflict = conflict_of_names([param.name for param in made])
            if conflict is not None:
                raise ValueError(conflict)
            break
    return made


def conflict_of_names(names: Iterable[str]) -> str | None:
    """Return why params cannot have these names; None if they can.

    One of them would hide the value of another: there is a name twice, or one leads into another,
    as ``a.b`` into ``a``.
    """
    ordered = list(names)
    taken: set[str] = set()
    for name in ordered:
        if name in taken:
            return f"two params have the name {name!r}"
        taken.add(name)
    for name in ordered:
        parent = name
        while parent := parent.rpartition(".")[0]:
            if parent in taken:
                return f"{name!r} leads into the value of {parent!r}"
    return None


def _typed_params(params: Mapping[str, Any], prefix: str) -> Iterator[Param]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _typed_params(value, f"{prefix}{name}.")
            continue
        param = Param(f"{prefix}{name}", "categorical", value)
        if isinstance(param.value, float):
            param.type = "real"
        elif isinstance(param.value, int) and not isinstance(param.value, bool):
            param.type = "integer"
        yield param
