"""Servers that are away, slow, secured, or something else: an error in time, without secrets."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from aiostorage import Experiment, TrackerError, TrackerUnavailable, Trial
from aiostorage.trackers import TrackedExperiment, TrackedTrial, Tracker
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.mlflow import interface, rest

pytestmark = pytest.mark.usefixtures("mlflow")

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Serve one answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def with_text(status: int, text: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = text.encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def trouble(host: str) -> str:
    """Return the error with which opening fails; it names the place and no secret."""
    tracker = tracker_from_url(f"mlflow+http://ada:secret@{host}")
    started = time.monotonic()
    with pytest.raises(TrackerUnavailable) as caught:
        tracker.open()
    assert time.monotonic() - started < 10
    tracker.close()
    text = f"{caught.value} {caught.value.__cause__}"
    assert host in text
    assert "secret" not in text
    assert "ada" not in text
    return str(caught.value)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "refused" in trouble(f"127.0.0.1:{port}")


def test_no_such_host() -> None:
    assert "not known" in trouble("no-such-host.invalid")


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (200, "<html>hello</html>", "not an MLflow server"),
        (404, "not here", "not an MLflow server"),
        (404, '{"detail": "Not Found"}', "404"),
        (502, "<html>bad gateway</html>", "502"),
        (503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}', "later"),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "who are you"}', "password"),
        (401, "You are not authenticated", "password"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "password"),
    ],
)
def test_answers_that_do_not_help(status: int, text: str, words: str) -> None:
    with answering(with_text(status, text)) as host:
        assert words in trouble(host)


def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "ANSWER_TIMEOUT", 0.2)
    done = threading.Event()

    def wait(_: BaseHTTPRequestHandler) -> None:
        done.wait(5)

    with answering(wait) as host:
        assert "too long" in trouble(host)
        done.set()


def test_the_time_limit_is_for_all_requests_of_a_call() -> None:
    with interface.time_limit(0.05):
        assert interface.time_left() > 0
        time.sleep(0.06)
        with pytest.raises(TrackerUnavailable):
            interface.time_left()


def test_the_user_and_the_password_are_sent() -> None:
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        with_text(200, "{}")(handler)

    with answering(answer) as host:
        tracker_from_url(f"mlflow+http://ada:secret@{host}").open()
    assert seen == ["Basic YWRhOnNlY3JldA=="]


def test_the_token_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0k3n")
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        with_text(200, "{}")(handler)

    with answering(answer) as host:
        tracker_from_url(f"mlflow+http://{host}").open()
    assert seen == ["Bearer t0k3n"]


def test_the_settings_of_this_process_stay(
    mlflow: ModuleType, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    before = dict(os.environ)
    tracker = tracker_from_url(f"mlflow+sqlite:///{database}")
    tracker.open()
    tracker.send_experiment(TrackedExperiment(Experiment("e1", "tune")))
    tracker.close()
    assert dict(os.environ) == before
    assert mlflow.get_tracking_uri() == "http://elsewhere:1"


def test_calls_before_it_is_open() -> None:
    tracker = tracker_from_url("mlflow+http://127.0.0.1:1")
    with pytest.raises(TrackerUnavailable, match="not open"):
        tracker.fetch_metrics("r1")


@pytest.fixture
def on_file(database: Path) -> Iterator[Tracker]:
    tracker = tracker_from_url(f"mlflow+sqlite:///{database}")
    tracker.open()
    yield tracker
    tracker.close()


@pytest.fixture
def on_server(mlflow_url: str) -> Iterator[Tracker]:
    tracker = tracker_from_url(f"mlflow+{mlflow_url}")
    tracker.open()
    yield tracker
    tracker.close()


@pytest.mark.parametrize("fixture", ["on_file", "on_server"])
def test_what_is_not_there(request: pytest.FixtureRequest, fixture: str) -> None:
    tracker: Tracker = request.getfixturevalue(fixture)
    tracker.delete_trial("0" * 32)
    tracker.delete_experiment("987654")
    with pytest.raises(TrackerError, match="no run"):
        tracker.fetch_metrics("0" * 32)
    gone = TrackedExperiment(Experiment("e1", "tune"), "987654")
    trial = Trial(experiment="e1", params={"x": 1}, status="reserved")
    with pytest.raises(TrackerError, match="tracker-sync --all"):
        tracker.send_trial(TrackedTrial(gone, trial))
    with pytest.raises(TrackerError, match=r"no experiment 'nobody'; it has: '"):
        list(tracker.read_runs("nobody"))  # type: ignore[attr-defined]  # it is a source, too


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database" * 100)
    tracker = tracker_from_url(f"mlflow+sqlite:///{tmp_path}/text.db")
    with pytest.raises(TrackerUnavailable, match=r"cannot open .*text\.db"):
        tracker.open()
    tracker.close()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    tracker = tracker_from_url(f"mlflow+sqlite:///{tmp_path}/no/runs.db")
    with pytest.raises(TrackerUnavailable, match="no directory"):
        tracker.open()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    tracker = tracker_from_url(f"mlflow+sqlite:///{tmp_path}")
    with pytest.raises(TrackerUnavailable, match="cannot open"):
        tracker.open()


def test_a_file_that_another_process_keeps_locked(on_file: Tracker, database: Path) -> None:
    """MLflow waits for 20 s, by its own pragma; here the lock is away before that."""
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.close)
        release.start()
        key = on_file.send_experiment(TrackedExperiment(Experiment("e1", "tune")))
        release.join()
    assert key
