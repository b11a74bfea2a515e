"""Rules for every test: one event loop, no call that blocks it, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import coverage
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

pytest_plugins = ["aiostorage.testing.plugin"]

# on a machine that is busy nothing is too slow
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A background job of a shell ignores SIGINT, one of nohup SIGHUP, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # the tests go on, and their children do not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_task_left")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the tests themselves, and what they have imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_blocking_call() -> Iterator[BlockBuster]:
    """Fail a test that blocks an event loop."""
    _keep_the_lock_of_coverage()
    with blockbuster_ctx() as detector:
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            lock = detector.functions[name]
            # blocks its event loop on purpose, so that a lease runs out
            lock.can_block_in("testing/contract/lock_loss_laws.py", {"stall"})
        for function in detector.functions.values():
            # in the event loop of a facade, whose one caller waits
            function.can_block_in("drivers/sqlite/driver.py", {"_read"})
            function.can_block_in("drivers/sqlite/group_commit.py", {"write"})
        # PyMongo checks whether it is in a container when it opens its connections
        stat = detector.functions["os.stat"]
        stat.can_block_in("pymongo/pool_options.py", {"get_container_env_info"})
        for function in detector.functions.values():
            # the standard library's module of that name may block; MLflow brings this one
            package = {"children", "lookup", "mtime", "read_text", "search", "zip_children"}
            function.can_block_in("importlib_metadata/__init__.py", package)
        yield detector


def _keep_the_lock_of_coverage() -> None:
    """Let the tracers of coverage, one for each thread, wait for each other unseen.

    The tracer of a thread that starts later takes the methods of their lock; so it is given those
    that the lock has before the detector replaces them.
    """
    measuring = coverage.Coverage.current()
    collector = getattr(measuring, "_collector", None)
    lock = getattr(collector, "data_lock", None)
    if collector is not None and lock is not None:
        methods = SimpleNamespace(acquire=lock.acquire, release=lock.release)
        vars(collector)["data_lock"] = methods


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a connection open."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if "_connection_worker_thread" in thread.name:
            thread.join(2)  # it may be about to end
            assert not thread.is_alive(), f"a SQLite connection was left open: {thread.name}"


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail an async test that leaves a task running."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if "TestRunner." not in repr(task)}
    if left:
        await asyncio.wait(left, timeout=1)  # they may be about to end
        left = {task for task in left if not task.done()}
    assert not left, f"tasks were left running: {left}"
