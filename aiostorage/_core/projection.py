"""What stands in a document: which part of it is answered, and how ``$set`` changes it.

Both follow the MongoDB 6.0 server: its manual on ``find``'s projection and on ``$set``, and
``tests/mongo/test_query_differential.py``, which asks the server itself.

We deviate in this, on purpose:

- Selections know inclusion and exclusion by 0, 1, False and True, and nothing else: no ``$slice``,
  no ``$elemMatch``, no expressions.
- Paths have the shape that `aiostorage._core.comparison.split_path` wants; none leads into ``_id``.
- Changes do not name ``01``. The server takes it for the index 1, which its queries do not; and
  6.0.5 crashes when one update names ``a.1`` and ``a.01.x``.
- Of several indexes that are far out, each is held against the length that the list had before.

Documents are plain: what `aiostorage._core.normalise.normalise` makes of them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from aiostorage._core.comparison import array_index, equal, split_path
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import Document

__all__ = ["apply_changes", "check_changes", "check_selection", "copy_tree", "select"]

_CONTAINERS: Final[frozenset[type]] = frozenset((dict, list))
_MAX_PADDING: Final = 1_500_000  # MongoDB's limit to what one ``$set`` may add to an array


def copy_tree(value: Any) -> Any:
    """Copy a tree of plain dicts and lists; what else is in it, nobody can change.

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
    if kind is list:
        if _CONTAINERS.isdisjoint(map(type, value)):
            return value[:]
        return [copy_tree(item) if item.__class__ in _CONTAINERS else item for item in value]
    return value


# ---------------------------------------------------------------------------------- selections

_Tree: TypeAlias = dict[str, "_Tree | None"]
"""The paths of a selection by their names; None where one ends."""


def check_selection(selection: Mapping[str, Any] | None) -> dict[str, bool] | None:
    """Check what a caller wants to see of documents.

    Parameters
    ----------
    selection : mapping or None
        MongoDB's projection: dotted paths to 1 or True, to have nothing else but ``_id``; or to 0
        or False, to have everything else. ``_id`` may be decided on its own.

    Returns
    -------
    dict or None
        Paths to bools, for `select` and `Find`; None, like an empty selection, for everything.

    Raises
    ------
    UnsupportedQuery
        It has other values, wants and does not want, or names a path and what is in it.
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
    _check_collisions(checked, "selection")
    return checked or None


def select(document: Mapping[str, Any], selection: Mapping[str, bool] | None) -> Document:
    """Copy the part of a document that a selection asks for, as MongoDB's ``find`` does.

    Parameters
    ----------
    document : mapping
        A plain document.
    selection : mapping or None
        What `check_selection` answered.

    Returns
    -------
    dict
        A copy with the fields in the order of `document`. Paths go through arrays of documents;
        a number in a path is a key there, never an index.
    """
    if not selection:
        return {key: copy_tree(value) for key, value in document.items()}
    including, tree = _selection_tree(tuple(selection.items()))
    return (_keep if including else _drop)(document, tree)


@lru_cache(maxsize=128)
def _selection_tree(selection: tuple[tuple[str, bool], ...]) -> tuple[bool, _Tree]:
    wanted = dict(selection)
    paths = [path for path in wanted if path != "_id"]
    including = bool(wanted[paths[0] if paths else "_id"])
    if bool(wanted.get("_id", True)) is including:
        paths.append("_id")
    tree: _Tree = {}
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


def _keep(document: Mapping[str, Any], tree: _Tree) -> Document:
    kept: Document = {}
    for key, value in document.items():
        if key in tree:
            inner = tree[key]
            if inner is None:
                kept[key] = copy_tree(value)
            elif value.__class__ is dict:
                kept[key] = _keep(value, inner)
            elif value.__class__ is list:
                kept[key] = _keep_in_array(value, inner)
    return kept


def _keep_in_array(array: list[Any], tree: _Tree) -> list[Any]:
    kept: list[Any] = []
    for item in array:
        if item.__class__ is dict:
            kept.append(_keep(item, tree))
        elif item.__class__ is list:
            kept.append(_keep_in_array(item, tree))
    return kept


def _drop(document: Mapping[str, Any], tree: _Tree) -> Document:
    rest: Document = {}
    for key, value in document.items():
        if key not in tree:
            rest[key] = copy_tree(value)
        elif (inner := tree[key]) is not None:
            rest[key] = _drop_in(value, inner)
    return rest


def _drop_in(value: Any, tree: _Tree) -> Any:
    if value.__class__ is dict:
        return _drop(value, tree)
    if value.__class__ is list:
        return [_drop_in(item, tree) for item in value]
    return value


def _check_collisions(paths: Mapping[str, Any], what: str) -> None:
    """Refuse a path together with one that leads further."""
    for path in paths:
        parent = path
        while (dot := parent.rfind(".")) >= 0:
            parent = parent[:dot]
            if parent in paths:
                raise UnsupportedQuery(
                    f"the {what} names both {parent!r} and {path!r} inside of it"
                )


# ------------------------------------------------------------------------------------- changes


def check_changes(changes: Mapping[str, Any]) -> None:
    """Refuse changes that no document can take.

    `apply_changes` does this itself; it is for engines that have the server apply them.

    Raises
    ------
    UnsupportedQuery
        A path has a shape that is not supported, leads into ``_id`` or into another path.
    """
    _split_changes(changes)


def apply_changes(document: Document, changes: Mapping[str, Any]) -> None:
    """Change a document in place as MongoDB's ``$set`` does; wholly, or not at all.

    Parameters
    ----------
    document : dict
        A plain document.
    changes : mapping
        Dotted paths to plain values, which are copied in. Sub-documents that are missing are made.
        A number in a path counts the elements of an array, which grows if need be (None fills the
        gap); elsewhere it is a key.

    Raises
    ------
    UnsupportedQuery
        As for `check_changes`; a path leads into a value that is neither dict nor list, or through
        a list by a name that is no index; the ``_id`` would change.
    """
    split = _split_changes(changes)
    for names, value in split:
        _check_way(document, names)
        if names[0] == "_id" and not _is_id(document, value):
            raise UnsupportedQuery("the update would change the _id, which nothing can")
    for names, value in split:
        if names[0] != "_id":
            _set(document, names, copy_tree(value))


def _split_changes(changes: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Split the paths of changes, and put them into the order in which they make new fields."""
    split = []
    for path, value in changes.items():
        names = split_path(path)
        if names[0] == "_id" and len(names) > 1:
            raise UnsupportedQuery(f"the update cannot divide _id, as {path!r} does")
        for name in names:
            if len(name) > 1 and name[0] == "0" and name.isdecimal():
                raise UnsupportedQuery(f"the update names {path!r}, where {name!r} may be an index")
        split.append((names, value))
    if len(split) > 1:
        _check_collisions(changes, "update")
        split.sort(key=lambda change: [_server_order(name) for name in change[0]])
    return split


