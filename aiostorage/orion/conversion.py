"""Conversions between the values and trials of Oríon and those of aiostorage.

Nothing here reads or writes a store, and nothing imports Oríon.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final

from aiostorage._core.layout import EXPERIMENTS, LAYOUT, TRIALS
from aiostorage.operations import Document
from aiostorage.orion.python_values import plain, with_notes, without_notes
from aiostorage.trial import Trial, TrialStatus

__all__ = [
    "as_time",
    "interrupt_reserved",
    "naive_utc",
    "orion_document",
    "orion_trial_fields",
    "plain",
    "plain_document",
    "trial_from_orion",
    "with_times",
]

_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values are the same on both sides; most values are of these."""

_TIMES: Final[dict[str, frozenset[str]]] = {
    collection.name: frozenset(field.name for field in collection.fields if field.kind == "time")
    for collection in LAYOUT.collections
}
"""The fields of each collection that contain times."""


def plain_document(collection: str, document: Any) -> Any:
    """Return a copy as `plain` does, with datetimes in place of ISO strings in fields of times.

    The ``metadata`` of an experiment get notes, so that `orion_document` can restore them.

    Parameters
    ----------
    collection
        The collection whose fields these are; a collection that is not in the layout has none.
    document
        A document, changes or a query: operators and lists may stand in place of a time.
    """
    made = with_times(collection, plain(document))
    if collection == EXPERIMENTS and isinstance(document, Mapping) and "metadata" in document:
        made["metadata"] = with_notes(document["metadata"], made["metadata"])
    return made


def orion_document(document: Any, *, keys: bool = True) -> Any:
    """Return a stored document, or a list of them, as Oríon expects it; see `without_notes`."""
    made = naive_utc(document)
    for one in made if isinstance(made, list) else (made,):
        without_notes(one, keys=keys)
    return made


def with_times(collection: str, document: Any) -> Any:
    """Return a document with datetimes as `plain_document` does, and all else as it is."""
    return _with_times(document, _TIMES.get(collection, frozenset()))


def as_time(value: Any) -> Any:
    """Return the datetime that an ISO string or a date means; other values as they are."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value  # the storage refuses it, with the name of the field
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time())  # as YAML reads a day
    return value


def _with_times(value: Any, names: frozenset[str]) -> Any:
    if not names or not isinstance(value, dict):
        return value
    made = {}
    for name, item in value.items():
        if name in names:
            made[name] = _times(item)
        elif name in ("$and", "$or") and isinstance(item, list):
            made[name] = [_with_times(part, names) for part in item]
        else:
            made[name] = item
    return made


def _times(value: Any) -> Any:
    """Return the times in the condition on a field, or its new value, as datetimes."""
    if isinstance(value, dict):
        return {operator: _times(item) for operator, item in value.items()}
    if isinstance(value, list):
        return [as_time(item) for item in value]
    return as_time(value)


def naive_utc(value: Any) -> Any:
    """Return a copy with naive UTC times in place of aware ones, as Oríon expects them."""
    if value.__class__ in _ATOMS:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive_utc(item) for key, item in value.items()}
    if isinstance(value, list):
        return [naive_utc(item) for item in value]
    return value


def interrupt_reserved(trial: Document) -> bool:
    """Make a stored trial interrupted if it is reserved; return whether it was.

    A copy of a store has no workers: its reserved trials would stay reserved until they are lost.
    """
    if trial["status"] != TrialStatus.RESERVED:
        return False
    trial["status"], trial["worker"] = TrialStatus.INTERRUPTED.value, None
    return True


def trial_from_orion(trial: Any) -> Trial:
    """Return one of Oríon's trials as a `Trial`.

    A new trial has the id of the values as they are stored, which is what Oríon computes for the
    trial when it has read it again. One that was read keeps its id.
    """
    document = plain_document(TRIALS, trial.to_dict())
    document["id"] = getattr(trial, "stored_id", None) and trial.id
    return Trial.from_dict(document)


def orion_trial_fields(trial: Trial) -> dict[str, Any]:
    """Return the arguments that make the same trial as one of Oríon's."""
    # Not by `to_dict`, which computes the id: Oríon fetches all trials again and again.
    return {
        "_id": trial.id_override,
        "experiment": trial.experiment,
        "status": trial.status,
        "worker": trial.worker,
        "submit_time": naive_utc(trial.submit_time),
        "start_time": naive_utc(trial.start_time),
        "end_time": naive_utc(trial.end_time),
        "heartbeat": naive_utc(trial.heartbeat),
        "parent": trial.parent,
        "exp_working_dir": trial.exp_working_dir,
        "params": [naive_utc(param.to_dict()) for param in trial.param_list],
        "results": [naive_utc(result.to_dict()) for result in trial.results],
    }
