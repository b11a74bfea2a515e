"""The runs of an experiment in MLflow, whoever made them, for an import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from aiostorage.errors import UnknownExperiment
from aiostorage.trackers.mlflow.content import PARAM_TAG, START
from aiostorage.trackers.mlflow.mlflow_api import (
    Api,
    ExperimentState,
    MlflowRefused,
    MlflowRun,
    time_limit,
)
from aiostorage.trackers.mlflow.names import NAME_TAG, PREFIX, key_of, without_pieces
from aiostorage.trackers.protocol import TrackerRun
from aiostorage.values import TrialStatus

__all__ = ["find_experiment", "last_metrics", "read_runs"]

PAGE_SIZE: Final = 200
"""Runs in one request."""

PAGE_TIMEOUT: Final = 30.0
"""How long one page may take."""

STATUS: Final = {
    "RUNNING": TrialStatus.RESERVED.value,
    "SCHEDULED": TrialStatus.NEW.value,
    "FINISHED": TrialStatus.COMPLETED.value,
    "FAILED": TrialStatus.BROKEN.value,
    "KILLED": TrialStatus.INTERRUPTED.value,
}

_ORDER: Final = ["attributes.start_time ASC", "attributes.run_id ASC"]


def read_runs(api: Api, experiment: str, after: str | None) -> Iterator[TrackerRun]:
    """Yield the runs of an experiment, page by page, by their start and then by their id."""
    with time_limit(PAGE_TIMEOUT):
        key = find_experiment(api, experiment).id
        last = (0, "") if after is None else _position(api, after)
    token = None
    while True:
        where = f"attributes.start_time >= {last[0]}"
        with time_limit(PAGE_TIMEOUT):
            page = api.search(key, where, _ORDER, PAGE_SIZE, token)
        fresh = [run for run in page.runs if _place(run) > last]
        for run in fresh:
            yield _imported(run)
        if fresh:
            last = _place(fresh[-1])
        # by the start, not by the token: runs that vanish meanwhile would shift the pages
        token = None if fresh else page.token
        if not page.token:
            return


def find_experiment(api: Api, name: str) -> ExperimentState:
    """Return an experiment by its name or its id; an error that lists those that there are."""
    found = api.experiment_named(name) if name else None
    if found is None and name.isalnum():
        with suppress(MlflowRefused):  # it can be no id
            found = api.experiment(name)
    if found is None:
        names = api.experiment_names()
        listed = ", ".join(map(repr, names[:20]))
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise UnknownExperiment(f"MLflow has no experiment {name!r}; it has: {listed}{more}")
    return found


def last_metrics(run: MlflowRun) -> dict[str, float]:
    """Return the metrics by their names in the store.

    Those of an earlier attempt, which MLflow cannot remove, are left out.
    """
    first = run.tags.get(f"{PREFIX}attempt", "1") in ("0", "1")
    start = run.tags.get(START)
    since = 0 if first or start is None else datetime.fromisoformat(start).timestamp() * 1000 - 1
    return {
        _name(run, key): point.value
        for key, point in run.metrics.items()
        if point.timestamp >= since
    }


def _position(api: Api, key: str) -> tuple[int, str]:
    run = api.run(key)
    return (0, "") if run is None else _place(run)


def _place(run: MlflowRun) -> tuple[int, str]:
    return run.start_time or 0, run.id


def _name(run: MlflowRun, key: str) -> str:
    """Return the name that a param or a metric has in the store."""
    name = without_pieces(f"{NAME_TAG}{key}", run.tags)
    return key if name is None else name


def _imported(run: MlflowRun) -> TrackerRun:
    params = {}
    for key, text in run.params.items():
        whole = without_pieces(f"{PARAM_TAG}{key_of(key[:230])}", run.tags)
        params[_name(run, key)] = text if whole is None else whole
    return TrackerRun(
        key=run.id,
        status=STATUS.get(run.status, TrialStatus.INTERRUPTED.value),
        params=params,
        metrics={_name(run, key): point.value for key, point in run.metrics.items()},
        start_time=_time(run.start_time),
        end_time=_time(run.end_time),
        tags=run.tags,
    )


def _time(milliseconds: int | None) -> datetime | None:
    if not milliseconds:
        return None
    whole, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest * 1000)
