"""The application of `docs/how-to/reservations-over-http.md`, with workers that have only HTTP."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from aiostorage import SyncStorage, Trial, open_storage
from tools.docs_code import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "http_reservations"
TOKEN = "a token of the workers"
DEADLINE = 60.0

T = TypeVar("T")

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn  # noqa: F401
except ImportError as missing:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        raise
    pytest.skip(f"{missing.name} is not installed", allow_module_level=True)

LOST_AFTER = 1.0
"""Seconds; a killed worker's trial is free after them."""

WAIT = 1.5 * LOST_AFTER
"""Seconds that a worker waits for a trial: until those of killed workers are lost."""


class Process:
    """A Python, and what it prints."""

    def __init__(self, output: Path, *arguments: object, **environment: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.pid = self._process.pid

    @property
    def printed(self) -> str:
        return self._output.read_text()

    def waited(self, what: Callable[[], T | None]) -> T:
        """Wait for something to be so; the process has to run until then."""
        until = time.monotonic() + DEADLINE
        while not (found := what()):
            assert self._process.poll() is None, self.printed
            assert time.monotonic() < until, self.printed
            time.sleep(0.01)
        return found

    def terminate(self) -> int:
        self._process.terminate()
        return self._process.wait(DEADLINE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def succeed(self) -> str:
        """Wait for its end; return what it printed."""
        assert self._process.wait(DEADLINE) == 0, self.printed
        return self.printed


class Place:
    """A directory with a store, a server that has it open, and workers that have not."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.url = f"sqlite:///{directory / 'store.db'}"
        self.notes = directory / "notes"
        self.notes.mkdir()
        self._directory = directory
        self._stack = stack
        self._numbers = itertools.count()
        self._port = 0
        self.server = self.start_server()

    def start(self, *arguments: object, **environment: str) -> Process:
        """Start a Python."""
        paths = [str(ROOT), str(EXAMPLE), os.environ.get("PYTHONPATH", "")]
        process = Process(
            self._directory / f"printed-{next(self._numbers)}",
            *arguments,
            **{
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "WORKER_TOKEN": TOKEN,
                "NOTES": str(self.notes),
                **environment,
            },
        )
        self._stack.callback(process.kill)
        return process

    def start_server(self) -> Process:
        """Start the server, at its old port if it had one, and wait until it answers."""
        server = self.start(
            *("-m", "uvicorn", "--factory", "app:create_app", "--port", self._port),
            AIOSTORAGE_URL=self.url,
            LOST_AFTER=str(LOST_AFTER),
        )
        found = server.waited(
            lambda: re.search(r"running on (http://127\.0\.0\.1:(\d+))", server.printed)
        )
        self.address, self._port = found[1], int(found[2])
        return server

    def start_worker(self, objective: str) -> Process:
        """Start a worker; nothing tells it where the store is."""
        named = f"tests.docs.objectives_http:{objective}"
        return self.start(EXAMPLE / "worker.py", self.address, "tune", named, WAIT)

    def evaluating(self, worker: Process) -> int:
        """Wait until a worker evaluates a trial; return its x."""
        [note] = worker.waited(lambda: list(self.notes.glob(f"*-{worker.pid}")))
        return int(note.name.partition("-")[0])

    def fill(self, name: str) -> None:
        """Make an experiment with twelve trials."""
        with SyncStorage(open_storage(self.url)) as storage:
            experiment = storage.create_experiment({"name": name})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(12)]
            storage.register_trials(trials)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a store and a server."""
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("http"), stack)


def stored(place: Place) -> dict[int, Trial]:
    """Return what the store has, by x."""
    with SyncStorage(open_storage(place.url)) as storage:
        [experiment] = storage.fetch_experiments({"name": "tune"})
        return {trial.params["x"]: trial for trial in storage.fetch_trials(experiment) or []}


def test_each_trial_is_completed_once_although_workers_and_the_server_die(place: Place) -> None:
    place.fill("tune")
    login = {"Authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=place.address, headers=login, timeout=DEADLINE)
    late = client.post("/experiments/tune/reservations").json()
    killed, stopped = place.start_worker("for_ever"), place.start_worker("for_ever")
    at = place.evaluating(stopped)
    assert {late["params"]["x"], place.evaluating(killed), at} == {0, 1, 2}
    assert stopped.terminate() == 143
    assert stored(place)[at].status == "interrupted"  # the others need not wait for it
    killed.kill()

    place.server.kill()
    workers = [place.start_worker("parabola") for _ in range(2)]
    place.server = place.start_server()
    printed = [worker.succeed() for worker in workers]
    completed = re.findall(r"^(\w+) completed$", "\n".join(printed), re.MULTILINE)
    trials = stored(place)
    of_server = {trial.id for trial in trials.values() if trial.status == "completed"}
    assert sorted(completed) == sorted(of_server)  # each of them once
    assert {x for x, trial in trials.items() if trial.status != "completed"} == {3}
    assert trials[3].status == "broken"
    pids = {worker.pid for worker in workers}
    for x, trial in trials.items():
        if x != 3:
            assert trial.objective_value == x**2
            assert trial.statistics[0].value in pids

    held = {"Reservation": late["reservation"]}
    for path, body in (
        ("heartbeat", None),
        ("complete", {"objective": -1.0}),
        ("release", {"status": "interrupted"}),
    ):
        answer = client.post(f"/reservation/{path}", headers=held, json=body)
        assert answer.status_code == 409, answer.text
        assert answer.json()["status"] == "completed"
        assert late["reservation"] not in answer.text
    assert stored(place)[0].to_dict() == trials[0].to_dict()
    client.close()


def test_what_the_server_answers(place: Place) -> None:
    place.fill("answers")
    path = "/experiments/answers/reservations"
    with httpx.Client(base_url=place.address, timeout=DEADLINE) as client:
        for headers in ({}, {"Authorization": "Bearer of news"}):
            answer = client.post(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        api: dict[str, Any] = client.get("/openapi.json").json()
        assert set(api["paths"]) == {
            "/experiments/{name}/reservations",
            *(f"/reservation/{what}" for what in ("heartbeat", "complete", "release")),
        }
        assert {"400", "409", "410"} < set(
            api["paths"]["/reservation/complete"]["post"]["responses"]
        )
        [scheme] = api["components"]["securitySchemes"].values()
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")

        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.post("/experiments/none/reservations").status_code == 404
        assert client.post(path, params={"wait": 1000}).status_code == 422
        reserved = client.post(path).json()
        held = {"Reservation": reserved["reservation"]}
        cut = {"Reservation": reserved["reservation"][:20]}
        assert client.post("/reservation/heartbeat", headers=cut).status_code == 400
        assert client.post("/reservation/heartbeat", headers=held).json() == {"status": "reserved"}
        outcome = {"objective": 1.0, "statistics": {"epochs": 3}}
        for code in (200, 410):  # the second is a repetition, after an answer that was lost
            answer = client.post("/reservation/complete", headers=held, json=outcome)
            assert answer.status_code == code
            assert answer.json()["status"] == "completed"
        for _ in range(11):
            answer = client.post(path)
            held = {"Reservation": answer.json()["reservation"]}
            broken = client.post("/reservation/release", headers=held, json={"status": "broken"})
            assert broken.json() == {"status": "broken"}
        assert client.post(path).status_code == 204
