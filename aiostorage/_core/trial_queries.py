"""What callers ask of trials: filters, params by name, orders. Pure functions.

A filter that no trial can ever meet, because of its shape, is refused with words that say what to
write: it would look like a question whose answer is "none".
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage._core.paths import array_index
from aiostorage._core.query import parse_all
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import Compare, Condition, ElementMatch, SortBy, StoreTime
from aiostorage.values import Param, Result, TrialStatus, Value

__all__ = ["Unchecked", "order_of", "trial_condition"]

_STATUSES: Final = tuple(status.value for status in TrialStatus)
_FIELDS: Final = {f.name: f.kind for c in LAYOUT.collections if c.name == TRIALS for f in c.fields}
_TIMES: Final = frozenset(name for name, kind in _FIELDS.items() if kind == "time")
_DECLARED: Final = frozenset(_FIELDS) | {"_id"}
_LISTS: Final[dict[str, type[Value]]] = {"params": Param, "results": Result}
_PARTS: Final = ("name", "type", "value")

_OBJECTIVE: Final = "where={'results': {'$elemMatch': {'type': 'objective', 'value': …}}}"
_COMPUTED: Final = {"objective": _OBJECTIVE, "objective_value": _OBJECTIVE}
"""Attributes of a trial that are not fields, and what to write instead."""

_ORDERS: Final[dict[str, SortBy]] = {
    **{name: SortBy(name) for name in ("submit_time", "start_time", "end_time")},
    "objective": SortBy("results", element=Compare("type", "eq", "objective")),
}


class Unchecked(dict[str, Any]):
    """A filter that may ask for what no trial can be, as those of Oríon's door may."""


def trial_condition(
    where: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None = None,
    *,
    by_name: bool = True,
) -> Condition:
    """Return the condition that trials meet a filter, and that their params meet others.

    Parameters
    ----------
    where
        The filter.
    params
        For names of params, possibly nested, what their values have to be or to meet.
    by_name
        Whether the caller could pass `params`, for the error.

    Raises
    ------
    UnsupportedQuery
        The language does not have it, or no trial can ever meet it.
    """
    named = [] if params is None else list(_filters_of(params))
    condition = parse_all(where)
    if not isinstance(where, Unchecked):
        _check(condition, "", by_name)
    return parse_all(where, *named) if named else condition


def order_of(name: object) -> tuple[str | SortBy, ...]:
    """Return the order that a caller has named: by submit time if none.

    Raises
    ------
    ValueError
        There is no such order.
    """
    if name is None:
        return ("submit_time",)
    plain = name.removeprefix("-") if isinstance(name, str) else ""
    if plain not in _ORDERS:
        raise ValueError(
            f"order is one of {', '.join(_ORDERS)}, or '-' and one of them for descending, not "
            f"{reprlib.repr(name)}"
        )
    by = _ORDERS[plain]
    return (SortBy(by.path, plain != name, by.element),)


# -------------------------------------------------------------------------------------- params


