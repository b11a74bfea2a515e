"""Oríon's own storages as sides; they need Oríon 0.2.7 and Python 3.11."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any, Literal

from benchmarks.definitions import Block, Figures, Setting, Span
from benchmarks.samples import combined
from benchmarks.sides.ours import HOLD_SECONDS, NAME
from benchmarks.workload import make_trials, measured_calls

__all__ = ["Kind", "OrionStore", "counts", "cycles", "fetches", "handovers", "inserts", "states"]

Kind = Literal["pickleddb", "ephemeraldb", "mongodb"]


class OrionStore:
    """One of Oríon's storages with an experiment, which is made and filled if there is none.

    Parameters
    ----------
    config
        The configuration that Oríon makes the storage of.
    size
        How many pending trials a new experiment gets.
    """

    def __init__(self, config: dict[str, Any], size: int) -> None:
        from orion.storage.base import setup_storage  # noqa: PLC0415

        self.storage = setup_storage(config)
        found = self.storage.fetch_experiments({"name": NAME})
        if found:
            self.id: Any = found[0]["_id"]
            return
        experiment: dict[str, Any] = {"name": NAME, "version": 1, "algorithm": {"random": {}}}
        self.storage.create_experiment(experiment)
        self.id = experiment["_id"]
        if size:
            # at once, and with ids, for which EphemeralDB would look through all trials each time
            trials = enumerate(self.trials(size), start=1)
            self._write([{**trial.to_dict(), "_id": number} for number, trial in trials])
        os.sync()  # otherwise a commit would wait for what was written before

    @property
    def _id(self) -> Any:
        """The id: with it, this is all that a storage needs of an experiment."""
        return self.id

    def trials(self, count: int, seed: int = 0) -> list[Any]:
        """Make trials of Oríon's with the params of ours."""
        from orion.core.worker.trial import Trial  # noqa: PLC0415

        return [
            Trial(
                experiment=self.id,
                params=[
                    {"name": f"/{name}", "type": "real", "value": value}
                    for name, value in trial.params.items()
                ],
            )
            for trial in make_trials(0, count, seed)
        ]

    def reserve(self) -> Any:
        """Reserve one trial."""
        trial = self.storage.reserve_trial(self)
        if trial is None:
            raise AssertionError("the experiment ran out of trials; make more")
        return trial

    def cycle(self) -> None:
        """Take one trial from its reservation to its completion."""
        from orion.core.worker.trial import Trial  # noqa: PLC0415

        trial = self.reserve()
        self.storage.update_heartbeat(trial)
        trial.results = [Trial.Result(name="objective", type="objective", value=0.5)]
        self.storage.push_trial_results(trial)
        self.storage.set_trial_status(trial, status="completed", was="reserved")

    def _write(self, documents: list[dict[str, Any]]) -> None:
        self.storage._db.write("trials", documents)  # noqa: SLF001


def _config(setting: Setting, kind: Kind) -> dict[str, Any]:
    database: dict[str, Any] = {"type": kind}
    if kind == "pickleddb":
        database["host"] = f"{setting.directory / setting.store}.pkl"
    elif kind == "mongodb":
        place, _, options = (setting.mongodb or "").partition("?")
        database["host"] = f"{place.rstrip('/')}/{setting.store}?{options}"
        database["name"] = setting.store
    return {"type": "legacy", "database": database}


def _opened(setting: Setting, kind: Kind) -> OrionStore:
    return OrionStore(_config(setting, kind), setting.size)


@contextmanager
def inserts(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Register trials, one after another."""
    store = _opened(setting, kind)
    seeds = itertools.count(1)

    def block() -> Figures:
        trials = iter(store.trials(setting.count, next(seeds)))
        return measured_calls(lambda: store.storage.register_trial(next(trials)), setting.count)

    yield block


@contextmanager
def cycles(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Reserve a trial, send a heartbeat, complete it; several tasks are threads."""
    store = _opened(setting, kind)
    yield lambda: in_threads(store.cycle, setting.tasks, setting.count)


@contextmanager
def counts(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Count the completed trials."""
    store = _opened(setting, kind)
    yield lambda: measured_calls(lambda: store.storage.count_completed_trials(store), setting.count)


@contextmanager
def fetches(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Fetch all trials."""
    store = _opened(setting, kind)

    def block() -> Figures:
        found: list[Any] = []
        figures = measured_calls(
            lambda: found.extend(store.storage.fetch_trials(uid=store.id)), setting.count
        )
        return Figures(len(found), figures.seconds, figures.processor)

    yield block


@contextmanager
def handovers(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Hand the algorithm lock from thread to thread, or from process to process."""
    store = _opened(setting, kind)

    def one(spans: list[Span], holder: str) -> None:
        for _ in range(setting.count // setting.tasks):
            with store.storage.acquire_algorithm_lock(uid=store.id):
                acquired = time.perf_counter()
                time.sleep(HOLD_SECONDS)
                released = time.perf_counter()
            spans.append((holder, acquired, released))

    def block() -> Figures:
        spans: list[Span] = []
        threads = [
            Thread(target=one, args=(spans, f"{os.getpid()} {number}"))
            for number in range(setting.tasks)
        ]
        begin, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
        return Figures(len(spans), took, time.process_time() - used, None, tuple(spans))

    yield block


@contextmanager
def states(setting: Setting, kind: Kind, size: int, *, write: bool) -> Iterator[Block]:
    """Store an algorithm's state of so many bytes, or read it."""
    store = _opened(setting, kind)
    state = {"weights": os.urandom(size)}

    def save() -> None:
        with store.storage.acquire_algorithm_lock(uid=store.id) as algorithm:
            algorithm.set_state(state)

    def load() -> None:
        if store.storage.get_algorithm_lock_info(uid=store.id).state is None:
            raise AssertionError("the state was not stored")

    save()
    yield partial(measured_calls, save if write else load, setting.count)


def in_threads(action: Callable[[], object], threads: int, count: int) -> Figures:
    """Do an action `count` times, from several threads at once."""
    if threads == 1:
        return measured_calls(action, count)
    found: list[Figures] = []
    used = time.process_time()
    workers = [
        Thread(target=lambda: found.append(measured_calls(action, count // threads)))
        for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    together = combined(found)
    return Figures(together.count, together.seconds, time.process_time() - used)
