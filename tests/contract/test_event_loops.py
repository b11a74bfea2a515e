"""A storage belongs to one event loop of asyncio: another one is refused while that one runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aiostorage import EventLoopError, Storage, StorageClosedError, Trial, open_storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.track import TrackDriver
from aiostorage.protocols import Driver
from tests.contract.conftest import UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED]

CALLS: list[Callable[[Storage, Any], Awaitable[object]]] = [
    lambda storage, _: storage.open(),
    lambda storage, _: storage.aclose(),
    lambda storage, experiment: storage.reserve_trial(experiment, wait=1),
    lambda storage, experiment: storage.update_experiment(experiment, x=1),
    lambda storage, experiment: storage.fetch_trials(experiment),
    lambda storage, experiment: storage.acquire_algorithm_lock(experiment).__aenter__(),
    lambda storage, experiment: storage.reserved_trial(experiment).__aenter__(),
    lambda storage, experiment: anext(storage.iter_trials(experiment)),
]


def in_another_loop(call: Callable[[], Awaitable[object]]) -> None:
    async def awaited() -> object:
        return await asyncio.wait_for(call(), 5)

    asyncio.run(awaited())


async def refuses(storage: Storage) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    for call in CALLS:
        with pytest.raises(EventLoopError, match="another event loop"):
            await asyncio.to_thread(in_another_loop, lambda c=call: c(storage, experiment))  # type: ignore[misc]
    await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    assert await storage.reserve_trial(experiment) is not None
    await storage.aclose()


async def test_another_loop_is_refused(make_driver: Callable[[], Driver]) -> None:
    await refuses(Storage(make_driver()))


async def test_another_loop_is_refused_on_track(tmp_path: Path) -> None:
    await refuses(Storage(TrackDriver(tmp_path / "tune.json")))


def test_a_loop_that_has_ended_is_not_in_the_way(make_driver: Callable[[], Driver]) -> None:
    storage = Storage(make_driver())

    async def use(name: str) -> int:
        await storage.create_experiment({"name": name})
        return len(await storage.fetch_experiments({}))

    async def use_and_close(name: str) -> int:
        found = await use(name)
        await storage.aclose()
        return found

    assert asyncio.run(use("a")) == 1
    assert asyncio.run(use_and_close("b")) == 2


@pytest.mark.parametrize("engine", ["memory", "sqlite", "track"])
def test_a_loop_that_stopped_amid_a_write(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryDriver, "turn_interval", 0.0)  # else it may not stop amid it
    storage = open_storage("memory://" if engine == "memory" else f"{engine}:///{tmp_path}/tune")
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        await storage.open()
        tasks.append(asyncio.create_task(storage.create_experiment({"name": "a"})))

    async def end() -> None:
        await asyncio.gather(*tasks)

    async def use() -> None:
        assert len(await storage.fetch_experiments({})) == 1
        await storage.aclose()

    loop.run_until_complete(begin())
    with pytest.raises(EventLoopError, match="another event loop"):
        asyncio.run(use())
    loop.run_until_complete(end())
    asyncio.run(use())  # that loop is not closed, but has nothing left to do
    loop.close()


@pytest.mark.parametrize("engine", ["memory", "sqlite", "track"])
def test_two_threads_that_begin_at_once(tmp_path: Path, engine: str) -> None:
    storage = open_storage("memory://" if engine == "memory" else f"{engine}:///{tmp_path}/tune")
    outcomes: list[EventLoopError] = []
    both = threading.Barrier(2)

    async def use() -> None:
        await storage.fetch_experiments({})
        await asyncio.to_thread(both.wait, 10)

    def run() -> None:
        both.wait(10)
        try:
            asyncio.run(use())
        except EventLoopError as error:
            outcomes.append(error)
            both.wait(10)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(outcomes) == 1
    asyncio.run(storage.aclose())


async def test_the_task_that_opens_is_cancelled(make_driver: Callable[[], Driver]) -> None:
    storage = Storage(make_driver())
    first, second = (asyncio.create_task(storage.fetch_experiments({})) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == []
    with suppress(asyncio.CancelledError):
        await first
    await storage.aclose()


async def test_it_is_closed_while_it_opens(make_driver: Callable[[], Driver]) -> None:
    storage = Storage(make_driver())
    opening = asyncio.create_task(storage.open())
    await asyncio.sleep(0)
    await storage.aclose()
    with suppress(StorageClosedError):  # memory opens at once
        await opening
    with pytest.raises(StorageClosedError):
        await storage.fetch_experiments({})


@pytest.mark.parametrize("engine", ["memory", "sqlite", "track"])
def test_trio(tmp_path: Path, engine: str) -> None:
    trio = pytest.importorskip("trio")
    url = "memory://" if engine == "memory" else f"{engine}:///{tmp_path}/tune"

    async def opened() -> None:
        async with open_storage(url):
            pass

    for use in (opened, *(lambda c=c: c(open_storage(url), {"_id": 1}) for c in CALLS[2:])):
        with pytest.raises(EventLoopError, match="asyncio"):
            trio.run(use)
    trio.run(open_storage(url).aclose)
