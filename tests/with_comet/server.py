"""A server with the endpoints of Comet's REST interface that a mirror uses, and ``comet_ml``.

Those below ``api/rest/v2`` are as Comet documents them; those below ``clientlib`` as ``comet_ml``
calls them. Faults can be planned.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

KEY = "K" * 25


@dataclass
class Run:
    workspace: str
    project: str
    archived: bool = False
    running: bool = True
    crashed: bool = False
    start: int | None = None
    end: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[Any]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)

    @property
    def metrics(self) -> dict[str, Any]:
        return {name: values[-1] for name, values in self.points.items()}


@dataclass
class Refusal(Exception):
    status: int
    body: dict[str, Any]


class CometServer:
    """What Comet has; the server can be stopped and started again, which keeps it."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.requests: list[tuple[str, Any]] = []
        self.faults: deque[str] = deque()
        self.fault_at = ""
        self.made = 0
        self.lock = threading.Lock()
        self.port = 0
        self._http: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/clientlib/"

    def start(self) -> None:
        server = self

        class Handler(_Handler):
            comet = server

        self._http = _Http(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.drop()
            self._http = None

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def plan(self, *faults: str, at: str = "") -> None:
        """Let the next requests fail, or the next to paths that end so."""
        self.fault_at = at
        self.faults.extend(faults)

    def take_fault(self, path: str) -> str | None:
        with self.lock:
            return self.faults.popleft() if self.faults and path.endswith(self.fault_at) else None

    # ----------------------------------------------------------------------------- endpoints

    def answer(self, path: str, sent: Any) -> Any:
        path = path.removeprefix("/")
        with self.lock:
            self.requests.append((path, sent))
            match path.removeprefix("api/rest/v2/"):
                case "clientlib/isAlive/ver":
                    return {"version": "5.0.0"}
                case "account-details":
                    return {"userName": "me", "defaultWorkspaceName": "lab"}
                case "experiments":
                    archived = sent["archived"].lower() == "true"
                    runs = [
                        self.metadata(key)
                        for key, run in self.runs.items()
                        if run.archived is archived and run.project == sent["projectName"]
                    ]
                    return {"experiments": runs}
                case "clientlib/logger/add/run":
                    return self.add(sent)
                case "clientlib/logger/get/run":
                    self.run(sent["previousExperiment"])
                    return {"runId": "r", "project_id": "p"}
                case "clientlib/status-report/update":
                    self.runs[sent["experimentKey"]].running = sent["is_alive"]
                    return {
                        "is_alive_beat_duration_millis": 10_000,
                        "gpu_monitor_interval_millis": 60_000,
                    }
                case "clientlib/tags/add-tags-to-experiment":
                    self.runs[sent["experimentKey"]].tags.update(sent["addedTags"])
                    return {}
                case "clientlib/status-report/offline-metadata":
                    run = self.runs[sent["experimentKey"]]
                    run.start, run.end = sent["startTimestamp"] or run.start, sent["endTimestamp"]
                    return {}
                case rest if isinstance(sent, dict) and "experimentKey" in sent:
                    return self.of_run(rest, sent["experimentKey"], sent)
            return {}

    def run(self, key: str) -> Run:
        if key not in self.runs:
            raise Refusal(400, {"msg": "No such experiment", "sdk_error_code": 90210})
        return self.runs[key]

    def add(self, sent: dict[str, Any]) -> dict[str, Any]:
        key = sent["experimentKey"]
        assert sent["apiKey"] == KEY
        assert 32 <= len(key) <= 50
        assert key.isalnum()
        if sent["teamName"] == "nowhere":
            raise Refusal(400, {"msg": "no such team", "sdk_error_code": 90219})
        if key not in self.runs:
            self.made += 1
            self.runs[key] = Run(sent["teamName"], sent["projectName"])
        elif not sent.get("getOrCreateEnabled"):
            raise Refusal(400, {"msg": "already there", "sdk_error_code": 90999})
        return {"runId": "r", "project_id": "p", "focusUrl": "http://comet/"}

    def metadata(self, key: str) -> dict[str, Any]:
        run = self.run(key)
        return {
            "experimentKey": key,
            "archived": run.archived,
            "running": run.running,
            "hasCrashed": run.crashed,
            "startTimeMillis": run.start,
            "endTimeMillis": run.end,
            "workspaceName": run.workspace,
            "projectName": run.project,
            "experimentName": run.others.get("Name"),
        }

    def of_run(self, path: str, key: str, sent: dict[str, Any]) -> Any:
        run = self.run(key)
        match path:
            case "experiment/metadata":
                return self.metadata(key)
            case "experiment/log-other":
                return summary(run.others)
            case "experiment/parameters":
                return summary(run.params)
            case "experiment/metrics/summary":
                return summary(run.metrics)
            case "experiment/tags":
                return {"tags": sorted(run.tags)}
        return self.change(path, run, sent)

    def change(self, path: str, run: Run, sent: dict[str, Any]) -> Any:
        if path.startswith("clientlib/batch"):
            return self.add_values(run, sent["values"])
        match path:
            case "write/experiment/archive":
                run.archived = True
            case "write/experiment/restore":
                run.archived = False
            case "write/experiment/log-other":
                run.others[sent["key"]] = sent["value"]
            case "write/experiment/tags":
                run.tags.update(sent["addedTags"])
            case "write/experiment/tags/delete":
                run.tags.difference_update(sent["tags"])
            case "write/experiment/set-start-end-time":
                run.start = sent["startTimeMillis"] or run.start
                run.end = sent["endTimeMillis"] or run.end
            case "write/experiment/update-status":
                run.running, run.crashed = sent["isAlive"], sent["hasCrashed"]
        return {"msg": "done"}

    def add_values(self, run: Run, values: list[dict[str, Any]]) -> Any:
        for value in values:
            if "metricName" in value:
                run.points.setdefault(value["metricName"], []).append(value["metricValue"])
            else:
                run.params[value["parameterName"]] = value["parameterValue"]
        return {"msg": "done"}


def summary(values: dict[str, Any]) -> dict[str, Any]:
    """Return last values as Comet does, which makes texts of them."""
    return {"values": [{"name": n, "valueCurrent": str(value)} for n, value in values.items()]}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        for request in [*self.open]:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that were dropped."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    comet: CometServer

    def do_GET(self) -> None:
        self.respond(dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            self.respond(json.loads(body) if body else {})
        except ValueError:
            self.respond({})

    do_PUT = do_POST  # noqa: N815

    def respond(self, sent: Any) -> None:
        path = urlsplit(self.path).path
        fault = self.comet.take_fault(path) if path != "/else" else None
        headers = {"Content-Type": "application/json"}
        status = 200
        if fault == "hang":
            time.sleep(1)
            fault = "drop"
        if fault == "drop":
            self.close_connection = True
            return
        try:
            if fault == "lost":  # done, but the answer does not arrive
                self.comet.answer(path, sent)
                self.close_connection = True
                return
            if fault == "html":
                self.write(200, {}, b"<html>Welcome")
                return
            if fault == "moved":
                self.write(302, {"Location": f"http://127.0.0.1:{self.comet.port}/else"}, b"")
                return
            if fault is not None:
                raise Refusal(int(fault), {"msg": f"planned, with {KEY}"})
            if self.headers.get("Authorization") not in (KEY, None):
                raise Refusal(401, {"msg": "API key is not valid"})
            answer = self.comet.answer(path, sent)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
        self.write(status, headers, json.dumps(answer).encode())

    def write(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
