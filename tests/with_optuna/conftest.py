"""Storages for Optuna on each engine."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from aiostorage import SyncStorage, open_storage

if TYPE_CHECKING:
    import optuna

    from aiostorage.optuna import OptunaStorage

CI = os.environ.get("CI", "").lower() in ("1", "true")

if find_spec("optuna") is None and not CI:
    collect_ignore_glob = ["test_*.py"]  # they cannot even be imported

# PyMongo lets the garbage collector close the sockets that it was about to connect
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ENGINES = [
    "memory",
    "sqlite",
    "track",
    pytest.param("mongodb_standalone", marks=UNCLOSED),
    pytest.param("mongodb_replica_set", marks=UNCLOSED),
]


@pytest.fixture(scope="module")
def sockets_collected() -> Iterator[None]:
    """Have the sockets collected here, and not where that disturbs another module."""
    yield
    gc.collect()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty store on each engine; on MongoDB the tests share a database."""
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"
        case "track":
            return f"track:///{tmp_path}/store.json"
        case fixture:
            pytest.importorskip("pymongo")
            request.getfixturevalue("sockets_collected")
            deployment = request.getfixturevalue(fixture)
            return str(deployment.url_for(request.getfixturevalue("mongodb_emptied_database")))


@pytest.fixture(scope="module")
def facades() -> Iterator[dict[str, SyncStorage]]:
    """Keep the connections to MongoDB servers open between tests."""
    kept: dict[str, SyncStorage] = {}
    yield kept
    for facade in kept.values():
        facade.close()


@pytest.fixture
def storage(url: str, facades: dict[str, SyncStorage]) -> Iterator[OptunaStorage]:
    """Give an empty storage on each engine."""
    from aiostorage.optuna import OptunaStorage

    facade = facades.get(url) or SyncStorage(open_storage(url), in_running_loop=True)
    if url.startswith("mongodb:"):
        facades[url] = facade
    yield OptunaStorage(facade)
    if url not in facades:
        facade.close()


@pytest.fixture
def pair(url: str, storage: OptunaStorage) -> Iterator[tuple[OptunaStorage, OptunaStorage]]:
    """Give two storages that share the store and nothing else; in memory, the connection, too."""
    from aiostorage.optuna import OptunaStorage

    if url == "memory://":
        yield storage, OptunaStorage(storage._storage)
        return
    with SyncStorage(open_storage(url), in_running_loop=True) as facade:
        yield storage, OptunaStorage(facade)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Give the URL of an empty store in a file."""
    return f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"


@pytest.fixture
async def study(file: str) -> AsyncIterator[optuna.Study]:
    """Give an empty study in that file."""
    import optuna

    from aiostorage.optuna import OptunaStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = OptunaStorage(file)
    sampler = optuna.samplers.RandomSampler(seed=1)
    yield await anyio.to_thread.run_sync(
        lambda: optuna.create_study(storage=storage, study_name="tune", sampler=sampler)
    )
    await anyio.to_thread.run_sync(storage.close)
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def on_file(file: str) -> Iterator[OptunaStorage]:
    """Give a storage on that file."""
    yield from _opened(file)


@pytest.fixture
def other(file: str) -> Iterator[OptunaStorage]:
    """Stand for another process: it shares nothing but the file."""
    yield from _opened(file)


def _opened(url: str) -> Iterator[OptunaStorage]:
    from aiostorage.optuna import OptunaStorage

    made = OptunaStorage(url)
    yield made
    made.close()
