from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from .support import MongoDBStore, PatientClock, SQLiteStore, Starter, Store, starter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start processes, which end with the test at the latest."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the file that the processes share."""
    return tmp_path / "shared.db"


@pytest.fixture(
    params=[
        "sqlite",
        "motor",
        # PyMongo lets the garbage collector close the sockets that it was about to connect
        pytest.param(
            "pymongo", marks=pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
        ),
    ]
)
def store(request: pytest.FixtureRequest, path: Path) -> Store:
    """Give what the processes share: a file, a server by itself, a replica set."""
    if request.param == "sqlite":
        return SQLiteStore(path)
    pytest.importorskip("pymongo")
    fixture = "mongodb_standalone" if request.param == "motor" else "mongodb_replica_set"
    deployment = request.getfixturevalue(fixture)
    database = request.getfixturevalue("mongodb_emptied_database")
    return MongoDBStore(deployment.url_for(database), request.param)


@pytest.fixture(scope="module")
def stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Store]]:
    """Give the same three at once, each shared by the tests of a module.

    Where there is no MongoDB, which fails in CI, the file is the only one.
    """
    found: list[Store] = [SQLiteStore(tmp_path_factory.mktemp("stores") / "shared.db")]
    urls: list[str] = []
    if find_spec("pymongo") is not None:
        name = f"aiostorage_test_{uuid4().hex[:16]}"
        for fixture, library in (("standalone", "motor"), ("replica_set", "pymongo")):
            try:
                deployment = request.getfixturevalue(f"mongodb_{fixture}")
            except pytest.skip.Exception:
                continue
            urls.append(deployment.url_for(name))
            found.append(MongoDBStore(urls[-1], library))
    yield found
    for url in urls:
        from pymongo import MongoClient

        with MongoClient[dict[str, Any]](url) as client:
            client.drop_database(client.get_default_database().name)


@pytest.fixture(scope="module")
def clock() -> Iterator[PatientClock]:
    """Give a clock that stands still while the machine has no time for us."""
    clock = PatientClock()
    yield clock
    clock.close()


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """Give an event loop for what several threads want of storages."""
    with start_blocking_portal() as portal:
        yield portal
