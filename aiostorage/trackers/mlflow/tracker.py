"""The tracker: what `aiostorage.trackers.Tracker` asks for, by requests to MLflow."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self

from aiostorage._core.driver_options import call_with_options
from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers.mlflow.address import Address, address_of, require_packages
from aiostorage.trackers.mlflow.interface import Api, MlflowRefused, time_limit
from aiostorage.trackers.mlflow.local_database import DatabaseApi
from aiostorage.trackers.mlflow.mlflow_experiments import MlflowExperiments
from aiostorage.trackers.mlflow.rest import RestApi
from aiostorage.trackers.mlflow.runs import Runs
from aiostorage.trackers.mlflow.source import last_metrics, read_runs
from aiostorage.trackers.protocol import TrackedExperiment, TrackedTrial, TrackerRun

__all__ = ["MlflowTracker", "tracker_from_url"]

CALL_TIMEOUT: Final = 28.0
"""How long one call may take."""


class MlflowTracker:
    """A mirror in MLflow: an experiment for each experiment, a run for each reserved trial.

    Nothing that is global to MLflow's client is changed in this process, neither its tracking URI
    nor its settings.

    Parameters
    ----------
    address
        Where it is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._api: Api = DatabaseApi(address) if address.is_file else RestApi(address)
        self._experiments = MlflowExperiments(self._api)
        self._runs = Runs(self._api)
        self._opening = threading.Lock()
        self._is_open = False

    def __reduce__(self) -> tuple[type[Self], tuple[Address]]:
        """Pickle the settings: a copy is not open."""
        return type(self), (self._address,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    @property
    def name(self) -> str:
        """Always ``mlflow``."""
        return "mlflow"

    @property
    def location(self) -> str:
        """Its tracking URI, without secrets."""
        return self._address.location

    @property
    def max_concurrency(self) -> int:
        """How many calls it takes at the same time; one, if it is a file."""
        return 1 if self._address.is_file else 4

    def open(self) -> None:
        """Import MLflow's client, which takes some seconds, and connect."""
        with self._opening:
            if not self._is_open:
                with time_limit(CALL_TIMEOUT):
                    self._api.check()
                self._is_open = True

    def close(self) -> None:
        """Disconnect. A second call does nothing."""
        with self._opening:
            self._is_open = False
            self._api.close()

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        """Make or update an experiment; return its id."""
        with self._call():
            return self._experiments.send(tracked)

    def send_trial(self, tracked: TrackedTrial) -> str | None:
        """Make or update a run; return its id, or None for a trial that was never reserved."""
        with self._call():
            return self._runs.send(tracked)

    def delete_experiment(self, key: str) -> None:
        """Delete an experiment with its runs, as MLflow does: they can be restored."""
        with self._call():
            try:
                self._api.mark_experiment(key, deleted=True)
            except MlflowRefused as refusal:
                if not refusal.missing:
                    raise

    def delete_trial(self, key: str) -> None:
        """Delete a run, as MLflow does: it can be restored."""
        with self._call():
            try:
                self._api.mark_run(key, deleted=True)
            except MlflowRefused as refusal:
                if not refusal.missing:
                    raise

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        """Return the last value of every metric that anyone has logged in a run.

        Of a trial that was reserved more than once, only metrics logged since its last reservation.
        """
        with self._call():
            run = self._api.run(key)
        if run is None:
            raise TrackerError(f"MLflow at {self.location} has no run {key!r}")
        return last_metrics(run)

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:
        """Return the variables with which MLflow's own client joins a run.

        A user name and a password are among them if they came with the URL; otherwise MLflow's own
        variables are in the environment already.
        """
        variables = {
            "MLFLOW_TRACKING_URI": self._address.uri,
            "MLFLOW_EXPERIMENT_ID": experiment_key,
            "MLFLOW_RUN_ID": key,
        }
        if self._address.password:
            variables["MLFLOW_TRACKING_USERNAME"] = self._address.user
            variables["MLFLOW_TRACKING_PASSWORD"] = self._address.password
        return variables

    def read_runs(self, experiment: str, after: str | None = None) -> Iterator[TrackerRun]:
        """Yield the runs of an experiment, oldest first, whoever made them."""
        self._check_open()
        return read_runs(self._api, experiment, after)

    @contextmanager
    def _call(self) -> Iterator[None]:
        self._check_open()
        with time_limit(CALL_TIMEOUT):
            yield

    def _check_open(self) -> None:
        if not self._is_open:
            raise TrackerUnavailable(f"MLflow at {self.location} is not open")


def tracker_from_url(url: str, **options: object) -> MlflowTracker:
    """Make the tracker of a URL; nothing is imported or connected yet.

    Parameters
    ----------
    url
        ``mlflow+http://HOST:PORT``, ``mlflow+https://USER:PASSWORD@HOST`` or
        ``mlflow+sqlite:///FILE``, where a relative file is one in the present directory, and an
        absolute one has four slashes.

    Raises
    ------
    ConfigurationError
        The URL cannot work, an option is unknown, or a package is missing.
    """
    call_with_options(_no_options, "mlflow", options)
    address = address_of(url)
    require_packages(address)
    return MlflowTracker(address)


def _no_options() -> None:
    """Take no options."""
