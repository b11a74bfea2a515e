"""What an import makes of one run of a tracker: a trial."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from aiostorage._core.event_log import EventLog
from aiostorage._core.medium_results import objective_among, results_from
from aiostorage._core.normalise import normalise
from aiostorage.errors import InvalidResult
from aiostorage.trackers.protocol import TrackerRun
from aiostorage.trial import Param, Trial
from aiostorage.values import TrialStatus

__all__ = ["ImportedRun", "trial_of", "value_of"]

_INT: Final = re.compile(r"0|-?[1-9][0-9]*")
_FLOAT: Final = re.compile(
    r"-?(0|[1-9][0-9]*)(\.[0-9]+(e[+-]?[0-9]+)?|e[+-]?[0-9]+)|nan|-?inf", re.IGNORECASE
)
_WORDS: Final = {"True": True, "False": False, "None": None}
_MAX_INT: Final = 2**63

events: Final = EventLog("tracker")


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run, and the trial that is made of it.

    Attributes
    ----------
    key
        The run's key in the tracker.
    trial
        The trial.
    without_objective
        Whether the run is finished but has no objective, so that the trial is broken.
    unfinished
        Whether the run is not over, so that the trial is interrupted.
    """

    key: str
    trial: Trial
    without_objective: bool = False
    unfinished: bool = False


def trial_of(run: TrackerRun, experiment: Any, objective: str | None) -> ImportedRun:
    """Return the trial of a run.

    Raises
    ------
    InvalidResult
        The run has several metrics, and the caller does not say which is the objective.
    """
    status = run.status
    unfinished = status in (TrialStatus.NEW, TrialStatus.RESERVED)
    if unfinished:
        status = TrialStatus.INTERRUPTED
    results = []
    without = False
    if status == TrialStatus.COMPLETED:
        name = objective_among(run.metrics, objective)
        if name is None and run.metrics and objective is None:
            raise InvalidResult(
                f"which metric of the run {run.key} is the objective? It has "
                f"{', '.join(map(repr, sorted(run.metrics)))}; name one"
            )
        if name is not None:
            results = results_from(run.metrics, name, f"the run {run.key}")
        without = not results
        if without:
            status = TrialStatus.BROKEN
            events.warning(
                "run_without_objective",
                "the finished run %(run)s has no objective: its trial is broken",
                run=run.key,
            )
    trial = Trial(
        experiment=experiment,
        params=_params(run),
        status=status,
        results=results,
        submit_time=run.start_time,
        start_time=run.start_time,
        end_time=run.end_time,
        _id=run.key,
    )
    return ImportedRun(run.key, trial, without, unfinished)


def value_of(text: Any) -> Any:
    """Return the value that a tracker has as text, as far as the text leaves no doubt.

    ``7`` is an int, ``7.0``, ``1e-05``, ``nan`` and ``inf`` are floats, ``True``, ``False`` and
    ``None`` are what Python prints so, lists and dicts are read if they are JSON that documents can
    hold. Everything else stays text, such as ``007``, ``+7``, ``1_000`` and the empty text.
    """
    if not isinstance(text, str):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        # digits beyond those of an int of 64 bits are a name rather than a number
        return int(text) if len(text) < 20 and -_MAX_INT <= int(text) < _MAX_INT else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return text if math.isinf(number) and text[-1:].isdigit() else number
    if text[:1] in ("[", "{"):
        try:
            return normalise(json.loads(text))
        except (ValueError, RecursionError):  # no JSON, or what documents cannot hold
            return text
    return text


def _params(run: TrackerRun) -> list[Param]:
    """Return the params by name: trackers keep no order, and the trial's id depends on it."""
    names = dict(zip(run.params, _without_conflicts(run), strict=True))
    return [_param(names[name], value_of(run.params[name])) for name in sorted(run.params)]


def _param(name: str, value: Any) -> Param:
    kind = "categorical"
    if isinstance(value, float):
        kind = "real"
    elif isinstance(value, int) and not isinstance(value, bool):
        kind = "integer"
    return Param(name, kind, value)


def _without_conflicts(run: TrackerRun) -> Iterable[str]:
    """Return the names, with slashes for dots if one leads into another, as ``a`` into ``a.b``."""
    if not _conflict(run.params):
        return run.params
    events.warning(
        "params_renamed",
        "the run %(run)s has a param whose name leads into another's: the dots in its names are "
        "slashes",
        run=run.key,
    )
    slashes = "/"
    while len({name.replace(".", slashes) for name in run.params}) < len(run.params):
        slashes += "/"
    return [name.replace(".", slashes) for name in run.params]


def _conflict(names: Mapping[str, Any]) -> bool:
    ordered = sorted(name.split(".") for name in names)
    return any(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ordered))
