"""MLflow's documented REST interface, by the HTTP functions of MLflow's own client.

These bring its settings along (credentials, certificates, plug-ins), but none of its time limits,
which add up to a quarter of an hour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from aiostorage._core.driver_options import hide_credentials_in
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

__all__ = ["RestApi"]

CONNECT_SECONDS: Final = 5.0
"""How long connecting to the server may take."""

ANSWER_SECONDS: Final = 20.0
"""How long an answer may take."""

NAMES: Final = 200
"""How many experiments are listed at most."""


class RestApi:
    """The requests to a server.

    Parameters
    ----------
    address
        Where it is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._request: Callable[..., Any] | None = None

    def check(self) -> None:
        """Import MLflow's client and ask the server something small."""
        if self._request is None:
            from mlflow.utils.rest_utils import http_request  # noqa: PLC0415  it takes seconds

            self._request = http_request
        self._call("POST", "experiments/search", {"max_results": 1})

    def close(self) -> None:
        """Do nothing: connections are MLflow's."""

    # --------------------------------------------------------------------------- experiments

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Return the id of a new experiment."""
        answer = self._call("POST", "experiments/create", {"name": name, "tags": _pairs(tags)})
        return str(answer["experiment_id"])

    def experiment_named(self, name: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""
        return self._experiment("get-by-name", experiment_name=name)

    def experiment(self, key: str) -> ExperimentState | None:
        """Return an experiment, also one that is deleted."""
        return self._experiment("get", experiment_id=key)

    def _experiment(self, how: str, **params: str) -> ExperimentState | None:
        try:
            found = self._call("GET", f"experiments/{how}", params)["experiment"]
        except MlflowRefused as refusal:
            if refusal.missing:
                return None
            raise
        deleted = found.get("lifecycle_stage") == "deleted"
        return ExperimentState(
            str(found["experiment_id"]), found["name"], deleted, _mapping(found.get("tags"))
        )

    def experiment_names(self) -> list[str]:
        """Return the names of the newest experiments that are not deleted."""
        answer = self._call("POST", "experiments/search", {"max_results": NAMES})
        return [found["name"] for found in answer.get("experiments", [])]

    def tag_experiment(self, key: str, name: str, value: str) -> None:
        """Set a tag."""
        content = {"experiment_id": key, "key": name, "value": value}
        self._call("POST", "experiments/set-experiment-tag", content)

    def mark_experiment(self, key: str, *, deleted: bool) -> None:
        """Delete an experiment, or take the deletion back."""
        verb = "delete" if deleted else "restore"
        self._call("POST", f"experiments/{verb}", {"experiment_id": key})

    # ---------------------------------------------------------------------------------- runs

    def create_run(
        self, experiment: str, name: str, start_time: int, tags: Mapping[str, str], user: str
    ) -> str:
        """Return the id of a new run, which is RUNNING."""
        content = {
            "experiment_id": experiment,
            "user_id": user,
            "run_name": name,
            "start_time": start_time,
            "tags": _pairs(tags),
        }
        return str(self._call("POST", "runs/create", content)["run"]["info"]["run_id"])

    def run(self, key: str) -> MlflowRun | None:
        """Return a run, also one that is deleted."""
        try:
            return _run(self._call("GET", "runs/get", {"run_id": key})["run"])
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
            {"key": name, "value": _json_number(point.value), "timestamp": point.timestamp}
            | {"step": point.step}
            for name, point in metrics.items()
        ]
        content = {
            "run_id": key,
            "params": _pairs(params),
            "metrics": points,
            "tags": _pairs(tags),
        }
        self._call("POST", "runs/log-batch", content)

    def update_run(self, key: str, status: str, end_time: int | None) -> None:
        """Set the status; and the end, unless that is None. The end 0 is none."""
        content: dict[str, Any] = {"run_id": key, "status": status}
        if end_time is not None:
            content["end_time"] = end_time
        self._call("POST", "runs/update", content)

    def mark_run(self, key: str, *, deleted: bool) -> None:
        """Delete a run, or take the deletion back."""
        self._call("POST", "runs/delete" if deleted else "runs/restore", {"run_id": key})

    def search(
        self, experiment: str, where: str, order: Sequence[str], limit: int, token: str | None
    ) -> RunPage:
        """Return runs that are not deleted."""
        content: dict[str, Any] = {
            "experiment_ids": [experiment],
            "filter": where,
            "order_by": list(order),
            "max_results": limit,
            "run_view_type": "ACTIVE_ONLY",
        }
        if token:
            content["page_token"] = token
        answer = self._call("POST", "runs/search", content)
        runs = [_run(found) for found in answer.get("runs", [])]
        return RunPage(runs, answer.get("next_page_token") or None)

    # ------------------------------------------------------------------------------ requests

    def _call(self, method: str, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        from requests import RequestException  # noqa: PLC0415  comes with MLflow's client

        assert self._request is not None  # noqa: S101  `check` came first
        left = time_left()
        body = {"params": content} if method == "GET" else {"json": content}
        try:
            response = self._request(
                self._credentials(),
                f"/api/2.0/mlflow/{quote(path)}",
                method,
                max_retries=0,
                timeout=(min(CONNECT_SECONDS, left), min(ANSWER_SECONDS, left)),
                raise_on_status=False,
                **body,
            )
            text = response.text
        except Exception as error:
            # MLflow turns any failure to get an answer into an error of its own class
            cause = error.__cause__ or error.__context__ or error
            what = cause if isinstance(cause, RequestException) else error
            raise TrackerUnavailable(
                f"MLflow at {self._address.location} gives no answer: {_reason(what)}"
            ) from error
        return self._content(response.status_code, text)

    def _content(self, status: int, text: str) -> dict[str, Any]:
        """Return the content of a response, or raise the error that it reports."""
        place = f"MLflow at {self._address.location}"
        try:
            content: Any = json.loads(text or "{}")
        except ValueError:
            content = None
        known = isinstance(content, dict)
        code = str(content.get("error_code", "")) if known else ""
        said = str(content.get("message") or code or status) if known else f"it answers {status}"
        message = f"{place}: {_one_line(said)}"
        if status in (401, 403):
            raise TrackerUnavailable(f"{message}; check the user name, the password or the token")
        if not known:
            what = f"it answers {status} with text"
            raise TrackerUnavailable(f"{place} is not an MLflow server: {what}")
        if status == 200:
            found: dict[str, Any] = content
            return found
        if status >= 500 or (status in (404, 408, 425, 429) and not _is_final(code)):
            raise TrackerUnavailable(message)
        raise MlflowRefused(message, code=code)

    def _credentials(self) -> Any:
        from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415  as above

        credentials = get_default_host_creds(self._address.uri)
        if self._address.password:
            credentials.username = self._address.user
            credentials.password = self._address.password
        return credentials


def _is_final(code: str) -> bool:
    return code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _reason(error: BaseException) -> str:
    """Return why there was no answer, without the URL, which may hold more than the user knows."""
    name = type(error).__name__
    text = str(error)
    for sign, words in (
        ("refused", "the connection is refused"),
        ("Read timed out", "it takes too long"),
        ("timed out", "connecting takes too long"),
        ("resolve", "its host is not known"),
        ("CERTIFICATE", "its certificate is not trusted"),
    ):
        if sign.lower() in text.lower():
            return words
    return f"{name}: {hide_credentials_in(_one_line(text))}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}..."


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _mapping(pairs: Any) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in pairs or ()}


def _json_number(value: float) -> float | str:
    """Return a number as JSON of protocol buffers has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _run(found: Mapping[str, Any]) -> MlflowRun:
    info, data = found["info"], found.get("data", {})
    metrics = {
        metric["key"]: MetricPoint(
            as_number(metric.get("value", 0.0)),
            int(metric.get("timestamp", 0)),
            int(metric.get("step", 0)),
        )
        for metric in data.get("metrics", ())
    }
    return MlflowRun(
        id=info["run_id"],
        status=info.get("status", "RUNNING"),
        start_time=int(info["start_time"]) if "start_time" in info else None,
        end_time=int(info["end_time"]) if info.get("end_time") else None,
        deleted=info.get("lifecycle_stage") == "deleted",
        params=_mapping(data.get("params")),
        metrics=metrics,
        tags=_mapping(data.get("tags")),
    )
