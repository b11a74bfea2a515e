"""Changes of documents: what ``$set`` does.

They follow the MongoDB 6.0 server: its manual on ``$set`` and
``tests/mongo/test_query_differential.py``, which asks the server itself.

There are deliberate deviations:

- Paths have the shape that `aiostorage._core.paths.split_path` requires; none leads into ``_id``.
- Changes do not name ``01``. The server reads it as the index 1, which its queries do not; and
  6.0.5 crashes when one update names ``a.1`` and ``a.01.x``.
- Of several indexes that are far out, each is compared with the length that the list had before.

Documents are plain, as `aiostorage._core.normalise.normalise` returns them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from aiostorage._core.comparison import equal
from aiostorage._core.paths import array_index, check_collisions, split_path
from aiostorage._core.projection import copy_tree
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import Document

__all__ = ["apply_changes", "changed_copy", "check_changes", "compile_changes"]

_CONTAINERS: Final[frozenset[type]] = frozenset((dict, list))
_MAX_PADDING: Final = 1_500_000  # elements that one ``$set`` may add to an array in MongoDB
_NO_INDEX: Final = -1

_Step: TypeAlias = tuple[str, int]
"""A name in a path, and the index that it is in a list; `_NO_INDEX` if it is not an index."""


def check_changes(changes: Mapping[str, Any]) -> None:
    """Refuse changes that no document can take.

    `compile_changes` checks them too; this is for engines whose server applies the changes.

    Raises
    ------
    UnsupportedQuery
        A path has a shape that is not supported, leads into ``_id`` or into another path.
    """
    _split_changes(changes)


def apply_changes(document: Document, changes: Mapping[str, Any]) -> None:
    """Change a document in place as MongoDB's ``$set`` does; wholly, or not at all.

    To make the same changes in several documents, call `compile_changes` once.

    Parameters
    ----------
    document : dict
        A plain document.
    changes : mapping
        As for `compile_changes`.

    Raises
    ------
    UnsupportedQuery
        `compile_changes` refuses the changes, or the document cannot take them.
    """
    compile_changes(changes)(document)


def changed_copy(document: Document, changes: Mapping[str, Any]) -> Document:
    """Return a copy that is changed as by `apply_changes`.

    It may share with the document what is not changed: neither may be changed in place afterwards.

    Raises
    ------
    UnsupportedQuery
        As for `apply_changes`.
    """
    names = _names_of_fields(tuple(changes))
    if names is None or document.__class__ is not dict:
        copied: Document = copy_tree(document)
        apply_changes(copied, changes)
        return copied
    copied = document.copy()
    for name in names:  # puts new fields in order
        value = changes[name]
        copied[name] = copy_tree(value) if value.__class__ in _CONTAINERS else value
    return copied


def compile_changes(changes: Mapping[str, Any]) -> Callable[[Document], None]:
    """Make a function that changes documents in place as MongoDB's ``$set`` does.

    Paths are split and checked here, once, and not for each document.

    Parameters
    ----------
    changes : mapping
        Dotted paths to plain values; the values must not be modified while the function is in use.

    Returns
    -------
    callable
        Takes a plain document and changes it, wholly or not at all. Values are copied in.
        Sub-documents that are missing are made. A number in a path is the index of a list, which
        grows if need be (None fills the gap); in a dict it is a key. Raises `UnsupportedQuery` if a
        path leads into a value that is neither dict nor list, or through a list by a name that is
        no index; or if the ``_id`` would change.

    Raises
    ------
    UnsupportedQuery
        As for `check_changes`.
    """
    fields = _names_of_fields(tuple(changes))
    if fields is not None:
        return _compile_fields({name: changes[name] for name in fields})
    return _compile_paths([(_steps(names), value) for names, value in _split_changes(changes)])


def _compile_fields(fields: Document) -> Callable[[Document], None]:
    """Compile changes of whole top-level fields, which every document can take."""
    nested = [(name, value) for name, value in fields.items() if value.__class__ in _CONTAINERS]
    if not nested:
        return lambda document: document.update(fields)

    def change(document: Document) -> None:
        document.update(fields)  # puts new fields in order
        for name, value in nested:
            document[name] = copy_tree(value)

    return change


def _compile_paths(split: list[tuple[list[_Step], Any]]) -> Callable[[Document], None]:
    writes = [(steps, value) for steps, value in split if steps[0][0] != "_id"]

    def change(document: Document) -> None:
        for steps, value in split:
            _check_settable(document, steps)
            if steps[0][0] == "_id" and not _is_id(document, value):
                raise UnsupportedQuery("the update would change the _id, which nothing can")
        for steps, value in writes:
            _set(document, steps, copy_tree(value) if value.__class__ in _CONTAINERS else value)

    return change


def _steps(names: list[str]) -> list[_Step]:
    indexes = map(array_index, names)
    return [
        (name, _NO_INDEX if index is None else index)
        for name, index in zip(names, indexes, strict=True)
    ]


def _split_changes(changes: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Split the paths of changes, and put them into the order in which they make new fields."""
    return [(names, changes[path]) for path, names in _split_paths(tuple(changes))]


