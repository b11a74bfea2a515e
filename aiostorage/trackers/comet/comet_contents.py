"""What a run at Comet shows of a trial, without I/O."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from aiostorage._core.holders import named_holder
from aiostorage.trackers.protocol import TrackedTrial
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["OTHERS_PREFIX", "RunContents", "Scalar", "has_begun", "new_problems", "run_contents"]

Scalar: TypeAlias = str | int | float | bool | None

OTHERS_PREFIX: Final = "aiostorage."
"""What the names of a run's "others" begin with; those of a user's script do not."""

_MAX_NAME: Final = 100
_MAX_VALUE: Final = 1000
"""Characters, as in ``comet_ml``, which cuts what is longer."""

_STATES: Final = {
    TrialStatus.RESERVED: "running",
    TrialStatus.BROKEN: "crashed",
    TrialStatus.INTERRUPTED: "crashed",
}
"""Comet has three states of a run; the others of a trial are ``finished``."""


@dataclass(frozen=True, slots=True)
class RunContents:
    """All that a run has of a trial.

    Attributes
    ----------
    state
        Comet's: ``running``, ``finished`` or ``crashed``.
    params, metrics, others
        By name. Floats are finite; others are text, as Comet has it: ``NaN``, ``Infinity``.
    tags
        The experiment, and the trial's status.
    start, end
        Milliseconds since 1970.
    timestamp
        The time of the metrics: that of the last event in the trial's life.
    problems
        What was left out, shortened or renamed, for people to read.
    """

    state: str
    params: Mapping[str, Scalar]
    metrics: Mapping[str, int | float | str]
    others: Mapping[str, str]
    tags: tuple[str, ...]
    start: int | None
    end: int | None
    timestamp: int
    problems: tuple[str, ...]


def run_contents(tracked: TrackedTrial) -> RunContents:
    """Return the content of the run of a trial; no value in the trial raises an error."""
    trial, experiment = tracked.trial, tracked.experiment.experiment
    problems: list[str] = []
    title = f"{experiment.name} v{experiment.version}"
    params = {
        _name(param.name, problems): _scalar(param.name, param.value, problems)
        for param in trial.param_list
    }
    metrics, texts = _outcomes(trial, problems)
    facts = {
        "status": trial.status,
        "trial": trial.id,
        "worker": named_holder(trial.worker) if trial.worker else None,
        "parent": trial.parent,
        "attempt": tracked.attempt,
        "experiment": experiment.name,
        "version": experiment.version,
        "experiment_id": experiment.id,
    }
    others = {"Name": f"{title} {trial.id[:8]}"}
    others |= {
        OTHERS_PREFIX + name: _text(name, str(value), problems)
        for name, value in (*facts.items(), *texts.items())
        if value is not None
    }
    start, end = _milliseconds(trial.start_time), _milliseconds(trial.end_time)
    last = trial.end_time or trial.heartbeat or trial.start_time or trial.submit_time
    return RunContents(
        state=_STATES.get(TrialStatus(trial.status), "finished"),
        params=params,
        metrics=metrics,
        others=others,
        tags=(_name(title, problems), trial.status),
        start=start,
        end=end,
        timestamp=_milliseconds(last) or 0,
        problems=tuple(problems),
    )


def has_begun(tracked: TrackedTrial) -> bool:
    """Return whether a trial has a run: from its first reservation on."""
    begun = tracked.key is not None or tracked.uncertain
    return begun or tracked.trial.status != TrialStatus.NEW


def _is_number(value: object) -> bool:
    """Return whether a value can be a metric."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outcomes(
    trial: Trial, problems: list[str]
) -> tuple[dict[str, int | float | str], dict[str, str]]:
    """Return the results that are numbers, and the others as text."""
    metrics: dict[str, int | float | str] = {}
    texts: dict[str, str] = {}
    # the objective goes first, in case another result has its name
    for result in sorted(trial.results, key=lambda result: result.type != "objective"):
        name = _name(result.name or result.type or "result", problems)
        if name in metrics or name in texts:
            problems.append(f"two results are called {name!r}; the second is left out")
        elif _is_number(result.value):
            metrics[name] = _finite(result.value)
        else:
            problems.append(f"the result {name!r} is not a number, so it is sent as text")
            texts[f"result.{name}"] = _as_text(result.value)
    return metrics, texts


def _scalar(name: str, value: Any, problems: list[str]) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _finite(value)
    return _text(name, _as_text(value), problems)


def _finite(value: float) -> int | float | str:
    """Return a number, or the text that Comet's own client sends for what JSON does not have."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(name: str, text: str, problems: list[str]) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= _MAX_VALUE:
        return text
    problems.append(
        f"the value of {name[:_MAX_NAME]!r} has {len(text)} characters; the mirror has the first "
        f"{_MAX_VALUE - 1}"
    )
    return f"{text[: _MAX_VALUE - 1]}…"


def _name(name: str, problems: list[str]) -> str:
    """Return a name that Comet takes; two different ones stay different."""
    name = name.encode("utf-8", "backslashreplace").decode()
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    short = f"{name[: _MAX_NAME - 9]}~{digest}"
    problems.append(f"the name {name[:40]!r}… has {len(name)} characters; it became {short!r}")
    return short


def _milliseconds(time: datetime | None) -> int | None:
    if time is None:
        return None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def new_problems(problems: Iterable[str], known: set[str]) -> list[str]:
    """Return the problems that are not known yet, and note them as known."""
    fresh = [problem for problem in problems if problem not in known]
    known.update(fresh)
    return fresh
