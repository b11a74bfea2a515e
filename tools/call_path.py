"""Count the files that a call passes through: how far a reader has to jump to follow it.

    python tools/call_path.py [--url URL | --mongodb]

Prints, for three calls through the facade, how many functions were entered in how many files of the
package, how often the next one was in another file (moves), and how often that file had been left
before (returns); then how many of the moves were between two files of the engine. A suspended
coroutine counts as entered when it is resumed, and so do all that await it: a chain of `async def`
that only pass a call on is seen here.

The calls are made on a new SQLite file, with ``--url`` on any other store, with ``--mongodb`` on
servers that are started for it, by both client libraries. In a store that is named they make an
experiment for a moment. Each path is the shortest of many: two threads that run at the same time
make a path seem longer, never shorter.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import aiostorage
from aiostorage import SyncStorage, Trial, open_storage
from aiostorage.drivers.sqlite import short_calls
from aiostorage.testing.mongodb.deployments import Deployments, Kind

PACKAGE: Final = str(Path(aiostorage.__file__).parent)
ENGINES: Final = str(Path(PACKAGE, "drivers"))

REPETITIONS: Final = 25
"""How often each call is recorded; the first time, what it needs is imported and compiled."""

ASIDE: Final = frozenset({short_calls.ShortCalls._has_turned.__code__})  # noqa: SLF001  to know it
"""Functions that the event loop calls between two calls, sooner or later."""

MONGODB: Final[tuple[Kind, ...]] = ("standalone", "replica set")
CLIENTS: Final = ("motor", "pymongo")


@dataclass(frozen=True)
class CallPath:
    """The files of the package in which functions were entered, one after the other."""

    files: list[str]

    @property
    def moves(self) -> int:
        """How often the next function was in another file."""
        return sum(one != other for one, other in zip(self.files, self.files[1:], strict=False))

    @property
    def returns(self) -> int:
        """How many of the moves led to a file that had been left before."""
        entered: set[str] = set()
        count = 0
        for one, other in zip(self.files, self.files[1:], strict=False):
            entered.add(one)
            count += one != other and other in entered
        return count

    @property
    def engine_moves(self) -> int:
        """How many of the moves were between two files of the engine."""
        return sum(
            one != other and one.startswith(ENGINES) and other.startswith(ENGINES)
            for one, other in zip(self.files, self.files[1:], strict=False)
        )

    def __str__(self) -> str:
        return (
            f"{len(self.files)} calls, {len(set(self.files))} files, "
            f"{self.moves} moves, {self.returns} returns, {self.engine_moves} moves in the engine"
        )


class Recorder:
    """Records the path of a call through all threads that start after it."""

    def __init__(self) -> None:
        self._files: list[str] | None = None
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def path_of(self, call: Callable[[], object]) -> CallPath:
        """Return the path of a call."""
        files = self._files = []
        try:
            call()
        finally:
            self._files = None
        return CallPath(files)

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if self._files is not None and event == "call":
            name = frame.f_code.co_filename
            if name.startswith(PACKAGE) and frame.f_code not in ASIDE:
                self._files.append(name)


def call_paths(url: str) -> dict[str, CallPath]:
    """Return the paths of a reservation, a completion, and a lock that saves a state."""
    vars(short_calls)["MAX_BLOCKING_SECONDS"] = math.inf  # whatever time the recording takes
    recorder = Recorder()
    with SyncStorage(open_storage(url)) as storage:
        found = [_paths_once(storage, recorder) for _ in range(REPETITIONS)]
    return {
        name: min((one[name] for one in found), key=lambda path: path.moves) for name in found[0]
    }


def _paths_once(storage: SyncStorage, recorder: Recorder) -> dict[str, CallPath]:
    experiment = storage.create_experiment({"name": f"path {uuid.uuid4()}"})
    try:
        storage.register_trials([Trial(experiment=experiment.id, params={"x": x}) for x in (1, 2)])
        reserved: list[Trial] = []

        def reserve() -> None:
            reserved.extend(storage.reserve_trials(experiment, 1))

        storage.complete_trial(storage.reserve_trials(experiment, 1)[0], 1.0)

        def lock() -> None:
            with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state({"n": 1})

        return {
            "reserve_trial": recorder.path_of(reserve),
            "complete_trial": recorder.path_of(lambda: storage.complete_trial(reserved[0], 1.0)),
            "acquire_algorithm_lock": recorder.path_of(lock),
        }
    finally:
        storage.delete_experiment(experiment)


def sqlite_paths() -> dict[str, CallPath]:
    """Return the paths on a new SQLite file."""
    with tempfile.TemporaryDirectory() as directory:
        return call_paths(f"sqlite:///{directory}/path.db")


def mongodb_paths() -> Iterator[tuple[str, dict[str, CallPath]]]:
    """Yield the paths on servers of MongoDB, each with the kind of server and the client."""
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(Deployments(Path(directory).joinpath)) as deployments,
    ):
        for kind in MONGODB:
            for client in CLIENTS:
                database = f"path_{uuid.uuid4().hex[:12]}"
                url = deployments.get(kind).url_for(database)
                url += f"{'&' if '?' in url else '?'}client={client}"
                try:
                    yield f"{kind}, {client}", call_paths(url)
                finally:
                    deployments.drop(kind, database)


def main() -> None:
    """Print the paths that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="the store on which calls are made")
    where.add_argument("--mongodb", action="store_true", help="start servers of MongoDB")
    arguments = parser.parse_args()
    if arguments.mongodb:
        for title, paths in mongodb_paths():
            print(f"{title}:")
            show(paths)
    else:
        show(call_paths(arguments.url) if arguments.url else sqlite_paths())


def show(paths: dict[str, CallPath]) -> None:
    """Print paths, a line for each."""
    for name, path in paths.items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