@lru_cache(maxsize=256)  # the same few writes come again and again
def _names_of_fields(paths: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the paths in their order if all are whole fields, which every document can take."""
    split = _split_paths(paths)
    if all(len(names) == 1 and path != "_id" for path, names in split):
        return tuple(path for path, _ in split)
    return None


@lru_cache(maxsize=256)  # as above
def _split_paths(paths: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    split = []
    for path in paths:
        names = split_path(path)
        if names[0] == "_id" and len(names) > 1:
            raise UnsupportedQuery(f"the update cannot divide _id, as {path!r} does")
        for name in names:
            if len(name) > 1 and name[0] == "0" and name.isdecimal():
                raise UnsupportedQuery(f"the update names {path!r}, where {name!r} may be an index")
        split.append((path, names))
    if len(split) > 1:
        check_collisions(dict.fromkeys(paths), "update")
        split.sort(key=lambda change: [_server_order(name) for name in change[1]])
    return split


def _server_order(name: str) -> tuple[str, int, str]:
    """Sort as the server does: by characters, but names that start like numbers by length first."""
    return ("1", len(name), name) if "1" <= name[0] <= "9" else (name, 0, "")


def _is_id(document: Document, value: Any) -> bool:
    if "_id" not in document:
        return False
    return value.__class__ is document["_id"].__class__ and equal(value, document["_id"])


def _check_settable(document: Document, steps: list[_Step]) -> None:
    """Refuse a path that cannot be set in this document.

    All paths are checked before the first is set. No path is blocked by what another one creates,
    since larger indexes come later.
    """
    place: Any = document
    for used, (name, index) in enumerate(steps):
        if place.__class__ is dict:
            if name not in place:
                return
            place = place[name]
            continue
        if place.__class__ is not list:
            raise UnsupportedQuery(
                f"{_join(steps)!r} cannot be set: at {_join(steps[:used])!r} stands "
                f"{reprlib.repr(place)}"
            )
        if index == _NO_INDEX or index - len(place) > _MAX_PADDING:
            raise UnsupportedQuery(
                f"{_join(steps)!r} cannot be set: {name!r} is not an index for the list at "
                f"{_join(steps[:used])!r}"
            )
        if index >= len(place):
            return
        place = place[index]


def _join(steps: list[_Step]) -> str:
    return ".".join(name for name, _ in steps)


def _set(place: Any, steps: list[_Step], value: Any) -> None:
    """Set a path that `_check_settable` allowed: where a list is, the step has an index."""
    *parents, last = steps
    for name, index in parents:
        if place.__class__ is dict:
            place = place.setdefault(name, {})
        else:
            if index >= len(place):
                _set_item(place, index, {})
            place = place[index]
    name, index = last
    if place.__class__ is dict:
        place[name] = value
    else:
        _set_item(place, index, value)


def _set_item(array: list[Any], index: int, value: Any) -> None:
    if index < len(array):
        array[index] = value
    else:
        array.extend([None] * (index - len(array)))
        array.append(value)
