"""Storages that are never closed: ``worker_abandoned.py SCENARIO URL COUNT``.

Each scenario uses so many storages, and says what is left of them: descriptors, threads, and the
warnings that there were.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiostorage import DuplicateKeyError, Storage, SyncStorage, Trial, open_storage

THREAD_TIMEOUT = 10.0
"""Seconds that threads have to end on a machine that has much else to do."""

MAX_LEFT = 3
"""How many threads and descriptors may come and go by themselves."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def counted() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


async def use(storage: Storage) -> None:
    """Write, read by every connection that there is, hold the lock, and wait for a change."""
    experiment = await storage.create_experiment({"name": os.urandom(8).hex()})
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": x}) for x in (1, 2)]
    )
    async with storage.reserved_trial(experiment) as trial:
        assert trial is not None
        await storage.complete_trial(trial, 1.0)
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state(1)
    seen = [trial async for trial in storage.iter_trials(experiment, batch_size=1)]
    await asyncio.gather(*(storage.fetch_trials(experiment) for _ in range(3)))
    assert len(seen) == 2


async def only_read(url: str) -> None:
    await open_storage(url).fetch_experiments({})


async def drop(url: str) -> None:
    await use(open_storage(url))


async def drop_a_cycle(url: str) -> None:
    storage: Any = open_storage(url)
    storage.itself = storage
    await use(storage)


async def drop_after_an_error(url: str) -> None:
    storage, name = open_storage(url), os.urandom(8).hex()
    await storage.create_benchmark({"name": name})
    with suppress(DuplicateKeyError):
        await storage.create_benchmark({"name": name})


async def only_open(url: str) -> None:
    await open_storage(url).open()


def in_loops_of_their_own(url: str, count: int, body: Callable[[str], Any] = drop) -> None:
    for _ in range(count):
        asyncio.run(body(url))


def only_read_in_loops(url: str, count: int) -> None:
    in_loops_of_their_own(url, count, only_read)


def only_open_in_loops(url: str, count: int) -> None:
    in_loops_of_their_own(url, count, only_open)


def in_cycles(url: str, count: int) -> None:
    in_loops_of_their_own(url, count, drop_a_cycle)


def after_errors(url: str, count: int) -> None:
    in_loops_of_their_own(url, count, drop_after_an_error)


def in_one_loop(url: str, count: int) -> None:
    """In a loop that goes on."""

    async def main() -> None:
        for _ in range(count):
            await drop(url)
        gc.collect()

    asyncio.run(main())


def in_loops_that_are_not_run(url: str, count: int) -> None:
    """Each loop is closed when its storage is still there."""
    for _ in range(count):
        loop = asyncio.new_event_loop()
        storage = open_storage(url)
        loop.run_until_complete(use(storage))
        loop.close()
        del storage


def facades(url: str, count: int) -> None:
    for _ in range(count):
        SyncStorage(open_storage(url)).create_experiment({"name": os.urandom(8).hex()})


def main(scenario: Callable[[str, int], None], url: str, count: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scenario(url, 2)  # what is made once
        counted_at_rest(counted())
        caught.clear()
        before = counted()
        scenario(url, count)
        after = counted_at_rest(before)
    ours = [w for w in caught if "was not closed" in str(w.message)]
    others = [str(w.message) for w in caught if w not in ours]
    assert all(w.category is ResourceWarning for w in ours), ours
    say("left", *(now - then for now, then in zip(after, before, strict=True)))
    say("warned", len(ours), *others)


def counted_at_rest(before: tuple[int, int]) -> tuple[int, int]:
    """Wait until no more is left than there was before; return what is left."""
    end = time.monotonic() + THREAD_TIMEOUT
    while True:
        gc.collect()
        after = counted()
        few = all(now - then <= MAX_LEFT for now, then in zip(after, before, strict=True))
        if few or time.monotonic() > end:
            return after
        time.sleep(0.02)


if __name__ == "__main__":
    main(globals()[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