def _server_order(name: str) -> tuple[str, int, str]:
    """Sort as the server does: by characters, but names that start like numbers by length first."""
    return ("1", len(name), name) if "1" <= name[0] <= "9" else (name, 0, "")


def _is_id(document: Document, value: Any) -> bool:
    if "_id" not in document:
        return False
    return value.__class__ is document["_id"].__class__ and equal(value, document["_id"])


def _check_way(document: Document, names: list[str]) -> None:
    """Refuse a path that cannot be set in this document.

    One look at the document as it is does for all paths together: what one of them makes is never
    in another's way, since larger indexes come later.
    """
    place: Any = document
    for used, name in enumerate(names):
        if place.__class__ is dict:
            if name not in place:
                return
            place = place[name]
            continue
        way = ".".join(names[:used])
        if place.__class__ is not list:
            raise UnsupportedQuery(
                f"{'.'.join(names)!r} cannot be set: at {way!r} stands {reprlib.repr(place)}"
            )
        index = array_index(name)
        if index is None or index - len(place) > _MAX_PADDING:
            raise UnsupportedQuery(
                f"{'.'.join(names)!r} cannot be set: {name!r} is no index for the list at {way!r}"
            )
        if index >= len(place):
            return
        place = place[index]


def _set(place: Any, names: list[str], value: Any) -> None:
    *parents, last = names
    for name in parents:
        if place.__class__ is dict:
            place = place.setdefault(name, {})
        else:
            index = int(name)
            if index >= len(place):
                _set_item(place, index, {})
            place = place[index]
    if place.__class__ is dict:
        place[last] = value
    else:
        _set_item(place, int(last), value)


def _set_item(array: list[Any], index: int, value: Any) -> None:
    if index < len(array):
        array[index] = value
    else:
        array.extend([None] * (index - len(array)))
        array.append(value)