def _filters_of(params: Any, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield the filters that the values of params have to meet."""
    if not isinstance(params, Mapping):
        raise UnsupportedQuery(
            "params is a mapping of names to values or to operators, such as "
            f"{{'lr': {{'$gt': 0.001}}}}, not {reprlib.repr(params)}"
        )
    for key, wanted in params.items():
        if not isinstance(key, str) or key.startswith("$"):
            raise UnsupportedQuery(
                f"the names of params are text that does not start with '$', not {key!r:.60}; "
                "`where` has the other operators, and $elemMatch for every name"
            )
        name = f"{prefix}{key}"
        is_mapping = isinstance(wanted, Mapping)
        if is_mapping and wanted and not any(str(inner).startswith("$") for inner in wanted):
            yield from _filters_of(wanted, f"{name}.")
            continue
        value = {"value": wanted}
        if is_mapping and isinstance(wanted.get("$exists"), bool | int | float):
            rest = {op: operand for op, operand in wanted.items() if op != "$exists"}
            value = {"value": rest} if rest else {}
            if not wanted["$exists"]:
                yield {"params.name": {"$ne": name}}
                if not rest:
                    continue
        query = {"params": {"$elemMatch": {"name": name, **value}}}
        try:
            parse_all(query)
        except (EncodingError, UnsupportedQuery) as error:  # it says where, but not of which param
            error.args = (f"params {name!r:.60}: {error}",)
            raise
        yield query


# --------------------------------------------------------------------- what no trial can ever be


def _check(condition: Condition, inside: str, by_name: bool) -> None:
    """Refuse what no trial can meet; `inside` is the list in whose elements the paths begin."""
    if isinstance(condition, Compare):
        _check_compare(condition, inside, by_name)
    elif isinstance(condition, ElementMatch):
        path = _joined(inside, condition.path)
        _check_place(path, by_name)
        if path in _DECLARED:
            raise UnsupportedQuery(f"{path} is not a list, so $elemMatch finds nothing there")
        if path in _LISTS:
            _check(condition.condition, path, by_name)
    else:
        for part in condition.conditions:
            _check(part, inside, by_name)


def _joined(inside: str, path: str) -> str:
    return f"{inside}.{path}" if inside and path else inside or path


def _check_compare(compare: Compare, inside: str, by_name: bool) -> None:
    path = _joined(inside, compare.path)
    _check_place(path, by_name)
    if compare.op == "exists":
        return
    values = compare.value if compare.op in ("in", "nin") else (compare.value,)
    root, _, last = path.rpartition(".")
    field = path.partition(".")[0]
    for value in values:
        if path == "status":
            _check_name(value, _STATUSES, compare, "a trial has no status")
        elif path in _TIMES and not (value is None or isinstance(value, datetime | StoreTime)):
            raise UnsupportedQuery(f"{path} is a time: write a datetime, not {reprlib.repr(value)}")
        elif field in _LISTS and last == "type" and value is not None:
            _check_name(value, _LISTS[field].allowed_types, compare, f"{root} have no type")
        elif field in _LISTS and (path == field or array_index(last) is not None):
            _check_items(field, value, whole=path == field and not inside, by_name=by_name)


def _check_name(value: Any, names: tuple[str, ...], compare: Compare, what: str) -> None:
    """Refuse a name that does not exist; it may stand at the end of a range."""
    if value in names or (isinstance(value, str) and compare.op in ("gt", "gte", "lt", "lte")):
        return
    import difflib  # noqa: PLC0415  for a message alone

    near = difflib.get_close_matches(value, names, 1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnsupportedQuery(f"{what} {reprlib.repr(value)}: it is one of {', '.join(names)}{hint}")


def _check_items(field: str, value: Any, *, whole: bool, by_name: bool) -> None:
    """Refuse a value of a list, or of an item of it, that is made of something else."""
    if value is None or (whole and value == []):
        return
    for item in value if whole and isinstance(value, list) else [value]:
        wrong = (
            next((key for key in item if key not in _PARTS), None) if isinstance(item, dict) else ""
        )
        if wrong is not None:
            name = wrong or ("lr" if field == "params" else "loss")
            raise UnsupportedQuery(
                f"{field} is a list of dicts of name, type and value, and never has "
                f"{reprlib.repr(value)}; write {_advice(field, name, by_name)}"
            )


def _check_place(path: str, by_name: bool) -> None:
    """Refuse a path that leads nowhere in any trial."""
    root, dot, rest = path.partition(".")
    if root in _COMPUTED:
        raise UnsupportedQuery(
            f"{root!r} is not a field of a stored trial; write {_COMPUTED[root]}"
        )
    if not dot:
        return
    if root in _DECLARED:
        raise UnsupportedQuery(f"{root} has no parts: nothing is at {path!r}")
    if root in _LISTS:
        first, _, inner = rest.partition(".")
        name = inner if array_index(first) is not None else rest
        part, _, inside = name.partition(".")
        if inside and part in ("name", "type"):
            raise UnsupportedQuery(f"the {part} of {root} has no parts: nothing is at {path!r}")
        if name and part not in _PARTS:
            raise UnsupportedQuery(
                f"{root} is a list of dicts of name, type and value: nothing is at {path!r}; write "
                f"{_advice(root, name, by_name)}"
            )


def _advice(field: str, name: str, by_name: bool) -> str:
    name = reprlib.repr(name)
    inside = f"where={{{field!r}: {{'$elemMatch': {{'name': {name}, 'value': …}}}}}}"
    return f"params={{{name}: …}}, or {inside}" if field == "params" and by_name else inside
