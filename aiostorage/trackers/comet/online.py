"""A mirror at Comet itself, or at an installation of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from aiostorage._core.event_log import EventLog
from aiostorage.trackers.comet.comet_client import Call, CometClient, CometRefused
from aiostorage.trackers.comet.comet_contents import (
    OTHERS_PREFIX,
    RunContents,
    has_begun,
    new_problems,
    run_contents,
)
from aiostorage.trackers.comet.keys import experiment_key, run_prefix, trial_key
from aiostorage.trackers.comet.messages import metric_batch, param_batch
from aiostorage.trackers.comet.reading import current_values, is_users_metric, numbers
from aiostorage.trackers.protocol import TrackedExperiment, TrackedTrial

__all__ = ["Comet"]

events: Final = EventLog("tracker")

_CALL_TIMEOUT: Final = 30.0
"""The most that one call takes."""

_ALREADY_THERE: Final = 90999
"""Comet's ``sdk_error_code`` when a key is taken."""

_STATUS: Final = f"{OTHERS_PREFIX}status"


class Comet:
    """A project at Comet with a run for each trial.

    A run's key is computed from the experiment and the trial, and Comet makes no second run of a
    key. What a run has is read before it is written, so that what is there is not sent again.

    Parameters
    ----------
    workspace, project
        Comet makes the project if it is missing.
    seconds
        The most that one call takes.
    """

    name = "comet"
    max_concurrency = 4

    def __init__(self, workspace: str, project: str, *, seconds: float = _CALL_TIMEOUT) -> None:
        self._workspace = workspace
        self._project = project
        self._client = CometClient(seconds)
        self._known: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._workspace, self._project, self._client.seconds)

    @property
    def location(self) -> str:
        """The URL."""
        return f"comet://{quote(self._workspace, safe='')}/{quote(self._project, safe='')}"

    def open(self) -> None:
        """Find the API key, and let Comet check it."""
        if not self._client.is_open:
            self._client.connect()

    def close(self) -> None:
        """Close the connections; nothing is held back."""
        self._client.close()

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        """Return the prefix of the keys of the runs; Comet has nothing else of an experiment."""
        return experiment_key(tracked.experiment)

    def send_trial(self, tracked: TrackedTrial) -> str | None:
        """Make the run of a trial, or bring it to what the trial is now.

        A trial that was never reserved has none: for Comet a run begins when it is made.
        """
        if not has_begun(tracked):
            return None
        key = trial_key(tracked.experiment.key or "", tracked.trial.id)
        contents = run_contents(tracked)
        for problem in new_problems(contents.problems, self._known):
            events.warning(
                "content_changed",
                "Comet, trial %(trial)s: %(reason)s",
                trial=tracked.trial.id,
                reason=problem,
            )
        call = self._client.call()
        run = _find(call, key)
        if run is None:
            self._make(call, key)
            run, others = {}, {}
        else:
            if run.get("archived"):
                call.get("write/experiment/restore", experimentKey=key)
            others = current_values(call.get("experiment/log-other", experimentKey=key))
        _send_values(call, key, contents, is_new=not run)
        _send_tags(call, key, contents, before=others.get(_STATUS))
        _send_times(call, key, contents, run)
        _send_state(call, key, contents, run)
        # the status goes last: a call that was cut off finds the old one, and does all again
        _send_others(call, key, contents, others)
        return key

    def delete_experiment(self, key: str) -> None:
        """Archive all runs of an experiment."""
        call = self._client.call()
        where = {"workspaceName": self._workspace, "projectName": self._project}
        try:
            listed = call.get("experiments", **where, archived="false")
        except CometRefused as error:
            if error.status in {400, 404}:  # there is no such project
                return
            raise
        begin = run_prefix(key)
        for run in listed.get("experiments") or ():
            if run["experimentKey"].startswith(begin):
                call.get("write/experiment/archive", experimentKey=run["experimentKey"])

    def delete_trial(self, key: str) -> None:
        """Archive the run of a trial, from where Comet's users can bring it back."""
        call = self._client.call()
        run = _find(call, key)
        if run is not None and not run.get("archived"):
            call.get("write/experiment/archive", experimentKey=key)

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        """Return the last values of a run's metrics, without those of the machine."""
        summary = self._client.call().get("experiment/metrics/summary", experimentKey=key)
        found = numbers(current_values(summary))
        return {name: value for name, value in found.items() if is_users_metric(name)}

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the variables with which ``comet_ml.start()`` joins a run.

        The API key is not among them: a child process has it as this one does.
        """
        joined = {
            "COMET_EXPERIMENT_KEY": key,
            "COMET_PROJECT_NAME": self._project,
            "COMET_START_MODE": "get_or_create",
            "COMET_START_ONLINE": "true",
            "COMET_WORKSPACE": self._workspace,
        }
        if self._client.is_open:
            joined["COMET_URL_OVERRIDE"] = self._client.address
        return joined

    def _make(self, call: Call, key: str) -> None:
        """Make a run of a key, or find it if another deliverer was faster."""
        body = {
            **call.credentials(),
            "experimentKey": key,
            "workspaceName": self._workspace,
            "teamName": self._workspace,
            "projectName": self._project,
            "offline": False,
            "getOrCreateEnabled": True,
        }
        try:
            call.post("clientlib/logger/add/run", body)
        except CometRefused as error:
            if error.code != _ALREADY_THERE:
                raise


def _restored(workspace: str, project: str, seconds: float) -> Comet:
    return Comet(workspace, project, seconds=seconds)


def _find(call: Call, key: str) -> dict[str, Any] | None:
    """Return Comet's data on a run; None if it does not know the run."""
    try:
        run: dict[str, Any] = call.get("experiment/metadata", experimentKey=key)
    except CometRefused as error:
        if error.status in {400, 404}:  # 400 before backend 4
            return None
        raise
    return run


