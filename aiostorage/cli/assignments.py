"""FIELD=VALUE on the command line, and the fields that a user may change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import click

from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["parsed_assignments", "refused_in_experiment", "refused_in_trial"]

TIMES: Final = frozenset(["submit_time", "start_time", "end_time"])

TRIAL_FIELDS: Final = frozenset(["status", "objective", "exp_working_dir", "parent", *TIMES])
"""The fields of a trial that can be changed."""


def parsed_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the values by field.

    Raises
    ------
    click.UsageError
        One of them is malformed, or a field is set twice.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not all(name.split(".")):
            raise click.UsageError(f"{assignment!r} is not of the form FIELD=VALUE")
        if name in changes:
            raise click.UsageError(f"{name} is set twice")
        changes[name] = _time(name, text) if name in TIMES else _value(name, text)
    return changes


def _value(name: str, text: str) -> Any:
    """Return JSON as a value and anything else as text; refuse what is clearly malformed JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        if text[:1] in ("{", "[", '"'):
            raise click.UsageError(f"{name}: {text!r} is not JSON: {error}") from None
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def _time(name: str, text: str) -> datetime | None:
    if text == "null":
        return None
    try:
        time = datetime.fromisoformat(text.strip('"'))
    except ValueError:
        raise click.UsageError(
            f"{name} is a time such as 2030-01-31T12:00:00+00:00, not {text!r}"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def refused_in_trial(trial: Trial, changes: Mapping[str, Any]) -> str | None:
    """Return the reason why changes of a trial cannot be made; None if they can."""
    for name in changes:
        if name not in TRIAL_FIELDS:
            why = " (its params make its id)" if name.partition(".")[0] == "params" else ""
            return (
                f"{name} of a trial cannot be changed{why}: it is one of "
                f"{', '.join(sorted(TRIAL_FIELDS))}"
            )
    status = changes.get("status", trial.status)
    statuses = [one.value for one in TrialStatus]
    if status not in statuses:
        return f"there is no status {status!r}; it is one of {', '.join(statuses)}"
    if "status" in changes and status == TrialStatus.RESERVED:
        return "no person can reserve a trial: set it to interrupted, and the next worker gets it"
    objective = changes.get("objective", None if trial.objective is None else 0)
    if "objective" in changes and not _is_number(objective):
        return f"objective is a number, not {objective!r}"
    if status == TrialStatus.COMPLETED and objective is None:
        return "a completed trial has an objective: add objective=NUMBER"
    return None


def refused_in_experiment(changes: Mapping[str, Any]) -> str | None:
    """Return the reason why changes of an experiment cannot be made; None if they can."""
    for name, value in changes.items():
        if name == "_id":
            return "_id cannot be changed: trials refer to it"
        wants, accepts = EXPERIMENT_FIELDS.get(name, ("", _anything))
        if not accepts(value):
            return f"{name} is {wants}, not {value!r}"
    return None


def _anything(_: Any) -> bool:
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


EXPERIMENT_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    **dict.fromkeys(
        ("max_trials", "max_broken"),
        ("a whole number, or null", lambda value: value is None or _is_count(value)),
    ),
    "name": ("a text", lambda value: isinstance(value, str) and bool(value)),
    "version": ("a whole number from 1 on", lambda value: _is_count(value, 1)),
    "working_dir": ("a text, or null", lambda value: value is None or isinstance(value, str)),
    **dict.fromkeys(
        ("metadata", "refers", "space"), ("an object", lambda value: isinstance(value, dict))
    ),
}
"""Fields of a config with a known kind: its name, and a function that checks a value."""
