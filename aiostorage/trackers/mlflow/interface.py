"""What is asked of MLflow, over HTTP or in its database alike."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from aiostorage.errors import TrackerError, TrackerUnavailable

__all__ = [
    "MAX_FLOAT",
    "Api",
    "ExperimentState",
    "MetricPoint",
    "MlflowRefused",
    "MlflowRun",
    "RunPage",
    "as_number",
    "time_left",
    "time_limit",
]

MAX_FLOAT: Final = 1.7976931348623157e308
"""What MLflow keeps in the place of infinity."""

_deadline: ContextVar[float] = ContextVar("aiostorage_mlflow_deadline", default=math.inf)


class MlflowRefused(TrackerError):
    """MLflow refuses a request.

    Attributes
    ----------
    code
        Its own name of the error, such as ``RESOURCE_DOES_NOT_EXIST``.
    """

    def __init__(self, message: str | None = None, *, code: str = "") -> None:
        self.code = code
        super().__init__(message)

    @property
    def missing(self) -> bool:
        """Whether what was asked for is not there."""
        return self.code == "RESOURCE_DOES_NOT_EXIST"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let the requests of this block take so many seconds, all together."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left(needed: float = 0.0) -> float:
    """Return the seconds that are left; `TrackerUnavailable` if these are no more than `needed`."""
    left = _deadline.get() - time.monotonic()
    if left <= needed:
        raise TrackerUnavailable("MLflow answers too slowly")
    return left


class MetricPoint(NamedTuple):
    """The last value of a metric, with its time in ms since 1970."""

    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """A run as MLflow has it; times are in ms since 1970."""

    id: str
    status: str = "RUNNING"
    start_time: int | None = None
    end_time: int | None = None
    deleted: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, MetricPoint] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExperimentState:
    """An experiment as MLflow has it."""

    id: str
    name: str
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


class RunPage(NamedTuple):
    """Some runs, and the token for those that follow, if there are any."""

    runs: list[MlflowRun]
    token: str | None


class Api(Protocol):
    """The requests; what does not go raises `MlflowRefused` or `TrackerUnavailable`."""

    def check(self) -> None:
        """Connect, or raise `TrackerUnavailable`."""

    def close(self) -> None:
        """Disconnect."""

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Return the id of a new experiment."""

    def experiment_named(self, name: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""

    def experiment(self, key: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""

    def experiment_names(self) -> list[str]:
        """Return the names of the newest experiments that are not deleted."""

    def tag_experiment(self, key: str, name: str, value: str) -> None:
        """Set a tag."""

    def mark_experiment(self, key: str, *, deleted: bool) -> None:
        """Delete an experiment, or take the deletion back."""

    def create_run(
        self, experiment: str, name: str, start_time: int, tags: Mapping[str, str], user: str
    ) -> str:
        """Return the id of a new run, which is RUNNING."""

    def run(self, key: str) -> MlflowRun | None:
        """Return a run, also one that is deleted."""

    def log(
        self,
        key: str,
        params: Mapping[str, str],
        metrics: Mapping[str, MetricPoint],
        tags: Mapping[str, str],
    ) -> None:
        """Add params and metrics, and set tags: all or none, within the limits of one request."""

    def update_run(self, key: str, status: str, end_time: int | None) -> None:
        """Set the status; and the end, unless that is None. The end 0 is none."""

    def mark_run(self, key: str, *, deleted: bool) -> None:
        """Delete a run, or take the deletion back."""

    def search(
        self, experiment: str, where: str, order: Sequence[str], limit: int, token: str | None
    ) -> RunPage:
        """Return runs that are not deleted."""


def as_number(value: Any) -> float:
    """Return a metric's value as a float; what MLflow keeps for infinity is infinity."""
    number = float(value)
    return math.copysign(math.inf, number) if abs(number) >= MAX_FLOAT else number
