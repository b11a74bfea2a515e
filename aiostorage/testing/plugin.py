"""Fixtures for tests of code that uses a storage.

Write ``pytest_plugins = ["aiostorage.testing.plugin"]`` into your ``conftest.py``. Asynchronous
tests and fixtures need AnyIO's pytest plugin or another one; these here are not asynchronous.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from aiostorage.testing.mongodb.deployments import Deployment, Deployments, Kind, unavailable
from aiostorage.testing.mongodb.mongod import MongodError
from aiostorage.testing.mongodb.replica_set import ReplicaSet
from aiostorage.testing.mongodb.shared_servers import ServerLifeline, SharedServers

if TYPE_CHECKING:
    from aiostorage._core.storage import Storage
    from aiostorage.testing.faults import FakeClock

__all__ = [
    "aiostorage_memory",
    "anyio_backend",
    "fake_clock",
    "mongodb_database",
    "mongodb_emptied_database",
    "mongodb_replica_set",
    "mongodb_replica_set_3",
    "mongodb_standalone",
    "mongodb_url",
    "pytest_configure_node",
    "pytest_unconfigure",
]

MONGODB: dict[str, Kind] = {
    "mongodb_url": "any",
    "mongodb_standalone": "standalone",
    "mongodb_replica_set": "replica set",
    "mongodb_replica_set_3": "replica set of 3",
}
"""Which fixture gives which deployment."""

SHARED = "aiostorage_mongodb"
"""The addresses of the servers, which the main process of a parallel run passes to its workers."""

_lifeline = pytest.StashKey[ServerLifeline]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let the workers of pytest-xdist share their servers, which end with this process."""
    config: pytest.Config = node.config
    directory = config._tmp_path_factory.getbasetemp() / "mongodb"  # type: ignore[attr-defined]  # noqa: SLF001  there is no public way
    if _lifeline not in config.stash:
        config.stash[_lifeline] = ServerLifeline(directory)
    node.workerinput[SHARED] = str(directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers that the workers shared."""
    if (lifeline := config.stash.get(_lifeline, None)) is not None:
        lifeline.cut()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Have AnyIO's plugin run tests on asyncio, also where Trio is installed.

    A storage needs asyncio. A fixture of the same name in a ``conftest.py`` or a module goes first.
    """
    return "asyncio"


@pytest.fixture
def fake_clock() -> FakeClock:
    """Give a clock that stands still until its `advance` is called."""
    from aiostorage.testing.faults import FakeClock  # noqa: PLC0415  only for those who ask

    return FakeClock()


@pytest.fixture
def aiostorage_memory(fake_clock: FakeClock) -> Storage:
    """Give an empty storage in memory, which goes by `fake_clock` and need not be closed."""
    from aiostorage._core.storage import Storage  # noqa: PLC0415
    from aiostorage.drivers.memory import MemoryDriver  # noqa: PLC0415

    return Storage(MemoryDriver(clock=fake_clock))


@pytest.fixture(scope="session")
def _mongodb_deployments(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployments]:
    """Start the deployments that the fixtures below ask for, and end them with the session."""
    directory = getattr(request.config, "workerinput", {}).get(SHARED)
    shared = None if directory is None else SharedServers(Path(directory))
    deployments = Deployments(tmp_path_factory.mktemp, shared=shared)
    yield deployments
    deployments.close()


@pytest.fixture(scope="session")
def mongodb_standalone(_mongodb_deployments: Deployments) -> Deployment:
    """Give a standalone MongoDB server."""
    try:
        return _mongodb_deployments.get("standalone")
    except MongodError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def mongodb_replica_set(_mongodb_deployments: Deployments) -> Deployment:
    """Give a MongoDB replica set; one that is started for the tests has one member."""
    try:
        return _mongodb_deployments.get("replica set")
    except MongodError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def mongodb_replica_set_3(_mongodb_deployments: Deployments) -> ReplicaSet:
    """Give a MongoDB replica set with three members, which a test may kill.

    A test that does so without `mongodb_database` has to call `heal` at the end.
    """
    try:
        return _mongodb_deployments.replica_set_of_3()
    except MongodError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def mongodb_url(_mongodb_deployments: Deployments) -> str:
    """Give the URL of a MongoDB server of any kind."""
    try:
        return _mongodb_deployments.get("any").url
    except MongodError as error:
        unavailable(error)


@pytest.fixture
def mongodb_database(
    request: pytest.FixtureRequest, _mongodb_deployments: Deployments
) -> Iterator[str]:
    """Give the name of a new database for one test.

    It is dropped afterwards from every deployment that the test asked for by one of the fixtures
    here, and members that the test killed or paused are started or resumed.
    """
    name = f"aiostorage_test_{uuid4().hex[:16]}"
    yield name
    for kind in _kinds_of(request):
        _mongodb_deployments.drop(kind, name)


@pytest.fixture(scope="session")
def _mongodb_run() -> str:
    """Give a name that no other process uses."""
    return f"aiostorage_test_{uuid4().hex[:8]}"


@pytest.fixture
def mongodb_emptied_database(
    request: pytest.FixtureRequest, _mongodb_deployments: Deployments, _mongodb_run: str
) -> str:
    """Give the name of a database that has no documents, but may have collections and indexes.

    All tests of one class, or of one module outside classes, get the same one. Emptying it takes a
    tenth of the time that creating and dropping one takes.

    Raises
    ------
    AssertionError
        It does not stay empty: a test before this one has left a writer behind.
    """
    kinds = _kinds_of(request)
    if not kinds:
        pytest.fail("ask for the fixture of a MongoDB deployment before this one")
    group = request.node.getparent(pytest.Class) or request.node.getparent(pytest.Module)
    name = f"{_mongodb_run}_{md5(group.nodeid.encode(), usedforsecurity=False).hexdigest()[:8]}"
    for kind in kinds:
        try:
            _mongodb_deployments.empty(kind, name)
        except MongodError as error:
            unavailable(error)
    return name


def _kinds_of(request: pytest.FixtureRequest) -> list[Kind]:
    return [kind for fixture, kind in MONGODB.items() if fixture in request.fixturenames]
