"""Notes that the int ``_id`` of an experiment is taken, so that it is never given to another one.

Studies of Optuna have such ids, and a load keeps those that it finds. Whoever inserts the note, has
the id; it stays when the experiment is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage.operations import Document

__all__ = ["id_taken_by", "note_of_taken_id"]

_TAKEN: Final = "optuna-study-"
"""Begins the ``_id`` of a note, as stores have it."""


def note_of_taken_id(uid: int) -> Document:
    """Return the note that an id is taken, a document of the settings."""
    return {"_id": f"{_TAKEN}{uid}"}


def id_taken_by(setting: Mapping[str, Any]) -> int | None:
    """Return the id that is taken by a document of the settings; None if it is no such note."""
    name = str(setting["_id"])
    return int(name.removeprefix(_TAKEN)) if name.startswith(_TAKEN) else None
