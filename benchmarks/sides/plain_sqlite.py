"""Plain ``sqlite3`` in one thread: the statements that the work cannot do without, on our tables.

It is the limit of what any storage on SQLite can reach: it checks nothing, and has no errors of its
own, no retries and no other callers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from uuid import uuid4

from benchmarks.definitions import Block, Figures, Setting
from benchmarks.sides.ours import opened
from benchmarks.workload import make_trials, measured_calls

__all__ = ["Commits", "counts", "cycles", "inserts", "made", "reservations"]

T = TypeVar("T")
Commits = Literal["each", "one"]
"""A commit for each operation, or one for all of a block."""

CHOOSE = """
    SELECT seq, id, submit_time, doc FROM trials
    WHERE experiment = ? AND status IN ('new', 'suspended', 'interrupted')
    ORDER BY submit_time, seq LIMIT 1
"""
RESERVE = """
    UPDATE trials SET status = 'reserved', worker = ?, start_time = ?, heartbeat = ?,
    heartbeat_ticks = ? WHERE seq = ?
"""
BEAT = """
    UPDATE trials SET heartbeat = ?, heartbeat_ticks = ?
    WHERE experiment = ? AND id = ? AND status = 'reserved' AND worker = ?
"""
COMPLETE = """
    UPDATE trials SET status = 'completed', end_time = ?, heartbeat = ?, heartbeat_ticks = ?,
    doc = json_set(doc, '$.results', json(?))
    WHERE experiment = ? AND id = ? AND status = 'reserved' AND worker = ? RETURNING seq
"""
NOTE = """
    INSERT INTO trial_changes
    (_id, kind, owner, name, before, after, holder, attempt, time, subject, doc)
    VALUES (?, ?, ?, ?, ?, ?, ?, ifnull((SELECT attempt FROM trial_changes WHERE subject = ?
    ORDER BY seq DESC LIMIT 1), 0) + ?, ?, ?, '{}')
"""
INSERT = """
    INSERT INTO trials (_id, experiment, id, status, submit_time, doc) VALUES (?, ?, ?, 'new', ?, ?)
"""
COUNT = "SELECT count(*) FROM trials WHERE experiment = ? AND status = 'completed'"
RESULTS = json.dumps([{"name": "objective", "type": "objective", "value": 0.5}])


@dataclass(frozen=True)
class _Reserved:
    seq: int
    id: str
    token: str


class PlainStore:
    """A file of ours, used by ``sqlite3`` alone.

    Parameters
    ----------
    history
        Whether a row is written for each change of a status, as aiostorage does.
    """

    def __init__(self, connection: sqlite3.Connection, *, history: bool) -> None:
        self._connection = connection
        self._history = history
        self.experiment: str = connection.execute("SELECT _id FROM experiments").fetchone()[0]

    def reserve(self) -> _Reserved:
        """Reserve the oldest pending trial, and decode it."""
        seq, uid, _, doc = self._connection.execute(CHOOSE, [self.experiment]).fetchone()
        json.loads(doc)
        now, token = _now(), uuid4().hex
        self._connection.execute(RESERVE, [token, now, now, time.monotonic_ns(), seq])
        trial = _Reserved(seq, uid, token)
        self._note(trial, "reserved", "new", "reserved", 1)
        return trial

    def beat(self, trial: _Reserved) -> None:
        """Send a heartbeat."""
        values = [_now(), time.monotonic_ns(), self.experiment, trial.id, trial.token]
        self._connection.execute(BEAT, values)

    def complete(self, trial: _Reserved) -> None:
        """Store a result."""
        now = _now()
        held = [self.experiment, trial.id, trial.token]
        values = [now, now, time.monotonic_ns(), RESULTS, *held]
        if self._connection.execute(COMPLETE, values).fetchone() is None:
            raise AssertionError("a reserved trial was lost")
        self._note(trial, "status", "reserved", "completed", 0)

    def insert(self, trial: Any) -> None:
        """Insert a trial."""
        params = [{"name": name, "type": "real", "value": v} for name, v in trial.params.items()]
        doc = json.dumps({"params": params, "results": []})
        values = [uuid4().hex[:24], self.experiment, trial.id, _now(), doc]
        seq = self._connection.execute(INSERT, values).lastrowid
        self._note(_Reserved(seq or 0, trial.id, ""), "inserted", None, "new", 0)

    def count(self) -> int:
        """Count the completed trials."""
        found: int = self._connection.execute(COUNT, [self.experiment]).fetchone()[0]
        return found

    def transaction(self, action: Callable[[], T]) -> T:
        """Do something in a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        found = action()
        self._connection.execute("COMMIT")
        return found

    def _note(
        self, trial: _Reserved, kind: str, before: str | None, after: str, attempt: int
    ) -> None:
        if self._history:
            names = [uuid4().hex[:24], kind, self.experiment, trial.id, before, after, trial.token]
            self._connection.execute(NOTE, [*names, trial.seq, attempt, _now(), trial.seq])


def _now() -> str:
    return datetime.now(UTC).isoformat()


@contextmanager
def _opened(setting: Setting, *, history: bool) -> Iterator[PlainStore]:
    made(setting)
    file = setting.directory / f"{setting.store}.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        yield PlainStore(connection, history=history)


def made(setting: Setting) -> None:
    """Make and fill a file if there is none."""

    async def open_it() -> None:
        async with opened(setting, "sqlite"):
            pass

    asyncio.run(open_it())


def _measured(
    store: PlainStore, commits: Commits, operation: Callable[[], object], count: int
) -> Figures:
    """Measure an operation, whose steps commit unless there is one commit for the block."""
    if commits == "each":
        return measured_calls(operation, count)
    figures = []
    store.transaction(lambda: figures.append(measured_calls(operation, count)))
    return figures[0]


def _step(store: PlainStore, commits: Commits) -> Callable[[Callable[[], T]], T]:
    return store.transaction if commits == "each" else lambda action: action()


@contextmanager
def reservations(setting: Setting, commits: Commits, *, history: bool) -> Iterator[Block]:
    """Reserve trials."""
    with _opened(setting, history=history) as store:
        step = _step(store, commits)
        yield lambda: _measured(store, commits, lambda: step(store.reserve), setting.count)


@contextmanager
def cycles(setting: Setting, commits: Commits, *, history: bool) -> Iterator[Block]:
    """Reserve a trial, send a heartbeat, complete it: three transactions, or none of their own."""
    with _opened(setting, history=history) as store:
        step = _step(store, commits)

        def cycle() -> None:
            trial = step(store.reserve)
            step(lambda: store.beat(trial))
            step(lambda: store.complete(trial))

        yield lambda: _measured(store, commits, cycle, setting.count)


@contextmanager
def inserts(setting: Setting, commits: Commits, *, history: bool) -> Iterator[Block]:
    """Insert trials."""
    seeds = itertools.count(1)
    with _opened(setting, history=history) as store:
        step = _step(store, commits)

        def block() -> Figures:
            trials = iter(make_trials(store.experiment, setting.count, next(seeds)))
            return _measured(
                store, commits, lambda: step(lambda: store.insert(next(trials))), setting.count
            )

        yield block


@contextmanager
def counts(setting: Setting) -> Iterator[Block]:
    """Count the completed trials."""
    with _opened(setting, history=False) as store:
        yield lambda: measured_calls(store.count, setting.count)
