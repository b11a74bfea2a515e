"""Lives of one process: ``worker_lifetime.py SCENARIO STORE ...``; each scenario is a function.

The store is a URL, or the path of a SQLite file.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import pickle
import resource
import signal
import sqlite3
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from aiostorage import BackendError, Storage, Trial, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.drivers.sqlite import connection as sqlite_connection
from aiostorage.drivers.sqlite.connection import Connection

BATCH = 100
LEASE = 1.0


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # at once: children share the pipe


def heard() -> str:
    return sys.stdin.readline()


def storage_at(path: str | Path, **options: Any) -> Storage:
    url = str(path)
    return open_storage(url if "://" in url else f"sqlite:///{url}", **options)


async def names(storage: Storage) -> list[str]:
    return sorted([config["name"] for config in await storage.fetch_experiments({})])


async def written(storage: Storage, name: str) -> None:
    """Write an experiment and read it again."""
    await storage.create_experiment({"name": name})
    assert name in await names(storage)


def make_trials(experiment: str | int, numbers: range) -> list[Trial]:
    return [Trial(experiment=experiment, params={"number": n, "text": "x" * 200}) for n in numbers]


# ------------------------------------------------------------------------------------ ends

KEPT: list[Storage] = []
"""Storages that are never closed."""

KEPT_TASKS: list[asyncio.Task[Any]] = []
"""Tasks that are never awaited."""


def unclosed(path: str) -> None:
    KEPT.append(storage_at(path))
    asyncio.run(written(KEPT[0], "unclosed"))


def unclosed_while_waiting(path: str) -> None:
    """Exit while a task waits for a lock, which may be by a change stream."""

    async def main() -> None:
        KEPT.append(storage_at(path))
        experiment = (await KEPT[0].fetch_experiments({}))[0]

        async def hold() -> None:
            async with KEPT[0].acquire_algorithm_lock(experiment):
                held.set()
                await forever()

        async def wait() -> None:
            async with storage_at(path) as storage:
                KEPT.append(storage)
                async with storage.acquire_algorithm_lock(experiment):
                    say("the lock was not held")

        held = asyncio.Event()
        KEPT_TASKS.append(asyncio.create_task(hold()))
        await held.wait()
        KEPT_TASKS.append(asyncio.create_task(wait()))
        while not await CollectionAccess(KEPT[0]).find("lock_waiters", {}):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # it has its ticket, and goes on to wait
        say("waits")

    asyncio.run(main())
    say("over")


def unclosed_while_writing(path: str) -> None:
    """Exit while a thread is inside SQLite."""

    async def main() -> None:
        KEPT.append(storage_at(path, busy_timeout=1.0))
        await written(KEPT[0], "unclosed")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().create_task(KEPT[0].create_experiment({"name": "never"}))
        await asyncio.sleep(0.05)
        sys.exit(3)

    asyncio.run(main())


async def holding(path: str, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Hold the lock of the first experiment, change its state, and do something else."""
    async with storage_at(path, lock_lease=LEASE) as storage:
        experiment = (await storage.fetch_experiments({}))[0]
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.state["changed"] = True
            say("holds")
            await then()


async def forever() -> None:
    await asyncio.Event().wait()


async def leave() -> None:
    sys.exit(7)


async def leave_elsewhere() -> None:
    task = asyncio.create_task(leave())
    await forever()
    await task


def exits(path: str) -> None:
    asyncio.run(holding(path, leave))


def exits_elsewhere(path: str) -> None:
    asyncio.run(holding(path, leave_elsewhere))


def waits(path: str) -> None:
    asyncio.run(holding(path, forever))


def interrupted_and_goes_on(path: str) -> None:
    """Use a storage once more after Ctrl-C has taken its event loop."""
    storage = storage_at(path, lock_lease=LEASE)

    async def hold() -> None:
        experiment = (await storage.fetch_experiments({}))[0]
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.state["changed"] = True
            say("holds")
            await forever()

    async def again() -> None:
        experiment = (await storage.fetch_experiments({}))[0]
        async with storage.acquire_algorithm_lock(experiment, timeout=5) as algorithm:
            say("state", *algorithm.state)
        await storage.aclose()

    try:
        asyncio.run(hold())
    except KeyboardInterrupt:
        asyncio.run(again())


# --------------------------------------------------------------------------- several loops


