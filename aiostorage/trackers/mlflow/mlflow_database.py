"""MLflow's SQLite database without a server, by MLflow's own store class."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiostorage.errors import TrackerUnavailable
from aiostorage.trackers.mlflow.address import Address
from aiostorage.trackers.mlflow.mlflow_api import (
    ExperimentState,
    MetricPoint,
    MlflowRefused,
    MlflowRun,
    RunPage,
    as_number,
    time_left,
)

__all__ = ["DatabaseApi"]

BUSY_SECONDS: Final = 20.0
"""How long MLflow waits for another process that writes."""

NAMES: Final = 200
"""How many experiments are listed at most."""

_FINAL: Final = frozenset(
    {
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
"""MLflow's errors that stay when a request is repeated."""


class DatabaseApi:
    """The requests to a database in a file.

    Parameters
    ----------
    address
        Where it is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._store: Any = None
        self._entities: Any = None

    def check(self) -> None:
        """Import MLflow and open the database; a new one gets its tables."""
        if self._store is not None:
            return
        file = Path(self._address.uri.removeprefix("sqlite:///"))
        _check_file(file)
        try:
            import mlflow.entities as entities  # noqa: PLC0415, PLR0402  it takes seconds
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

            self._entities = entities
            # beside the database, as `mlflow server` in that directory has it
            artifacts = str(file.with_name("mlartifacts"))
            self._store = SqlAlchemyStore(self._address.uri, artifacts)
        except Exception as error:
            raise TrackerUnavailable(
                f"MLflow cannot open {self._address.location}: {_one_line(error)}"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        store, self._store = self._store, None
        if store is not None:
            store.engine.dispose()

    # --------------------------------------------------------------------------- experiments

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Return the id of a new experiment."""
        made = [self._entities.ExperimentTag(key, value) for key, value in tags.items()]
        with self._requests() as store:
            return str(store.create_experiment(name, tags=made))

    def experiment_named(self, name: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""
        with self._requests() as store:
            found = store.get_experiment_by_name(name)
        return None if found is None else _experiment(found)

    def experiment(self, key: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""
        try:
            with self._requests() as store:
                return _experiment(store.get_experiment(key))
        except MlflowRefused as refusal:
            if refusal.missing:
                return None
            raise

    def experiment_names(self) -> list[str]:
        """Return the names of the newest experiments that are not deleted."""
        with self._requests() as store:
            return [found.name for found in store.search_experiments(max_results=NAMES)]

    def tag_experiment(self, key: str, name: str, value: str) -> None:
        """Set a tag."""
        with self._requests() as store:
            store.set_experiment_tag(key, self._entities.ExperimentTag(name, value))

    def mark_experiment(self, key: str, *, deleted: bool) -> None:
        """Delete an experiment, or take the deletion back."""
        with self._requests() as store:
            (store.delete_experiment if deleted else store.restore_experiment)(key)

    # ---------------------------------------------------------------------------------- runs

    def create_run(
        self, experiment: str, name: str, start_time: int, tags: Mapping[str, str], user: str
    ) -> str:
        """Return the id of a new run, which is RUNNING."""
        with self._requests() as store:
            run = store.create_run(experiment, user, start_time, self._tags(tags), name)
        return str(run.info.run_id)

    def run(self, key: str) -> MlflowRun | None:
        """Return a run, also one that is deleted."""
        try:
            with self._requests() as store:
                return _run(store.get_run(key))
        except MlflowRefused as refusal:
            if refusal.missing:
                return None
            raise

    def log(
        self,
        key: str,
        params: Mapping[str, str],
        metrics: Mapping[str, MetricPoint],
        tags: Mapping[str, str],
    ) -> None:
        """Add params and metrics, and set tags: all or none, within the limits of one request."""
        points = [
            self._entities.Metric(name, point.value, point.timestamp, point.step)
            for name, point in metrics.items()
        ]
        values = [self._entities.Param(name, value) for name, value in params.items()]
        with self._requests() as store:
            store.log_batch(key, points, values, self._tags(tags))

    def update_run(self, key: str, status: str, end_time: int | None) -> None:
        """Set the status; and the end, unless that is None. The end 0 is none."""
        number = self._entities.RunStatus.from_string(status)
        with self._requests() as store:
            store.update_run_info(key, number, end_time, None)

    def mark_run(self, key: str, *, deleted: bool) -> None:
        """Delete a run, or take the deletion back."""
        with self._requests() as store:
            (store.delete_run if deleted else store.restore_run)(key)

    def search(
        self, experiment: str, where: str, order: Sequence[str], limit: int, token: str | None
    ) -> RunPage:
        """Return runs that are not deleted."""
        active = self._entities.ViewType.ACTIVE_ONLY
        with self._requests() as store:
            found = store.search_runs([experiment], where, active, limit, list(order), token)
        return RunPage([_run(run) for run in found], found.token or None)

    # ------------------------------------------------------------------------------ requests

    @contextmanager
    def _requests(self) -> Iterator[Any]:
        """Give the store, and turn its errors into ours."""
        time_left(needed=BUSY_SECONDS)
        try:
            yield self._store
        except Exception as error:
            code = str(getattr(error, "error_code", ""))
            message = f"MLflow in {self._address.location}: {_one_line(error)}"
            if code in _FINAL:
                raise MlflowRefused(message, code=code) from error
            raise TrackerUnavailable(message) from error

    def _tags(self, tags: Mapping[str, str]) -> list[Any]:
        return [self._entities.RunTag(key, value) for key, value in tags.items()]


def _check_file(file: Path) -> None:
    """See that the file can be opened, or make it: MLflow would try that for minutes.

    A new file is for its owner alone, as that of a storage is.
    """
    try:
        with suppress(FileExistsError):
            os.close(os.open(os.path.realpath(file), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not stat.S_ISREG(file.stat().st_mode):
            raise TrackerUnavailable(
                f"MLflow cannot open sqlite:///{file}: it is not a regular file"
            )
        with closing(sqlite3.connect(file, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version")
    except (sqlite3.Error, OSError) as error:
        what = error if file.parent.is_dir() else f"there is no directory {file.parent}"
        raise TrackerUnavailable(f"MLflow cannot open sqlite:///{file}: {what}") from error


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 300 else f"{line[:300]}..."


def _experiment(found: Any) -> ExperimentState:
    deleted = found.lifecycle_stage == "deleted"
    return ExperimentState(str(found.experiment_id), found.name, deleted, dict(found.tags))


def _run(found: Any) -> MlflowRun:
    info, data = found.info, found.data
    # the entity's mapping has no times; these are behind it
    points = {
        metric.key: MetricPoint(as_number(metric.value), metric.timestamp, metric.step)
        for metric in data._metric_objs  # noqa: SLF001
    }
    return MlflowRun(
        id=info.run_id,
        status=info.status,
        start_time=info.start_time,
        end_time=info.end_time or None,
        deleted=info.lifecycle_stage == "deleted",
        params=dict(data.params),
        metrics=points,
        tags=dict(data.tags),
    )
