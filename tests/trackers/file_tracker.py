"""A tracker that keeps its runs in a SQLite file, and can be made to fail in many ways.

Its switches are files beside it, so that they work in every process at once.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiostorage import TrackerError, TrackerUnavailable
from aiostorage.trackers import TrackedExperiment, TrackedTrial, TrackerRun

TABLES = """
CREATE TABLE IF NOT EXISTS experiments (key INTEGER PRIMARY KEY, uid, name, deleted DEFAULT 0);
CREATE TABLE IF NOT EXISTS runs (
    key INTEGER PRIMARY KEY, experiment, trial, status, attempt, params, metrics, start_time,
    end_time, deleted DEFAULT 0
);
CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY, pid, trial, status, attempt, time);
"""


class FileTracker:
    """The tracker; it can be pickled.

    Switches, which are files in the directory: ``down``; ``delay`` and ``hang`` with seconds;
    ``refuse`` and ``bug`` with the ids of trials or experiments, or ``all``; ``die``: the process
    is killed when it has made a run, once.
    """

    name = "file"

    def __init__(self, directory: Path, max_concurrency: int = 4) -> None:
        self.directory = Path(directory)
        self.location = str(self.directory)
        self.max_concurrency = max_concurrency
        self.pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "pid": 0}

    def open(self) -> None:
        self._trouble()
        if self.pid not in (0, os.getpid()):
            raise AssertionError("a child of a fork uses the parent's tracker")
        self.pid = os.getpid()
        with self._connected() as database:
            database.executescript("PRAGMA journal_mode=WAL;" + TABLES)

    def close(self) -> None:
        self.pid = 0

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self.pid:
            raise AssertionError("the tracker is not open")
        path = self.directory / "runs.db"
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous=OFF")
            yield database

    def _switch(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text()
        except FileNotFoundError:
            return None

    def _trouble(self, *names: object) -> None:
        if (delay := self._switch("delay")) is not None:
            time.sleep(float(delay))
        if (hang := self._switch("hang")) is not None:
            time.sleep(float(hang))
        if self._switch("down") is not None:
            raise TrackerUnavailable(f"{self.location} is down")
        words = {"all", *map(str, names)} if names else set()
        if words & set((self._switch("refuse") or "").split()):
            raise TrackerError("this is refused")
        if words & set((self._switch("bug") or "").split()):
            raise ZeroDivisionError("a bug of the tracker")

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        experiment = tracked.experiment
        self._trouble(experiment.id)
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            named = f"{experiment.name} v{experiment.version}"
            wanted = (tracked.key, experiment.id)
            found = database.execute(
                "SELECT key FROM experiments WHERE NOT deleted AND (key = ? OR uid = ?)", wanted
            ).fetchone()
            key = found[0] if found else None
            if key is None:
                insert = "INSERT INTO experiments (uid, name) VALUES (?, ?)"
                key = database.execute(insert, (experiment.id, named)).lastrowid
            database.execute("UPDATE experiments SET name = ? WHERE key = ?", (named, key))
            database.execute("COMMIT")
        return str(key)

    def send_trial(self, tracked: TrackedTrial) -> str:
        trial = tracked.trial
        assert tracked.experiment.key is not None
        self._trouble(trial.id, tracked.experiment.experiment.id)
        results = {r.name: r.value for r in trial.results if isinstance(r.value, int | float)}
        values = (
            trial.status,
            tracked.attempt,
            json.dumps({param.name: param.value for param in trial.param_list}),
            trial.start_time.isoformat() if trial.start_time else None,
            trial.end_time.isoformat() if trial.end_time else None,
        )
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            key = tracked.key
            if key is None and tracked.uncertain:
                find = "SELECT key FROM runs WHERE experiment = ? AND trial = ? AND NOT deleted"
                found = database.execute(find, (tracked.experiment.key, trial.id)).fetchone()
                key = str(found[0]) if found else None
            made = key is None
            if key is None:
                insert = "INSERT INTO runs (experiment, trial) VALUES (?, ?)"
                row = (tracked.experiment.key, trial.id)
                key = str(database.execute(insert, row).lastrowid)
            find = "SELECT metrics FROM runs WHERE key = ?"
            logged = json.loads(database.execute(find, (int(key),)).fetchone()[0] or "{}")
            database.execute(
                "UPDATE runs SET status = ?, attempt = ?, params = ?, metrics = ?, "
                "start_time = ?, end_time = ? WHERE key = ?",
                # what users have logged stays
                (*values[:3], json.dumps({**logged, **results}), *values[3:], int(key)),
            )
            database.execute(
                "INSERT INTO log (pid, trial, status, attempt, time) VALUES (?, ?, ?, ?, ?)",
                (os.getpid(), trial.id, trial.status, tracked.attempt, time.time()),
            )
            database.execute("COMMIT")
        if made and self._switch("die") is not None:
            (self.directory / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    def delete_experiment(self, key: str) -> None:
        self._trouble()
        with self._connected() as database:
            database.execute("UPDATE experiments SET deleted = 1 WHERE key = ?", (int(key),))
            database.execute("UPDATE runs SET deleted = 1 WHERE experiment = ?", (key,))

    def delete_trial(self, key: str) -> None:
        self._trouble()
        with self._connected() as database:
            database.execute("UPDATE runs SET deleted = 1 WHERE key = ?", (int(key),))

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        self._trouble()
        with self._connected() as database:
            find = "SELECT metrics FROM runs WHERE key = ?"
            found = database.execute(find, (int(key),)).fetchone()
        if found is None:
            raise TrackerError(f"there is no run {key}")
        metrics: dict[str, float] = json.loads(found[0])
        return metrics

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:
        self._trouble()
        return {"FILE_TRACKER": self.location, "FILE_TRACKER_RUN": key}


@dataclass(frozen=True)
class Seen:
    """What is in the file of a tracker, and its switches, from outside."""

    directory: Path

    def switch(self, name: str, value: object | None = "") -> None:
        """Set a switch; None takes it back."""
        if value is None:
            (self.directory / name).unlink(missing_ok=True)
        else:
            (self.directory / name).write_text(str(value))

    def _rows(self, sql: str, *values: object) -> list[Any]:
        path = self.directory / "runs.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path, timeout=30)) as database:
            try:
                return database.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []  # it is being opened for the first time

    def experiments(self) -> list[tuple[str, str, bool]]:
        """Return the key, the name, and whether it was deleted, of each."""
        rows = self._rows("SELECT key, name, deleted FROM experiments ORDER BY key")
        return [(str(key), name, bool(deleted)) for key, name, deleted in rows]

    def runs(self, experiment: str | None = None) -> list[TrackerRun]:
        """Return the runs that are not deleted."""
        where = "NOT deleted" + (" AND experiment = ?" if experiment is not None else "")
        rows = self._rows(
            "SELECT key, trial, status, attempt, params, metrics, start_time, end_time "
            f"FROM runs WHERE {where} ORDER BY key",
            *(() if experiment is None else (experiment,)),
        )
        return [
            TrackerRun(
                str(key),
                status,
                json.loads(params),
                json.loads(metrics),
                _time(start),
                _time(end),
                {"trial": trial, "attempt": str(attempt)},
            )
            for key, trial, status, attempt, params, metrics, start, end in rows
        ]

    def log_metric(self, key: str, **metrics: float) -> None:
        """Log metrics in a run, as a user's script does."""
        with closing(sqlite3.connect(self.directory / "runs.db", timeout=30)) as database:
            text = json.dumps(metrics)
            database.execute("UPDATE runs SET metrics = ? WHERE key = ?", (text, int(key)))
            database.commit()

    def log(self) -> list[tuple[str, str, int]]:
        """Return the trial, the status and the attempt of all that was sent, in order."""
        return self._rows("SELECT trial, status, attempt FROM log ORDER BY n")

    def senders(self) -> set[int]:
        """Return the processes that have sent something."""
        return {pid for (pid,) in self._rows("SELECT DISTINCT pid FROM log")}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def made_from_url(url: str, max_concurrency: int = 4) -> FileTracker:
    """Make a tracker of ``file://`` and its directory; for an entry point."""
    return FileTracker(Path(url.removeprefix("file://")), max_concurrency)
