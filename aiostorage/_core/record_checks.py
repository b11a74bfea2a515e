"""What a record has to be so that it can be read again. Pure functions.

Everything that is written passes through `check_record`, so that no call of ours stores a trial
that `Trial.from_dict` cannot read, or an experiment whose readers fail. `fault_in` says what is
wrong with a record that was found in a store, where another program may have written it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final

from aiostorage._core.layout import ALGO, EXPERIMENTS, TRIALS
from aiostorage._core.normalise import error_at
from aiostorage._core.queries.paths import array_index
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import Compare
from aiostorage.trial import Trial
from aiostorage.values import Param, Result, Value, conflict_of_names, validate_status

__all__ = [
    "check_record",
    "document_of_trial",
    "fault_in",
    "is_trial_id",
    "needed_items",
    "stored_results",
]

_LISTS: Final[dict[str, type[Value]]] = {"params": Param, "results": Result}
"""The fields of a trial that are lists, and what their items become."""

_ID: Final = re.compile(r"[0-9a-f]{32}")


def check_record(collection: str, values: Mapping[str, Any]) -> None:
    """Refuse what could not be read again.

    Parameters
    ----------
    collection
        The collection that it is for.
    values
        A normalised document, or normalised changes: names of fields, or dotted paths, to values.

    Raises
    ------
    ValueError
        The status of a trial is not the value of a `TrialStatus`.
    EncodingError
        Anything else could not be read again. The error names its place.
    UnsupportedQuery
        A path leads into a list by something else than an index.
    """
    if collection == TRIALS:
        _check_trial(values)
        return
    for name, (is_right, what) in _SHAPES.get(collection, {}).items():
        value = values.get(name)
        if value is not None and not is_right(value):
            raise error_at(name, f"{what} is needed, not {reprlib.repr(value)}")


_SHAPES: Final[dict[str, dict[str, tuple[Any, str]]]] = {
    EXPERIMENTS: {
        "version": (lambda value: type(value) is int, "an int"),
        "refers": (lambda value: type(value) is dict, "a dict"),
        "metadata": (lambda value: type(value) is dict, "a dict"),
    },
    ALGO: {"locked": (lambda value: type(value) is int and value in (0, 1), "0 or 1")},
}
"""What fields must be if they are not None: the check, and what it asks for."""


def is_trial_id(text: str) -> bool:
    """Return whether a text has the form of a trial's id."""
    return _ID.fullmatch(text) is not None


def _check_trial(values: Mapping[str, Any]) -> None:
    for path, value in values.items():
        root, dot, rest = path.partition(".")
        if root in _LISTS:
            if dot:
                _check_part(root, rest, value)
            else:
                _check_items(root, value)
        elif path == "status":
            validate_status(value)
        elif path == "id" and not (isinstance(value, str) and is_trial_id(value)):
            raise error_at("id", f"32 hex digits are needed, not {reprlib.repr(value)}")
        elif path == "parent" and value is not None and type(value) not in (str, int):
            raise error_at("parent", f"the id of a trial is needed, not {reprlib.repr(value)}")
        elif path == "exp_working_dir" and value is not None and type(value) is not str:
            raise error_at(path, f"a str is needed, not {reprlib.repr(value)}")


def _check_items(field: str, items: Any) -> None:
    if items is None:  # is read as an empty list
        return
    if not isinstance(items, list):
        raise error_at(field, f"a list of dicts is needed, not {reprlib.repr(items)}")
    for number, item in enumerate(items):
        _check_item(field, item, f"{field}[{number}]")
    if field == "params":
        conflict = conflict_of_names([item["name"] for item in items])
        if conflict is not None:
            raise error_at("params", conflict)