def two_runs(path: str) -> None:
    storage = storage_at(path)

    async def use(number: int) -> None:
        await asyncio.gather(*(written(storage, f"{number}-{n}") for n in range(10)))
        experiment = (await storage.fetch_experiments({}))[0]

        async def count() -> None:
            async with storage.acquire_algorithm_lock(experiment, timeout=10) as algorithm:
                algorithm.set_state((algorithm.state or 0) + 1)

        await asyncio.gather(*(count() for _ in range(5)))

    for number in range(3):
        asyncio.run(use(number))

    async def end() -> None:
        info = await storage.get_algorithm_lock_info((await storage.fetch_experiments({}))[0])
        assert info is not None
        say("held", info.state)
        await storage.aclose()

    asyncio.run(end())


def two_runs_with_calls_under_way(path: str) -> None:
    """End an event loop while calls are under way, and others wait; then use another one."""
    storage = storage_at(path, busy_timeout=1.0)
    asyncio.run(written(storage, "before"))
    other = sqlite3.connect(path, isolation_level=None)

    async def cut_off(name: str) -> None:
        calls: list[Coroutine[Any, Any, object]] = [
            storage.create_experiment({"name": name}),
            storage.fetch_experiments({}),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.wait(tasks, timeout=0.05)
        KEPT_TASKS.extend(tasks)

    for number in range(3):
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(cut_off(f"cut-{number}"))
        other.execute("COMMIT")
        asyncio.run(written(storage, f"after-{number}"))
    other.close()
    asyncio.run(storage.aclose())
    say("done")


# ------------------------------------------------------------------------------------ forks


def child_of(storage: Storage, name: str, parent_closed: Any) -> None:
    """Use a copy of the parent's storage, also after the parent has closed its own."""

    async def main() -> None:
        await asyncio.gather(*(written(storage, f"{name}-{n}") for n in range(5)))
        say("wrote", name)
        await asyncio.to_thread(parent_closed.wait)
        await asyncio.gather(*(written(storage, f"{name}-late-{n}") for n in range(5)))
        await storage.aclose()

    asyncio.run(main())


def started(method: str, path: str) -> None:
    """Let multiprocessing start two children; close before they do."""
    context: Any = multiprocessing.get_context(method)
    storage = storage_at(path)
    asyncio.run(written(storage, "parent-0"))
    closed = context.Event()
    children = [
        context.Process(target=child_of, args=(storage, f"child{n}", closed)) for n in range(2)
    ]
    for child in children:
        child.start()
    asyncio.run(written(storage, "parent-1"))
    heard()  # both have written
    asyncio.run(written(storage, "parent-2"))
    asyncio.run(storage.aclose())
    closed.set()
    for child in children:
        child.join()
    say("children", *(child.exitcode for child in children))


def forks_while_busy(path: str) -> None:
    """Fork in the middle of everything, again and again."""

    def child(storage: Storage, number: int, closed: int) -> NoReturn:
        async def main() -> None:
            await asyncio.gather(*(written(storage, f"child{number}-{n}") for n in range(5)))
            os.read(closed, 1)  # the end of the pipe: the parent has closed
            await written(storage, f"child{number}-late")
            await storage.aclose()

        code = 1
        try:
            asyncio.run(main())
            code = 0
        finally:
            os._exit(code)

    async def busy(storage: Storage, task: int, stop: asyncio.Event, done: list[str]) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            done.append(f"parent{task}-{number}")
            await written(storage, done[-1])

    async def main() -> list[int]:
        closed, keep = os.pipe()
        stop, done = asyncio.Event(), list[str]()
        async with storage_at(path) as storage:
            tasks = [asyncio.create_task(busy(storage, task, stop, done)) for task in range(8)]
            children = []
            for number in range(6):
                before = len(done)
                while len(done) < before + 10:
                    await asyncio.sleep(0.001)
                pid = os.fork()
                if not pid:
                    os.close(keep)
                    child(storage, number, closed)
                children.append(pid)
            stop.set()
            await asyncio.gather(*tasks)
            assert set(done) <= set(await names(storage))
        os.close(keep)
        os.close(closed)
        return children

    children = asyncio.run(main())
    say("children", *(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))


def unpickled(data: str) -> None:
    storage: Storage = pickle.loads(bytes.fromhex(data))

    async def main() -> None:
        async with storage:
            await written(storage, "unpickled")

    asyncio.run(main())


def adds(path: str, name: str) -> None:
    """Write, tell what is there, and close the file."""

    async def main() -> None:
        async with storage_at(path) as storage:
            await written(storage, name)
            say("sees", *await names(storage))

    asyncio.run(main())


# -------------------------------------------------------------------------------- first opens


def opens(path: str, name: str) -> None:
    """Open files that all the others open at the same moment."""

    async def main(number: int) -> None:
        async with storage_at(f"{path}-{number}") as storage:
            await storage.create_experiment({"name": name})

    say("ready")
    for number in itertools.count():
        if heard() == "end\n":
            return
        asyncio.run(main(number))
        say("opened")


def killed_while_opening(path: str) -> None:
    """Open new files, and be killed at the first step, at the twentieth, and so on."""

    def child(file: str, step: int) -> NoReturn:
        steps = itertools.count(1)

        def kill() -> int:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        class Watched(Connection):
            def _open(self) -> None:
                super()._open()
                self.set_progress_handler(kill, 5)

            def execute(self, sql: Any, parameters: Any = (), /) -> Any:
                kill()
                return super().execute(sql, parameters)

        vars(sqlite_connection)["Connection"] = Watched
        asyncio.run(storage_at(file).open())
        os._exit(0)

    for number, step in enumerate(itertools.count(1, 19)):
        file = f"{path}-{step}"
        pid = os.fork()
        if not pid:
            child(file, step)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        async def check(file: str = file) -> None:
            async with storage_at(file) as storage:
                await written(storage, "after")

        asyncio.run(check())
        if code != -signal.SIGKILL:
            assert code == 0
            say("killed", number)
            return


def opens_slowly(path: str) -> None:
    """Open a file, and pause while looking at what is in it."""

    class Slow(Connection):
        def execute(self, sql: Any, parameters: Any = (), /) -> Any:
            if sql == "PRAGMA user_version" and not paused:
                paused.append(True)
                say("looks")
                heard()
            return super().execute(sql, parameters)

    paused: list[bool] = []
    vars(sqlite_connection)["Connection"] = Slow
    adds(path, "slow")


# --------------------------------------------------------------------------------- disk full


def disk_full(path: str, ballast: str) -> None:
    """Write until the disk is full, and go on when there is room again.

    With a file of ballast, its removal makes room; without, a limit on the size of files is lifted.
    """

    async def main() -> None:
        async with storage_at(path) as storage:
            experiment = await storage.create_experiment({"name": "e"}, algo_state={"n": 0})
            if not ballast:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                sys.dont_write_bytecode = True  # Python 3.11 would leave the half of a module's
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            good = 0
            for batch in itertools.count():
                trials = make_trials(experiment.id, range(batch * BATCH, (batch + 1) * BATCH))
                try:
                    await storage.register_trials(trials)
                except BackendError as error:
                    say("full", type(error).__name__, error)
                    break
                good += 1
            # reading goes on, and shows whole batches
            stored = await storage.fetch_trials(experiment)
            assert stored is not None
            assert len(stored) == good * BATCH
            try:
                async with storage.acquire_algorithm_lock(experiment, timeout=1) as algorithm:
                    algorithm.set_state({"n": os.urandom(500_000)})
            except BackendError as error:
                say("full", type(error).__name__, error)
            if ballast:
                Path(ballast).unlink()
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await storage.register_trials(trials)
            await storage.release_algorithm_lock(experiment)
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                assert algorithm.state == {"n": 0}
            reserved = await asyncio.gather(*(storage.reserve_trial(experiment) for _ in range(9)))
            assert len({trial.id for trial in reserved if trial}) == 9
            logged = await storage.changes_since(experiment, "oldest", limit=10**6)
            kinds = Counter(change.kind for change in logged.changes)
            assert kinds == {"inserted": (good + 1) * BATCH, "reserved": 9}
            say("stored", good + 1)

    asyncio.run(main())


# ------------------------------------------------------------------------------------ readers


def writes(path: str, name: str) -> None:
    """Register, reserve and complete trials until told to end."""

    async def main() -> None:
        async with storage_at(path) as storage:
            experiment = (await storage.fetch_experiments({}))[0]
            end = asyncio.create_task(asyncio.to_thread(heard))
            for number in itertools.count():
                if end.done():
                    return
                params = {"number": f"{name}-{number}"}
                await storage.register_trial(Trial(experiment=experiment["_id"], params=params))
                trial = await storage.reserve_trial(experiment)
                assert trial is not None
                await storage.complete_trial(trial, {"objective": 1.0, "who": name})
                if not number:
                    say("writes")

    asyncio.run(main())


def occupies(path: str, seconds: str) -> None:
    """Keep everybody from writing."""
    connection = sqlite3.connect(path, isolation_level=None)
    say("ready")
    heard()
    connection.execute("BEGIN IMMEDIATE")
    say("occupied")
    time.sleep(float(seconds))
    connection.execute("COMMIT")
    connection.close()


if __name__ == "__main__":
    # Python 3.12 warns of threads, which is what is tested
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    globals()[sys.argv[1]](*sys.argv[2:])
