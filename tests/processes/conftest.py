from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import MongoDBStore, SQLiteStore, Starter, Store, starter


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
    database = request.getfixturevalue("mongodb_database")
    return MongoDBStore(request.getfixturevalue(fixture).url_for(database), request.param)
