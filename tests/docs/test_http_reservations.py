"""The application of `docs/how-to/reservations-over-http.md`, with workers that have only HTTP."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from aiostorage import SyncStorage, Trial, open_storage
from tests.docs.batch_jobs import EXAMPLES, BatchJob, Program, Starter, programs

TOKEN = "a token of the workers"
DEADLINE = 60.0

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


class Place:
    """A directory with a store, a server that has it open, and jobs that have not."""

    def __init__(self, start: Starter) -> None:
        self.url = f"sqlite:///{start.directory / 'store.db'}"
        self._start = start
        self._port = 0
        self.server = self.start_server()

    def start_server(self) -> Program:
        """Start the server, at its old port if it had one, and wait until it answers."""
        uvicorn = [sys.executable, "-m", "uvicorn", "--factory", "app:create_app"]
        server = self._start(
            [*uvicorn, "--port", self._port],
            EXAMPLES / "http_reservations",
            AIOSTORAGE_URL=self.url,
            WORKER_TOKEN=TOKEN,
            LOST_AFTER=str(LOST_AFTER),
        )
        found = server.waited(
            lambda: re.search(r"running on (http://127\.0\.0\.1:(\d+))", server.printed)
        )
        self.address, self._port = found[1], int(found[2])
        return server

    def job(self, number: int) -> BatchJob:
        """Make a job of an array; nothing tells it where the store is."""
        return BatchJob(
            self._start, "array.sbatch", number, SERVER=self.address, WORKER_TOKEN=TOKEN
        )

    def fill(self, name: str) -> None:
        """Make an experiment with twelve trials."""
        with SyncStorage(open_storage(self.url)) as storage:
            experiment = storage.create_experiment({"name": name})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(12)]
            storage.register_trials(trials)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a store and a server."""
    with programs(tmp_path_factory.mktemp("http")) as start:
        yield Place(start)


def stored(place: Place) -> dict[int, Trial]:
    """Return what the store has, by x."""
    with SyncStorage(open_storage(place.url)) as storage:
        [experiment] = storage.fetch_experiments({"name": "tune"})
        return {trial.params["x"]: trial for trial in storage.fetch_trials(experiment) or []}


@pytest.mark.timeout(300)
def test_each_trial_is_completed_once_although_workers_and_the_server_die(place: Place) -> None:
    place.fill("tune")
    login = {"Authorization": f"Bearer {TOKEN}"}
    client = httpx.Client(base_url=place.address, headers=login, timeout=DEADLINE)
    late = client.post("/experiments/tune/reservations").json()
    jobs = [place.job(number) for number in range(2)]
    killed, limited = [job.run(WAIT, HANG="always") for job in jobs]
    [(_, pid)] = killed.waited(lambda: jobs[0].evaluated)
    [(at, _)] = limited.waited(lambda: jobs[1].evaluated)
    assert limited.terminate() == 0, limited.printed
    assert stored(place)[int(at)].status == "interrupted"  # the others need not wait for it
    os.kill(pid, signal.SIGKILL)

    place.server.kill()
    runs = [job.run(WAIT, FAIL="3") for job in jobs]
    place.server = place.start_server()
    printed = [run.succeed() for run in runs]
    assert [job.requeued for job in jobs] == [[], ["requeue 1001"]]
    completed = re.findall(r"^(\w+) completed$", "\n".join(printed), re.MULTILINE)
    trials = stored(place)
    of_server = {trial.id for trial in trials.values() if trial.status == "completed"}
    assert sorted(completed) == sorted(of_server)  # each of them once
    assert {x for x, trial in trials.items() if trial.status != "completed"} == {3}
    assert trials[3].status == "broken"
    pids = {pid for job in jobs for _, pid in job.evaluated}
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
