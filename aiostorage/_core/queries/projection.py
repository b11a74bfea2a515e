"""Selections: which parts of a document are returned.

They follow the MongoDB 6.0 server: its manual on ``find``'s projection and
``tests/mongo/test_query_differential.py``, which asks the server itself.

There are deliberate deviations:

- Selections include and exclude by 0, 1, False and True, and by nothing else: no ``$slice``, no
  ``$elemMatch``, no expressions.
- Paths have the shape that `split_path` requires; none leads into ``_id``.

Documents are plain, as `aiostorage._core.normalise.normalise` returns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from aiostorage._core.queries.paths import check_collisions, split_path
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import Document

__all__ = ["check_selection", "copy_tree", "select"]

_CONTAINERS: Final[frozenset[type]] = frozenset((dict, list))

_SelectionTree: TypeAlias = dict[str, "_SelectionTree | None"]
"""The paths of a selection, nested by name; None where a path ends."""


def copy_tree(value: Any) -> Any:
    """Copy a tree of plain dicts and lists; everything else in it is immutable.

    Six times as fast as `copy.deepcopy`. Every engine calls it on every document, so each step was
    measured: copying a dict as a whole and then replacing the few values that are containers
    beats a comprehension, and so does looking for containers in a list before walking it.
    """
    kind = value.__class__
    if kind is dict:
        value = value.copy()
        for key, item in value.items():
            if item.__class__ in _CONTAINERS:
                value[key] = copy_tree(item)
        return value
    return _copy_list(value) if kind is list else value


def _copy_list(array: list[Any]) -> list[Any]:
    if _CONTAINERS.isdisjoint(map(type, array)):
        return array[:]
    copied: list[Any] = []
    for item in array:
        if item.__class__ is dict:  # as params and results are, so without a call for each
            item = item.copy()  # noqa: PLW2901
            for key, inner in item.items():
                if inner.__class__ in _CONTAINERS:
                    item[key] = copy_tree(inner)
        elif item.__class__ is list:
            item = _copy_list(item)  # noqa: PLW2901
        copied.append(item)
    return copied


def check_selection(selection: Mapping[str, Any] | None) -> dict[str, bool] | None:
    """Check a selection: which fields of documents a caller wants.

    Parameters
    ----------
    selection : mapping or None
        MongoDB's projection: dotted paths to 1 or True, for these fields and ``_id`` only; or to 0
        or False, for all other fields. ``_id`` may be included or excluded independently.

    Returns
    -------
    dict or None
        Paths to bools, for `select` and `Find`; None if the selection is None or empty, which
        selects everything.

    Raises
    ------
    UnsupportedQuery
        It has other values, both includes and excludes, or names a path and another one inside it.
    """
    if selection is None:
        return None
    if not isinstance(selection, Mapping):
        raise UnsupportedQuery(f"a selection is a mapping of paths to 0 or 1, not {selection!r}")
    checked: dict[str, bool] = {}
    for path, keep in selection.items():
        names = split_path(path)
        if names[0] == "_id" and len(names) > 1:
            raise UnsupportedQuery(f"the selection cannot divide _id, as {path!r} does")
        if not isinstance(keep, (bool, int)) or keep not in (0, 1):
            raise UnsupportedQuery(
                f"the selection has {keep!r} at {path!r}; supported are 0, 1, False and True"
            )
        checked[path] = bool(keep)
    if len({keep for path, keep in checked.items() if path != "_id"}) > 1:
        raise UnsupportedQuery(
            f"the selection {dict(selection)!r} includes and excludes; only _id may be an exception"
        )
    check_collisions(checked, "selection")
    return checked or None


def select(document: Mapping[str, Any], selection: Mapping[str, bool] | None) -> Document:
    """Copy the part of a document that a selection asks for, as MongoDB's ``find`` does.

    Parameters
    ----------
    document : mapping
        A plain document.
    selection : mapping or None
        A selection that `check_selection` returned.

    Returns
    -------
    dict
        A copy with the fields in the order of `document`. Paths go through arrays of documents;
        a number in a path is a key there, never an index.
    """
    if not selection:
        return {key: copy_tree(value) for key, value in document.items()}
    including, tree = _selection_tree(tuple(selection.items()))
    return (_include if including else _exclude)(document, tree)


@lru_cache(maxsize=128)
def _selection_tree(selection: tuple[tuple[str, bool], ...]) -> tuple[bool, _SelectionTree]:
    wanted = dict(selection)
    paths = [path for path in wanted if path != "_id"]
    including = bool(wanted[paths[0] if paths else "_id"])
    if bool(wanted.get("_id", True)) is including:
        paths.append("_id")
    tree: _SelectionTree = {}
    for path in paths:
        *parents, last = split_path(path)
        place = tree
        for name in parents:
            inner = place.setdefault(name, {})
            if inner is None:
                raise UnsupportedQuery(f"the selection names {path!r} and a parent of it")
            place = inner
        place[last] = None
    return including, tree


def _include(document: Mapping[str, Any], tree: _SelectionTree) -> Document:
    kept: Document = {}
    for key, value in document.items():
        if key in tree:
            inner = tree[key]
            if inner is None:
                kept[key] = copy_tree(value)
            elif value.__class__ is dict:
                kept[key] = _include(value, inner)
            elif value.__class__ is list:
                kept[key] = _include_in_list(value, inner)
    return kept


def _include_in_list(array: list[Any], tree: _SelectionTree) -> list[Any]:
    kept: list[Any] = []
    for item in array:
        if item.__class__ is dict:
            kept.append(_include(item, tree))
        elif item.__class__ is list:
            kept.append(_include_in_list(item, tree))
    return kept


def _exclude(document: Mapping[str, Any], tree: _SelectionTree) -> Document:
    rest: Document = {}
    for key, value in document.items():
        if key not in tree:
            rest[key] = copy_tree(value)
        elif (inner := tree[key]) is not None:
            rest[key] = _exclude_in(value, inner)
    return rest


def _exclude_in(value: Any, tree: _SelectionTree) -> Any:
    if value.__class__ is dict:
        return _exclude(value, tree)
    if value.__class__ is list:
        return [_exclude_in(item, tree) for item in value]
    return value