def _send_values(call: Call, key: str, contents: RunContents, *, is_new: bool) -> None:
    if contents.params:
        params = param_batch(contents.params, contents.timestamp)
        body = {"experimentKey": key, "values": params}
        call.post("clientlib/batch/logger/experiment/parameter", body)
    metrics = contents.metrics
    if metrics and not is_new:
        there = numbers(current_values(call.get("experiment/metrics/summary", experimentKey=key)))
        metrics = {
            name: value
            for name, value in metrics.items()
            if name not in there or repr(there[name]) != repr(float(value))
        }
    if metrics:
        body = {"experimentKey": key, "values": metric_batch(metrics, contents.timestamp)}
        call.post("clientlib/batch/logger/experiment/metric", body)


def _send_tags(call: Call, key: str, contents: RunContents, before: str | None) -> None:
    status = contents.tags[-1]
    if before == status:
        return
    if before:
        call.post("write/experiment/tags/delete", {"experimentKey": key, "tags": [before]})
    call.post("write/experiment/tags", {"experimentKey": key, "addedTags": [*contents.tags]})


def _send_times(call: Call, key: str, contents: RunContents, run: Mapping[str, Any]) -> None:
    start, end = contents.start, contents.end
    if (start, end) == (None, None):
        return
    if start == run.get("startTimeMillis") and end in {None, run.get("endTimeMillis")}:
        return
    body = {"experimentKey": key, "startTimeMillis": start, "endTimeMillis": end}
    call.post("write/experiment/set-start-end-time", body)


def _send_state(call: Call, key: str, contents: RunContents, run: Mapping[str, Any]) -> None:
    alive, crashed = contents.state == "running", contents.state == "crashed"
    if run.get("running") is alive and bool(run.get("hasCrashed")) is crashed:
        return
    body = {"experimentKey": key, "isAlive": alive, "error": None, "hasCrashed": crashed}
    call.post("write/experiment/update-status", body)


def _send_others(call: Call, key: str, contents: RunContents, there: Mapping[str, Any]) -> None:
    """Send what differs; what the trial does not have any more becomes empty."""
    wanted = dict.fromkeys((name for name in there if name.startswith(OTHERS_PREFIX)), "")
    wanted |= contents.others
    status = wanted.pop(_STATUS)
    for name, value in (*wanted.items(), (_STATUS, status)):
        if str(there.get(name)) != value:
            body = {"experimentKey": key, "key": name, "value": value}
            call.post("write/experiment/log-other", body)
