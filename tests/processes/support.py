"""Processes of our own: started, listened to, and ended by their handles."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import aiostorage
from tests.preloaded import preloaded

__all__ = [
    "DEADLINE",
    "Events",
    "MongoDBStore",
    "PatientClock",
    "SQLiteStore",
    "Starter",
    "Store",
    "Worker",
    "integrity",
    "on_each",
    "starter",
]

DEADLINE = 60.0
"""Seconds that anything may take on a machine that has much else to do."""

HERE = Path(__file__).parent

LIBRARIES = (
    *("aiostorage.drivers.memory", "aiostorage.drivers.sqlite"),
    *(("aiostorage.drivers.mongodb", "motor.motor_asyncio") if find_spec("motor") else ()),
)
"""What the processes need not import themselves."""

Events: TypeAlias = "queue.SimpleQueue[tuple[Worker, str | None]]"
"""What several processes print: the process and the line, None after its last one."""


def environment() -> dict[str, str]:
    """Return our environment, with which a child imports the same package in any directory."""
    package = str(Path(aiostorage.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def there(pid: int) -> bool:
    """Return whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


class Worker:
    """A Python process: the lines that it prints, and how it ends.

    Parameters
    ----------
    script
        The name of a script beside this file, or ``-c`` followed by code in `arguments`.
    arguments
        What it finds in ``sys.argv``.
    complaints
        The file for its stderr.
    into
        Where its lines go, each beside itself, instead of `line`.
    """

    def __init__(
        self,
        script: str,
        arguments: tuple[object, ...],
        complaints: Path,
        into: Events | None = None,
    ) -> None:
        self._complaints = complaints
        self._into = into
        texts = list(map(str, arguments))
        code = texts.pop(0) if script == "-c" else HERE / script
        with complaints.open("wb") as stderr:
            self._process = preloaded((), *LIBRARIES).start(
                code,
                *texts,
                directory=Path.cwd(),
                environment=environment(),
                stderr=stderr.fileno(),
            )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard(line.rstrip("\n"))
        self._heard(None)

    def _heard(self, line: str | None) -> None:
        if self._into is None:
            self._lines.put(line)
        else:
            self._into.put((self, line))

    @property
    def stderr(self) -> str:
        """What it has complained about."""
        return self._complaints.read_text()

    def line(self, within: float = DEADLINE) -> str | None:
        """Return the next line that it prints; None after the last one."""
        try:
            line = self._lines.get(timeout=within)
        except queue.Empty:
            raise AssertionError(
                f"process {self.pid} printed nothing in {within} s: {self.stderr}"
            ) from None
        if line is None:
            self._lines.put(None)
        return line

    def expect(self, word: str, within: float = DEADLINE) -> list[str]:
        """Return the fields of the next line, which begins with `word`."""
        line = self.line(within)
        assert line is not None, f"process {self.pid} has ended: {self.stderr}"
        first, *fields = line.split(" ")
        assert first == word, (
            f"{word!r} expected of process {self.pid}, not {line!r}: {self.stderr}"
        )
        return fields

    def tell(self, line: str = "") -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it at once; it is gone when this returns."""
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self, within: float = DEADLINE) -> int:
        """Wait for its end; answer its exit code, negative for the signal that killed it."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} does not end: {self.stderr}") from None

    def succeed(self, within: float = DEADLINE) -> None:
        """Wait for its end; it has nothing to complain about."""
        code = self.wait(within)
        lines = self.stderr.splitlines()
        complaints = [line for line in lines if not line.startswith("still waiting for ")]
        assert (code, complaints) == (0, []), f"process {self.pid}: {code}\n{self.stderr}"

    def close(self) -> None:
        """End it in any case, with the children that it may have, and let go of its pipes."""
        # once it is buried its number may be another process's, but not while its children live
        if self.runs or not there(self.pid):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # its session is its own: `start_new_session`
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        with suppress(BrokenPipeError):
            self._process.stdin.close()


class Starter:
    """Starts processes, and ends those that are left."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._workers: list[Worker] = []
        self._numbers = itertools.count()

    def __call__(self, script: str, *arguments: object, into: Events | None = None) -> Worker:
        """Start a process; the arguments are those of `Worker`."""
        complaints = self._directory / f"stderr-{next(self._numbers)}"
        worker = Worker(script, arguments, complaints, into)
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """End them all."""
        for worker in self._workers:
            worker.close()


@contextmanager
def starter(directory: Path) -> Iterator[Starter]:
    """Give a starter whose processes end with the block."""
    start = Starter(directory)
    try:
        yield start
    finally:
        start.close()


class PatientClock:
    """Counts the seconds in which this machine had time for us.

    A thread sleeps for a hundredth of a second, again and again, and the times that it did are
    what is counted. On an idle machine they are seconds; where others keep the processors busy
    they grow longer, for the processes under test as for this thread.
    """

    TICK = 0.01

    def __init__(self) -> None:
        self._ticks = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while not self._stopped.is_set():
            time.sleep(self.TICK)
            self._ticks += 1

    def now(self) -> float:
        """Return how many such seconds there have been."""
        return self._ticks * self.TICK

    def close(self) -> None:
        """Stop counting."""
        self._stopped.set()
        self._thread.join()


def on_each(stores: Iterable[Store], scenario: Callable[[Store], None]) -> None:
    """Run a scenario on several stores at once; each failure says on which store it was."""
    stores = list(stores)
    failures = []
    with ThreadPoolExecutor(len(stores)) as pool:
        for store, future in [(store, pool.submit(scenario, store)) for store in stores]:
            if (error := future.exception()) is not None:
                error.add_note(f"on {store.url}")
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise BaseExceptionGroup("on several stores", failures)


def integrity(path: Path) -> str:
    """Return what SQLite finds wrong with a file that no process has open; ``ok`` if nothing."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    return "; ".join(row[0] for row in found)


class Store(Protocol):
    """What processes share, seen past the library."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    @property
    def slack(self) -> float:
        """Seconds that a loaded machine may add."""
        ...

    def waiters(self, experiment: str) -> int:
        """Count the tickets of those who wait for an experiment's lock."""
        ...

    def check(self) -> None:
        """Fail if it is damaged."""
        ...


@dataclass(frozen=True)
class SQLiteStore:
    """A file."""

    path: Path
    slack: float = 1.0

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def waiters(self, experiment: str) -> int:
        count = "SELECT count(*) FROM lock_waiters WHERE experiment = ?"
        with closing(sqlite3.connect(self.path)) as connection:
            found: int = connection.execute(count, [experiment]).fetchone()[0]
        return found

    def check(self) -> None:
        assert integrity(self.path) == "ok"


@dataclass(frozen=True)
class MongoDBStore:
    """A database of a server or a replica set."""

    where: str
    library: str
    slack: float = 3.0  # the libraries alone take long to import

    @property
    def url(self) -> str:
        return f"{self.where}{'&' if '?' in self.where else '?'}client={self.library}"

    def waiters(self, experiment: str) -> int:
        from pymongo import MongoClient

        with MongoClient[dict[str, Any]](self.where) as client:
            tickets = client.get_default_database()["lock_waiters"].find()
            return sum(str(ticket["experiment"]) == experiment for ticket in tickets)

    def check(self) -> None:
        pass
