"""Fixtures for tests of code that uses a storage.

Write ``pytest_plugins = ["aiostorage.testing.plugin"]`` into your ``conftest.py``. Asynchronous
tests and fixtures need AnyIO's pytest plugin or another one; these here are not asynchronous.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn
from uuid import uuid4

import pytest

from aiostorage.testing.mongodb.deployments import VARIABLE, Deployment, Deployments, Kind
from aiostorage.testing.mongodb.mongod import MongodError, MongodMissing
from aiostorage.testing.mongodb.replica_set import ReplicaSet

if TYPE_CHECKING:
    from aiostorage._core.storage import Storage
    from aiostorage.testing.faults import FakeClock

__all__ = [
    "aiostorage_memory",
    "fake_clock",
    "mongodb_database",
    "mongodb_replica_set",
    "mongodb_replica_set_3",
    "mongodb_standalone",
    "mongodb_url",
]

MONGODB: dict[str, Kind] = {
    "mongodb_url": "any",
    "mongodb_standalone": "standalone",
    "mongodb_replica_set": "replica set",
    "mongodb_replica_set_3": "replica set of 3",
}
"""Which fixture gives which deployment."""


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
def _mongodb_deployments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    """Start what the fixtures below ask for, and end it with the session."""
    deployments = Deployments(tmp_path_factory.mktemp)
    yield deployments
    deployments.close()


@pytest.fixture(scope="session")
def mongodb_standalone(_mongodb_deployments: Deployments) -> Deployment:
    """Give a standalone MongoDB server."""
    try:
        return _mongodb_deployments.get("standalone")
    except MongodError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def mongodb_replica_set(_mongodb_deployments: Deployments) -> Deployment:
    """Give a MongoDB replica set; one that is started for it has one member."""
    try:
        return _mongodb_deployments.get("replica set")
    except MongodError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def mongodb_replica_set_3(_mongodb_deployments: Deployments) -> ReplicaSet:
    """Give a MongoDB replica set with three members, which a test may kill.

    Who does so without `mongodb_database` calls `heal` in the end.
    """
    try:
        return _mongodb_deployments.replica_set_of_3()
    except MongodError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def mongodb_url(_mongodb_deployments: Deployments) -> str:
    """Give the URL of a MongoDB server, whatever its kind is."""
    try:
        return _mongodb_deployments.get("any").url
    except MongodError as error:
        _unavailable(error)


@pytest.fixture
def mongodb_database(
    request: pytest.FixtureRequest, _mongodb_deployments: Deployments
) -> Iterator[str]:
    """Give the name of a database that is there for one test.

    It is dropped afterwards from every deployment that the test asked for by one of the fixtures
    here, and members that the test killed or paused are brought back.
    """
    name = f"aiostorage_test_{uuid4().hex[:16]}"
    yield name
    for fixture, kind in MONGODB.items():
        if fixture in request.fixturenames:
            _mongodb_deployments.drop(kind, name)


def _unavailable(error: MongodError) -> NoReturn:
    """Skip what needs a server where there is none; fail if there has to be one."""
    ci = os.environ.get("CI", "").lower() in ("1", "true")
    if isinstance(error, MongodMissing) and not ci:
        pytest.skip(f"{error}; or set {VARIABLE} to the URL of one that runs")
    pytest.fail(str(error), pytrace=False)
