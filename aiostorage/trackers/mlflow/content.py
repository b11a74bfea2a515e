"""What a run of MLflow has of a trial: params, metrics, tags, times and a status."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiostorage._core.event_log import EventLog
from aiostorage._core.holders import named_holder
from aiostorage.trackers.mlflow.names import MAX_PIECES, MAX_TAG, NAME_TAG, PREFIX, key_of, pieces
from aiostorage.trackers.protocol import TrackedTrial
from aiostorage.trial import Result, Trial
from aiostorage.values import TrialStatus

__all__ = [
    "ATTEMPT",
    "EXPERIMENT",
    "PARAM_TAG",
    "START",
    "STATUS",
    "TRIAL",
    "Content",
    "Warned",
    "content_of",
    "milliseconds",
    "same_number",
]

EXPERIMENT: Final = f"{PREFIX}experiment"
TRIAL: Final = f"{PREFIX}trial"
STATUS: Final = f"{PREFIX}status"
ATTEMPT: Final = f"{PREFIX}attempt"
WORKER: Final = f"{PREFIX}worker"
PARENT: Final = f"{PREFIX}parent"
START: Final = f"{PREFIX}start_time"
PARAM_TAG: Final = f"{PREFIX}param."
"""Before a name: the tag with the whole of a value that is too long for a param."""
RESULT_TAG: Final = f"{PREFIX}result."
"""Prefix of the tag with a result that is not a number, as JSON."""

MAX_PARAM: Final = 6000
"""Characters of a param that MLflow keeps; its server silently cuts off the rest."""

MAX_NUMBERS: Final = 100
"""Numbers of one result that become metrics, at most."""

RUN_STATUS: Final = {
    TrialStatus.NEW: "SCHEDULED",
    TrialStatus.RESERVED: "RUNNING",
    TrialStatus.SUSPENDED: "KILLED",
    TrialStatus.COMPLETED: "FINISHED",
    TrialStatus.INTERRUPTED: "KILLED",
    TrialStatus.BROKEN: "FAILED",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
events: Final = EventLog("tracker")


class Warned:
    """Warnings, each of which is given once in this process for one tracker."""

    def __init__(self) -> None:
        self._given: set[tuple[str, str]] = set()

    def warn(self, kind: str, name: str, text: str) -> None:
        """Log a warning about a name, unless there was one of this kind."""
        if (kind, name) not in self._given and len(self._given) < 10_000:
            self._given.add((kind, name))
            events.warning("content_changed", "MLflow: %(reason)s", reason=text, name=name)


@dataclass(slots=True)
class Content:
    """What the run of a trial has; times in ms since 1970."""

    name: str
    status: str
    start_time: int
    end_time: int | None
    user: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def content_of(tracked: TrackedTrial, warned: Warned) -> Content:
    """Return the content of a trial for MLflow."""
    trial, experiment = tracked.trial, tracked.experiment.experiment
    began = trial.start_time or trial.submit_time or trial.end_time
    over = trial.status not in (TrialStatus.NEW, TrialStatus.RESERVED)
    ended = (trial.end_time or trial.heartbeat) if over else None
    metadata = experiment.config.get("metadata")
    user = metadata.get("user") if isinstance(metadata, Mapping) else None
    content = Content(
        name=trial.id[:8],
        status=RUN_STATUS[TrialStatus(trial.status)],
        start_time=int(time.time() * 1000) if began is None else milliseconds(began),
        end_time=None if ended is None else milliseconds(ended),
        user=str(user or "unknown"),
    )
    content.tags[TRIAL] = trial.id
    content.tags[EXPERIMENT] = str(experiment.id)
    content.tags[STATUS] = trial.status
    content.tags[ATTEMPT] = str(tracked.attempt)
    if trial.worker:
        content.tags[WORKER] = named_holder(trial.worker)
    if trial.parent is not None:
        content.tags[PARENT] = str(trial.parent)
    if trial.start_time is not None:
        content.tags[START] = _utc(trial.start_time).isoformat()
    _add_params(content, trial, warned)
    _add_results(content, trial, warned)
    return content


def milliseconds(moment: datetime) -> int:
    """Return ms since 1970, the rest cut off; a naive time is in UTC."""
    return max((_utc(moment) - _EPOCH) // timedelta(milliseconds=1), 0)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _key(content: Content, name: str, warned: Warned) -> str:
    """Return the name that MLflow takes, with the original in a tag if it is another."""
    key = key_of(name)
    if key != name:
        content.tags.update(pieces(f"{NAME_TAG}{key}", name))
        warned.warn("name", name, f"it refuses the name {name[:100]!r}; it is {key[:100]!r} there")
    return key


def _param_key(content: Content, name: str, taken: AbstractSet[str], warned: Warned) -> str:
    """Return the name of a param, without the slash that Oríon's begin with.

    Where another name is the same without it, the slash counts as any other refused character.
    """
    plain = name.removeprefix("/")
    if plain == name or plain in taken or key_of(plain) != plain:
        return _key(content, name, warned)
    content.tags.update(pieces(f"{NAME_TAG}{plain}", name))
    return plain


# ------------------------------------------------------------------------------------ params


def _add_params(content: Content, trial: Trial, warned: Warned) -> None:
    names = {str(value.name) for value in (*trial.param_list, *trial.results)}
    for param in trial.param_list:
        key = _param_key(content, str(param.name), names, warned)
        text = _text(param.value)
        if len(text) > MAX_PARAM:
            tag = f"{PARAM_TAG}{key_of(key[:230])}"
            content.tags.update(pieces(tag, text))
            _warn_of_length(warned, "param", str(param.name), text, tag)
            text = f"{text[: MAX_PARAM - 3]}..."
        content.params[key] = text


def _warn_of_length(warned: Warned, what: str, name: str, text: str, tag: str) -> None:
    lost = len(text) - MAX_TAG * MAX_PIECES
    rest = f"; the last {lost:,} characters are left out there, too" if lost > 0 else ""
    warned.warn(
        what,
        name,
        f"the {what} {name[:100]!r} has {len(text):,} characters, more than a {what} may have; "
        f"the whole value is in tags that begin with {tag[:100]}{rest}",
    )


def _text(value: Any) -> str:
    """Return a value as text: what Python prints for a number, JSON for lists and dicts."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=_text)
    return str(value)


