"""The engines that the suites here run on."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock
from aiostorage.testing.faults import Fault

ENGINES = ["memory", "sqlite", "motor", "pymongo"]

ONE_CLIENT = pytest.mark.parametrize("make_driver", ["memory", "sqlite", "motor"], indirect=True)
"""The mark of a test of what a query finds: the clients of MongoDB send the same one.

`DriverContract` runs on both of them, and on both kinds of deployment.
"""

FAULTS: dict[str, tuple[Fault, ...]] = {
    "memory": ("before", "lost", "after"),
    "sqlite": ("lost", "after"),
    "motor": ("lost", "after"),
    "pymongo": ("after",),
}

# PyMongo lets the garbage collector close the sockets that it was about to connect
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""The mark of a module whose tests use `make_driver`."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def make_clocked_driver(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Callable[[], Driver]:
    """Give a function that makes drivers of the same store, which go by the clock."""
    one = MemoryDriver(clock=clock)
    if request.param == "memory":
        return lambda: one
    return lambda: SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL", clock=clock)


@pytest.fixture(scope="module")
def sockets_collected() -> Iterator[None]:
    """Have the sockets collected here, and not where that disturbs another module."""
    yield
    gc.collect()


@pytest.fixture(params=ENGINES)
def make_driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    """Give a function that makes drivers of the same store.

    On MongoDB, the tests of a module share a database, and each library has another kind of
    deployment.
    """
    match request.param:
        case "memory":
            one = MemoryDriver()
            yield lambda: one
        case "sqlite":
            yield lambda: SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL")
        case library:
            pytest.importorskip("pymongo")
            from aiostorage.drivers.mongodb import MongoDBDriver, shared_clients

            request.getfixturevalue("sockets_collected")
            fixture = "mongodb_standalone" if library == "motor" else "mongodb_replica_set"
            deployment = request.getfixturevalue(fixture)
            url = deployment.url_for(request.getfixturevalue("mongodb_emptied_database"))
            options: dict[str, Any] = {"client": library}
            yield lambda: MongoDBDriver(url, **options)
            assert not shared_clients._clients, "connections were left open"


@pytest.fixture
def kinds(request: pytest.FixtureRequest) -> tuple[Fault, ...]:
    """Give the kinds of failures that the engine of `make_driver` has to be shown with.

    No engine knows of a call that failed before, so memory speaks for all. After a request that got
    lost, an engine only says that the results are not there; on MongoDB one deployment speaks for
    both. It is the one without transactions, where operations may have happened in part.
    """
    return FAULTS[request.node.callspec.params["make_driver"]]
