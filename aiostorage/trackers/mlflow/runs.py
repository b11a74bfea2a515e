"""Making and updating runs, with no more requests than that takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from aiostorage.errors import TrackerError
from aiostorage.trackers.mlflow.content import (
    EXPERIMENT,
    TRIAL,
    Content,
    Warned,
    content_of,
    same_number,
)
from aiostorage.trackers.mlflow.mlflow_api import Api, MetricPoint, MlflowRefused, MlflowRun
from aiostorage.trackers.protocol import TrackedTrial
from aiostorage.values import TrialStatus

__all__ = ["Runs"]

BATCH_ITEMS: Final = 100
"""Params, and tags, that one request may have."""

BATCH_CHARACTERS: Final = 120_000
"""Characters in one request; MLflow takes a million bytes, and JSON may need six for each."""

CREATED: Final = {"mlflow.source.name": "aiostorage"}
"""Tags that a run gets when it is made, and which a script that joins it may change."""


class Runs:
    """The runs of trials.

    Parameters
    ----------
    api
        The requests.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._warned = Warned()

    def send(self, tracked: TrackedTrial) -> str | None:
        """Make or update the run of a trial, and return its id; None if it needs none yet."""
        run = None
        if tracked.key is not None:
            run = self._api.run(tracked.key)
        elif tracked.uncertain:
            run = self._find(tracked)
        if run is None and _is_untouched(tracked):
            return None
        content = content_of(tracked, self._warned)
        if run is None:
            run = self._make(tracked, content)
        elif run.deleted:
            self._api.mark_run(run.id, deleted=False)
        try:
            self._bring(run, content)
        except MlflowRefused:
            # a param may have come from elsewhere since the run was read: then this one differs
            now = self._api.run(run.id)
            if now is None or now == run:
                raise
            self._bring(now, content)
        return run.id

    def _find(self, tracked: TrackedTrial) -> MlflowRun | None:
        """Return the run that an earlier attempt made, and delete others of the same trial."""
        key = tracked.experiment.key
        assert key is not None  # noqa: S101  the protocol says so
        # an id is an md5, without quotes
        where = f"tags.`{TRIAL}` = '{tracked.trial.id}'"
        found = self._api.search(key, where, ["attributes.start_time ASC"], 50, None).runs
        own = [r for r in found if r.tags.get(EXPERIMENT) == str(tracked.experiment.experiment.id)]
        for other in own[1:]:
            self._api.mark_run(other.id, deleted=True)
        return own[0] if own else None

    def _make(self, tracked: TrackedTrial, content: Content) -> MlflowRun:
        key = tracked.experiment.key
        assert key is not None  # noqa: S101  the protocol says so
        # the tags that mark the run as ours are sent at once, so that a lost answer does no harm
        tags = {**CREATED, **dict(islice(content.tags.items(), BATCH_ITEMS - 20))}
        tags = {name: value for name, value in tags.items() if len(value) <= 1000}

        def make() -> str:
            return self._api.create_run(key, content.name, content.start_time, tags, content.user)

        try:
            uid = make()
        except MlflowRefused as refusal:
            experiment = self._api.experiment(key)
            if experiment is None:
                raise TrackerError(
                    f"{refusal}; send everything again with `aiostorage tracker-sync --all`"
                ) from refusal
            if not experiment.deleted:
                raise
            self._api.mark_experiment(key, deleted=False)
            uid = make()
        return MlflowRun(uid, start_time=content.start_time, tags=tags)

    def _bring(self, run: MlflowRun, content: Content) -> None:
        """Send what the run does not have; the status last, so that a finished run is complete."""
        params = {}
        for name, value in content.params.items():
            if name not in run.params:
                params[name] = value
            elif run.params[name] != value:
                self._warned.warn(
                    "change",
                    f"{run.id} {name}",
                    f"the run {run.id} has another value of the param {name[:100]!r}, "
                    "which cannot be changed there",
                )
        tags = {name: text for name, text in content.tags.items() if run.tags.get(name) != text}
        self._log(run.id, params, self._points(run, content), tags)
        end = content.end_time
        if end is None and run.end_time is not None and content.status in ("RUNNING", "SCHEDULED"):
            end = 0
        if content.status != run.status or (end is not None and (end or None) != run.end_time):
            self._api.update_run(run.id, content.status, end)

    def _points(self, run: MlflowRun, content: Content) -> dict[str, MetricPoint]:
        """Return the metrics that the run does not have, such that they are the last values."""
        now = content.end_time or int(time.time() * 1000)
        points = {}
        for name, value in content.metrics.items():
            last = run.metrics.get(name)
            if last is None:
                points[name] = MetricPoint(value, now)
            elif not same_number(last.value, value):
                points[name] = MetricPoint(value, max(now, last.timestamp + 1), last.step)
        return points

    def _log(
        self,
        key: str,
        params: dict[str, str],
        metrics: dict[str, MetricPoint],
        tags: dict[str, str],
    ) -> None:
        """Send them in as few requests as MLflow's limits let."""
        contents: list[dict[str, Any]] = [params, dict(metrics), tags]
        batches = [list(_batches(items)) for items in contents]
        for index in range(max(map(len, batches))):
            some: list[dict[str, Any]] = [b[index] if index < len(b) else {} for b in batches]
            self._api.log(key, some[0], some[1], some[2])


def _is_untouched(tracked: TrackedTrial) -> bool:
    """Return whether the trial was never reserved: MLflow cannot change the start of a run."""
    trial = tracked.trial
    return trial.status == TrialStatus.NEW and trial.start_time is None


def _batches(items: dict[str, Any]) -> Iterator[dict[str, Any]]:
    batch: dict[str, Any] = {}
    size = 0
    for name, value in items.items():
        length = len(name) + (len(value) if isinstance(value, str) else 50)
        if batch and (len(batch) == BATCH_ITEMS or size + length > BATCH_CHARACTERS // 3):
            yield batch
            batch, size = {}, 0
        batch[name] = value
        size += length
    if batch:
        yield batch
