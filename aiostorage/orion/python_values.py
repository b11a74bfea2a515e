"""Values of Oríon's that documents cannot hold: what is stored for them, and how they come back.

Oríon's own PickledDB keeps any object of Python's. What a user's configuration file holds comes
back to Oríon as it was, because Oríon compares the file with what was stored, and branches the
experiment if they differ. So `with_notes` adds notes to the ``metadata`` of an experiment, and
`without_notes` restores what they say. Nothing here imports Oríon.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

__all__ = ["NOTES", "plain", "with_notes", "without_notes"]

NOTES: Final = "python_values"
"""The key in the ``metadata`` of an experiment that has the notes."""

MAX_DEPTH: Final = 100
"""The levels that a document may nest."""

_ATOMS: Final = frozenset({str, float, bool, bytes, type(None)})
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of a value with what documents can hold in place of what they cannot.

    Tuples and sets become lists, keys that are not str become text, and so do numbers that are
    neither an int of 64 bits nor a float. The text is that of `str`, of which Oríon makes the ids
    of trials. What has no plain form stays as it is: the storage refuses it, and names its place.
    """
    # the fast path: Oríon fetches all trials again and again
    if value.__class__ in _ATOMS or depth > MAX_DEPTH:
        return value
    if value.__class__ is int and _INT_MIN <= value <= _INT_MAX:
        return value
    if isinstance(value, Mapping):
        return _plain_dict(value, depth + 1)
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item, depth + 1) for item in _ordered(value)]
    if getattr(getattr(value, "dtype", None), "kind", None) in ("c", "O"):
        return plain(value.tolist(), depth + 1)  # numpy's, with what documents cannot hold
    return _plain_leaf(value)


def _plain_leaf(value: Any) -> Any:
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, complex):
        return str(complex(value))  # of numpy's, too
    return _text(value) if isinstance(value, int | Decimal | Fraction | timedelta) else value


def _plain_dict(value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    made = {_key(key): plain(item, depth) for key, item in value.items()}
    if len(made) == len(value):
        return made
    # two keys have one text: the storage refuses those that are not str
    return {key: plain(item, depth) for key, item in value.items()}


def _key(key: Any) -> Any:
    if key.__class__ is str:
        return key
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    return _text(key) if key is None or isinstance(key, _KEYS) else key


def _text(value: object) -> Any:
    try:
        return str(value)
    except ValueError:  # an int of more digits than Python makes text of
        return value


def _ordered(value: Iterable[Any]) -> list[Any]:
    """Return the items of a set in an order that is the same in each process."""
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=lambda item: (item.__class__.__name__, repr(item)))


# ------------------------------------------------------------------------------------- notes


def with_notes(metadata: Any, made: Any) -> Any:
    """Return the plain form of an experiment's metadata, with notes on what it was before.

    Parameters
    ----------
    metadata
        The metadata as Oríon has it.
    made
        Its plain form, which is changed.
    """
    if not isinstance(metadata, Mapping) or not isinstance(made, dict):
        return made
    notes: list[dict[str, Any]] = []
    for key, item in metadata.items():
        if isinstance(key, str) and key != NOTES:
            _note(item, [key], notes)
    if notes:
        made[NOTES] = notes
    return made


def _note(value: Any, path: list[Any], notes: list[dict[str, Any]]) -> None:
    """Add notes on a value and on what is in it, the innermost first."""
    if value.__class__ in _ATOMS or len(path) > MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            _note(item, [*path, _key(key)], notes)
        keys = [[_key(key), kind] for key in value if (kind := _kind_of(key)) is not None]
        if keys:
            notes.append({"path": path, "type": "dict", "keys": keys})
        return
    if isinstance(value, list | tuple | set | frozenset):
        items = _ordered(value) if isinstance(value, set | frozenset) else value
        for number, item in enumerate(items):
            _note(item, [*path, number], notes)
    kind = _kind_of(value)
    if kind is not None and not _comes_back(value):
        notes.append({"path": path, "type": kind, **_more(value)})


def _comes_back(value: Any) -> bool:
    """Return whether Oríon gets a value back as it was without a note."""
    if value.__class__ is datetime:
        return value.tzinfo is None
    return value.__class__ is int and _INT_MIN <= value <= _INT_MAX


def _more(value: Any) -> dict[str, str]:
    """Return the parts of a value that the plain form lacks, for a note."""
    if value.__class__ is datetime:
        return {"text": value.isoformat()}
    if value.__class__ is timedelta:
        return {"text": f"{value.days} {value.seconds} {value.microseconds}"}
    return {}


def _kind_of(value: Any) -> str | None:
    return "NoneType" if value is None else _NAMES.get(value.__class__)


def without_notes(document: Any, *, keys: bool = True) -> Any:
    """Return an experiment for Oríon, its metadata as Oríon had it; the document is changed.

    Parameters
    ----------
    document
        The experiment.
    keys
        Whether keys that are not str come back, too. Oríon's PickledDB cannot store all of them.
    """
    metadata = document.get("metadata") if isinstance(document, dict) else None
    notes = metadata.pop(NOTES, None) if isinstance(metadata, dict) else None
    for note in notes if isinstance(notes, list) else ():
        try:
            if keys or note["type"] != "dict":
                _restore(metadata, note)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            continue  # the metadata were changed since: the plain value stays
    return document


def _restore(metadata: Any, note: Mapping[str, Any]) -> None:
    *steps, last = note["path"]
    container = metadata
    for step in steps:
        container = container[step]
    value, kind = container[last], note["type"]
    if kind == "dict":
        kinds = dict(note["keys"])
        container[last] = {
            _READERS[kinds[key]](key) if key in kinds else key: item for key, item in value.items()
        }
    else:
        container[last] = _READERS[kind](note.get("text", value))


def _timedelta(text: str) -> timedelta:
    days, seconds, microseconds = map(int, text.split())
    return timedelta(days, seconds, microseconds)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "NoneType": lambda _: None,
    "bool": lambda text: text == "True",
    "int": int,
    "float": float,
    "complex": complex,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": datetime.fromisoformat,
    "timedelta": _timedelta,
    "set": set,
    "frozenset": frozenset,
}
_NAMES: Final[dict[type, str]] = {
    kind: kind.__name__
    for kind in (
        *(bool, int, float, complex, Decimal, Fraction, date, time, datetime, timedelta),
        *(set, frozenset),
    )
}
_KEYS: Final = (
    *(bool, int, float, complex, Decimal, Fraction, date, time, timedelta, tuple),
    *(PurePath, UUID),
)
"""Types of keys that become text."""
