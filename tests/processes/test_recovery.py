"""The loop of the documentation, started again after its workers were killed, does all the rest.

Each test is played on all stores at once, for most of its time is spent waiting.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from uuid import uuid4

from anyio.from_thread import BlockingPortal

from aiostorage import Trial, open_storage

from .support import Starter, Store, Worker, on_each
from .worker_loop import WORKERS

TRIALS = 10
LOST_AFTER = 1.5


def made(portal: BlockingPortal, store: Store) -> str:
    """Make an experiment with its trials."""

    async def make() -> str:
        async with open_storage(store.url) as storage:
            experiment = await storage.create_experiment({"name": f"e-{uuid4().hex}"})
            await storage.register_trials(
                [Trial(experiment=experiment.id, params={"x": x}) for x in range(TRIALS)]
            )
            return str(experiment.id)

    return portal.call(make)


def trials_of(portal: BlockingPortal, store: Store, experiment: str) -> list[Trial]:
    """Read its trials."""

    async def read() -> list[Trial]:
        async with open_storage(store.url) as storage:
            return await storage.fetch_trials(uid=experiment) or []

    return portal.call(read)


def lines_of(worker: Worker) -> list[tuple[str, str]]:
    """Return what a worker printed before it ended by itself."""
    lines = []
    while (line := worker.line()) is not None:
        word, trial = line.split()
        lines.append((word, trial))
    worker.succeed()
    return lines


def play(start: Starter, portal: BlockingPortal, store: Store, wait: float) -> None:
    """Kill two processes in the middle of their trials, and start the same loop again."""
    experiment = made(portal, store)

    def begin(seconds: float) -> Worker:
        return start("worker_loop.py", store.url, experiment, LOST_AFTER, seconds, wait)

    first = [begin(600), begin(600)]
    held = {worker.expect("has")[0] for worker in first for _ in range(WORKERS)}
    assert len(held) == 2 * WORKERS
    first[0].kill()
    first[1].signal(signal.SIGTERM)
    first[1].wait()
    statuses = Counter(trial.status for trial in trials_of(portal, store, experiment))
    assert statuses["reserved"] >= WORKERS  # one that gets SIGTERM may hand its trials back
    if not wait:
        time.sleep(LOST_AFTER + 0.1)  # what is tested is the run after that

    again = [begin(0), begin(0)]
    lines = [line for worker in again for line in lines_of(worker)]
    completed = Counter(trial for word, trial in lines if word == "completed")
    trials = trials_of(portal, store, experiment)
    assert [trial.status for trial in trials] == ["completed"] * TRIALS
    assert completed == Counter(trial.id for trial in trials)  # each of them once
    assert Counter(trial for word, trial in lines if word == "has") == completed
    for trial in trials:
        assert trial.start_time is not None
        assert trial.end_time is not None
        assert trial.start_time <= trial.end_time
    store.check()


def test_the_next_run_does_the_rest(
    start: Starter, stores: list[Store], portal: BlockingPortal
) -> None:
    on_each(stores, lambda store: play(start, portal, store, 0.0))


def test_a_run_that_waits_does_the_rest_at_once(
    start: Starter, stores: list[Store], portal: BlockingPortal
) -> None:
    on_each(stores, lambda store: play(start, portal, store, 2 * LOST_AFTER + store.slack))