# ----------------------------------------------------------------------------------- results


def _add_results(content: Content, trial: Trial, warned: Warned) -> None:
    for result in trial.results:
        if result.type == "lie":
            continue  # it was not measured
        name = str(result.name) if result.name else str(result.type or "result")
        if name in content.metrics:
            name = f"{name}-{result.type}"
        numbers = dict(_numbers(name, result.value))
        if not numbers:
            _add_text(content, name, result, warned)
        for part, number in numbers.items():
            content.metrics[_key(content, part, warned)] = number


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a result: one for a number, ``NAME.0`` and so on for a list."""
    if isinstance(value, (int, float)):
        try:
            yield name, float(value)
        except OverflowError:
            return
    elif isinstance(value, (list, tuple)) and _is_short_vector(value):
        for index, item in enumerate(value):
            yield from _numbers(f"{name}.{index}", item)


def _is_short_vector(value: Sequence[Any]) -> bool:
    numbers = (int, float)
    return 0 < len(value) <= MAX_NUMBERS and all(isinstance(item, numbers) for item in value)


def _add_text(content: Content, name: str, result: Result, warned: Warned) -> None:
    key = _key(content, name, warned)
    tag = f"{RESULT_TAG}{key[:220]}"
    text = json.dumps(result.value, ensure_ascii=False, default=_text)
    content.tags.update(pieces(tag, text))
    what = "too large a number" if isinstance(result.value, int) else "no number"
    warned.warn(
        "result", name, f"the result {name[:100]!r} is {what}; it is in the tag {tag[:100]}"
    )
    if len(text) > MAX_TAG:
        _warn_of_length(warned, "result", name, text, tag)


def same_number(one: float, other: float) -> bool:
    """Return whether two values of a metric are the same to MLflow."""
    return one == other or (math.isnan(one) and math.isnan(other))
