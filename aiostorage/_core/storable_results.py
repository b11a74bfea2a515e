"""The results that can be stored: a statistic that cannot be does not cost the objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from aiostorage._core.event_log import EventLog
from aiostorage._core.normalise import error_at, normalise
from aiostorage.errors import EncodingError
from aiostorage.values import Result

__all__ = ["without_largest", "without_unstorable"]

events: Final = EventLog("records")

Stored: TypeAlias = list[dict[str, Any]]
"""The stored form of results, in their order."""


def without_unstorable(uid: str, results: Sequence[Result]) -> tuple[list[Result], Stored]:
    """Return the results that can be stored, and their stored form.

    A statistic that cannot be stored is left out, with a warning.

    Parameters
    ----------
    uid
        The id of the trial, for the warning.
    results
        The results.

    Raises
    ------
    EncodingError
        A result of another type cannot be stored. The error names its place.
    """
    kept: list[Result] = []
    stored: Stored = []
    left_out: list[tuple[Result, EncodingError]] = []
    for number, result in enumerate(results):
        try:
            stored.append(normalise(result.to_dict(), f"results[{number}]"))
        except EncodingError as error:
            if result.type != "statistic":
                raise
            left_out.append((result, error))
        else:
            kept.append(result)
    for result, why in left_out:
        _warn(result.name, uid, str(why))
    return kept, stored


def without_largest(
    uid: str, results: Sequence[Result], stored: Stored, error: EncodingError
) -> tuple[list[Result], Stored]:
    """Return the results without the largest statistic, which is left out with a warning.

    Parameters
    ----------
    uid
        The id of the trial, for the warning.
    results, stored
        The results, and their stored form.
    error
        Why the engine has not stored them all.

    Raises
    ------
    EncodingError
        There are no statistics to leave out.
    """
    from aiostorage._core.document_json import dump_document  # noqa: PLC0415  with orjson

    sizes = {
        number: len(dump_document(item))
        for number, item in enumerate(stored)
        if item["type"] == "statistic"
    }
    if not sizes:
        if error.path is not None:
            raise error
        raise error_at("results", str(error)) from error
    largest = max(sizes, key=sizes.__getitem__)
    _warn(results[largest].name, uid, str(error))
    kept = [result for number, result in enumerate(results) if number != largest]
    return kept, [item for number, item in enumerate(stored) if number != largest]


def _warn(name: str, uid: str, why: str) -> None:
    events.warning(
        "statistic_left_out",
        "the statistic %(statistic)r of trial %(trial)s is left out: %(reason)s",
        statistic=name,
        trial=uid,
        reason=why,
    )
