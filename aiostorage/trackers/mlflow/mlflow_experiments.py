"""Making and updating experiments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Final

from aiostorage._core.event_log import EventLog
from aiostorage.trackers.mlflow.content import EXPERIMENT
from aiostorage.trackers.mlflow.mlflow_api import Api, ExperimentState, MlflowRefused
from aiostorage.trackers.mlflow.names import PREFIX, experiment_name
from aiostorage.trackers.protocol import TrackedExperiment

__all__ = ["MlflowExperiments"]

events: Final = EventLog("tracker")


class MlflowExperiments:
    """The experiments.

    Parameters
    ----------
    api
        The requests.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def send(self, tracked: TrackedExperiment) -> str:
        """Make or update an experiment, and return its id."""
        tags = _tags(tracked)
        found = None if tracked.key is None else self._api.experiment(tracked.key)
        if found is None:
            made, found = self._make(tracked, tags)
            if found is None:
                return made
        if found.deleted:
            self._api.mark_experiment(found.id, deleted=False)
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self._api.tag_experiment(found.id, name, value)
        return found.id

    def _make(
        self, tracked: TrackedExperiment, tags: Mapping[str, str]
    ) -> tuple[str, ExperimentState | None]:
        """Return the id of a new experiment, or of one of ours that is there, and that one.

        A name may be taken, also by a deleted experiment. If that is not ours, the new one has its
        own id in its name.
        """
        experiment = tracked.experiment
        wanted = experiment_name(experiment.name, experiment.version)
        name = wanted
        for attempt in count(1):
            found = self._api.experiment_named(name)
            if found is None:
                try:
                    made = self._api.create_experiment(name, tags)
                except MlflowRefused as refusal:
                    if refusal.code != "RESOURCE_ALREADY_EXISTS" or attempt > 20:
                        raise
                    continue  # another one was faster; is it ours?
                if name != f"{experiment.name}-v{experiment.version}":
                    events.warning(
                        "experiment_renamed",
                        "MLflow: the experiment %(experiment)r is %(name)r there",
                        experiment=wanted,
                        name=name,
                    )
                return made, None
            if found.tags.get(EXPERIMENT) == str(experiment.id):
                return found.id, found
            name = experiment_name(experiment.name, experiment.version, experiment.id)
            if attempt > 1:
                name = f"{name}-{attempt}"
        raise AssertionError  # pragma: no cover  `count` has no end


def _tags(tracked: TrackedExperiment) -> dict[str, str]:
    experiment = tracked.experiment
    metadata = experiment.config.get("metadata")
    user = metadata.get("user") if isinstance(metadata, Mapping) else None
    refers = experiment.config.get("refers")
    parent = refers.get("parent_id") if isinstance(refers, Mapping) else None
    tags = {
        EXPERIMENT: str(experiment.id),
        f"{PREFIX}name": experiment.name,
        f"{PREFIX}version": str(experiment.version),
    }
    if user:
        tags[f"{PREFIX}user"] = str(user)
    if parent is not None and parent != experiment.id:
        tags[f"{PREFIX}parent"] = str(parent)
    return {name: value[:5000] for name, value in tags.items()}
