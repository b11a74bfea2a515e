"""Count the files that a call passes through: how far a reader has to jump to follow it.

    python tools/call_path.py [URL]

Prints, for three calls through the facade, how many functions were entered in how many files of the
package, how often the next one was in another file (moves), and how often that file had been left
before (returns). A suspended coroutine counts as entered when it is resumed, and so do all that
await it: a chain of `async def` that only pass a call on is seen here.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import aiostorage
from aiostorage import SyncStorage, Trial, open_storage
from aiostorage.drivers.sqlite import short_calls

PACKAGE = str(Path(aiostorage.__file__).parent)

RUNS = 8
"""How often the paths on new files are recorded."""


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

    def __str__(self) -> str:
        return (
            f"{len(self.files)} calls, {len(set(self.files))} files, "
            f"{self.moves} moves, {self.returns} returns"
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
            if name.startswith(PACKAGE):
                self._files.append(name)


def call_paths(url: str) -> dict[str, CallPath]:
    """Return the paths of a reservation, a completion, and a lock that saves a state."""
    vars(short_calls)["MAX_BLOCKING_SECONDS"] = math.inf  # whatever time the recording takes
    recorder = Recorder()
    with SyncStorage(open_storage(url)) as storage:
        experiment = storage.create_experiment({"name": "path"})
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


def shortest_paths() -> dict[str, CallPath]:
    """Return the paths on new SQLite files, each the one with the fewest moves of some runs.

    Where two threads happen to run at the same time, the path seems to move between their files.
    """
    found = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as directory:
            found.append(call_paths(f"sqlite:///{directory}/path.db"))
    return {
        name: min((one[name] for one in found), key=lambda path: path.moves) for name in found[0]
    }


def main() -> None:
    """Print the paths on the storage that is named, or on a new SQLite file."""
    paths = call_paths(sys.argv[1]) if len(sys.argv) > 1 else shortest_paths()
    for name, path in paths.items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