def _check_item(field: str, item: Any, place: str) -> None:
    if not isinstance(item, Mapping):
        raise error_at(place, f"a dict of name, type and value is needed, not {reprlib.repr(item)}")
    _check_type(field, item.get("type"), f"{place}.type")
    _check_name(field, item.get("name"), f"{place}.name")
    value = item.get("value")
    if item.get("type") == "objective" and not (value is None or isinstance(value, int | float)):
        raise error_at(f"{place}.value", f"an objective is a number, not {reprlib.repr(value)}")


def _check_type(field: str, value: Any, place: str) -> None:
    allowed = _LISTS[field].allowed_types
    if value is not None and value not in allowed:
        raise error_at(
            place, f"unknown type {reprlib.repr(value)}; allowed are: {', '.join(allowed)}"
        )


def _check_name(field: str, value: Any, place: str) -> None:
    # Oríon has results without a name
    if not (isinstance(value, str) or (value is None and field == "results")):
        raise error_at(place, f"a name is a str, not {reprlib.repr(value)}")


# ----------------------------------------------------------------------------- parts of lists


def _check_part(field: str, rest: str, value: Any) -> None:
    """Check the new value of a part of ``params`` or ``results``, such as ``0.type``."""
    index, _, inner = rest.partition(".")
    if array_index(index) is None:
        raise UnsupportedQuery(
            f"{field} is a list: {f'{field}.{rest}'!r} names its item by {index!r}, which is no "
            "index"
        )
    place = f"{field}[{index}]{'.' if inner else ''}{inner}"
    if not inner:
        _check_item(field, value, place)
    elif inner == "type":
        _check_type(field, value, place)
        if value == "objective":
            raise error_at(place, f"set {f'{field}.{index}'!r} to make an objective of it")
    elif inner == "name":
        _check_name(field, value, place)
    elif inner.partition(".")[0] in ("type", "name"):
        raise error_at(place, "a name and a type have no parts to set")


def needed_items(collection: str, changes: Mapping[str, Any]) -> tuple[Compare, ...]:
    """Return the conditions under which changes of parts leave a trial that can be read.

    An item whose part is set must be there: setting a part of one that is not there would make an
    item without a name. An objective stays a number.
    """
    if collection != TRIALS:
        return ()
    conditions = []
    for path, value in changes.items():
        field, _, rest = path.partition(".")
        if field in _LISTS and rest:
            index, _, inner = rest.partition(".")
            conditions.append(Compare(f"{field}.{index}", "exists", True))
            if field == "results" and inner == "value" and not isinstance(value, int | float):
                conditions.append(Compare(f"{field}.{index}.type", "ne", "objective"))
    return tuple(conditions)


# ------------------------------------------------------------------------------------- trials


def document_of_trial(trial: Trial) -> dict[str, Any]:
    """Return ``trial.to_dict()``.

    Raises
    ------
    EncodingError
        Something else than params or results was put among them.
    """
    _check_values(Param, trial.param_list, "params")
    _check_values(Result, trial.results, "results")
    return trial.to_dict()


def stored_results(trial: Trial) -> list[dict[str, Any]]:
    """Return the stored form of the results of a trial.

    Raises
    ------
    EncodingError
        Something else than results was put among them.
    """
    _check_values(Result, trial.results, "results")
    return list(map(Result.to_dict, trial.results))


def _check_values(kind: type[Value], values: Any, field: str) -> None:
    for number, value in enumerate(values):
        if not isinstance(value, kind):
            raise error_at(
                f"{field}[{number}]", f"a {kind.__name__} is needed, not {reprlib.repr(value)}"
            )


def fault_in(document: Mapping[str, Any], error: Exception) -> EncodingError:
    """Return the reason why a stored trial cannot be read.

    Parameters
    ----------
    document
        The trial as it is stored.
    error
        What `Trial.from_dict` raised.
    """
    if isinstance(error, EncodingError):
        return error
    for name in ("status", *_LISTS):
        try:
            if name in document:
                _check_trial({name: document[name]})
        except EncodingError as found:
            return found
        except ValueError as found:
            return error_at(name, str(found))
    return EncodingError(str(error))
