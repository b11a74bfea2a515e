"""Fixtures for tests of code that uses a storage; pytest loads them where aiostorage is installed.

They work with AnyIO's pytest plugin and with pytest-asyncio. Nothing of aiostorage is imported
before a test asks for one of them, which is why this module is outside the package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from aiostorage import Storage
    from aiostorage.testing.mongodb.deployments import Deployments
    from aiostorage.testing.state import StorageState

__all__ = [
    "aiostorage",
    "aiostorage_mongodb",
    "aiostorage_sqlite",
    "pytest_configure",
    "storage_state",
]


@pytest.fixture
def aiostorage(request: pytest.FixtureRequest) -> Storage:
    """Give an empty storage in memory, open until the end of the test.

    In a test that is not asynchronous it is not opened yet, and so are those below.
    """
    return _storage(request, "aiostorage")


@pytest.fixture
def aiostorage_sqlite(request: pytest.FixtureRequest) -> Storage:
    """Give an empty storage in a SQLite file of this test."""
    return _storage(request, "aiostorage_sqlite")


@pytest.fixture
def aiostorage_mongodb(request: pytest.FixtureRequest) -> Storage:
    """Give an empty storage in a MongoDB database of this test, which is dropped afterwards.

    The server is the one that the variable ``AIOSTORAGE_TEST_MONGODB`` names, or one that is
    started for the tests. Without either, the test is skipped; in CI (``CI=true``), it fails.
    """
    return _storage(request, "aiostorage_mongodb")


@pytest.fixture
def storage_state() -> type[StorageState]:
    """Give `aiostorage.testing.StorageState`, which makes storages with something in them."""
    from aiostorage.testing.state import StorageState  # noqa: PLC0415  only for those who ask

    return StorageState


def pytest_configure(config: pytest.Config) -> None:
    """Add what opens storages under pytest-asyncio, if that is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio  # noqa: PLC0415  it is loaded already

        async def opened(
            _aiostorage_made: dict[str, Storage],
        ) -> AsyncIterator[dict[str, Storage]]:
            async with _open(_aiostorage_made):
                yield _aiostorage_made

        plugin = ModuleType("aiostorage_asyncio")
        vars(plugin)["opened"] = pytest_asyncio.fixture(name="_aiostorage_by_asyncio")(opened)
        config.pluginmanager.register(plugin, "aiostorage-asyncio")


def _storage(request: pytest.FixtureRequest, name: str) -> Storage:
    storages: dict[str, Storage] = request.getfixturevalue(_opener(request))
    return storages[name]


def _opener(request: pytest.FixtureRequest) -> str:
    """Return the fixture that has the storages of a test, by the plugin that runs the test."""
    asyncio = request.config.pluginmanager.hasplugin("aiostorage-asyncio")
    if asyncio and request.node.get_closest_marker("asyncio") is not None:
        return "_aiostorage_by_asyncio"
    if "anyio_backend" not in request.fixturenames:
        return "_aiostorage_made"
    if request.getfixturevalue("anyio_backend_name") != "asyncio":
        pytest.skip("a storage needs asyncio: let a fixture `anyio_backend` return it")
    return "_aiostorage_by_anyio"


@pytest.fixture
def _aiostorage_made(request: pytest.FixtureRequest) -> dict[str, Storage]:
    """Make the storages that a test asks for."""
    return {name: make(request) for name, make in _MAKERS.items() if name in request.fixturenames}


@asynccontextmanager
async def _open(storages: dict[str, Storage]) -> AsyncIterator[None]:
    """Open storages, and close them after the test."""
    async with AsyncExitStack() as stack:
        for storage in storages.values():
            await stack.enter_async_context(storage)
        yield


@pytest.fixture
async def _aiostorage_by_anyio(
    _aiostorage_made: dict[str, Storage],
) -> AsyncIterator[dict[str, Storage]]:
    async with _open(_aiostorage_made):
        yield _aiostorage_made


def _in_memory(_: pytest.FixtureRequest) -> Storage:
    from aiostorage import open_storage  # noqa: PLC0415  only for those who ask

    return open_storage("memory://")


def _on_sqlite(request: pytest.FixtureRequest) -> Storage:
    from aiostorage import open_storage  # noqa: PLC0415  as above

    directory: Path = request.getfixturevalue("tmp_path")
    return open_storage(f"sqlite:///{directory / 'aiostorage.db'}")


def _on_mongodb(request: pytest.FixtureRequest) -> Storage:
    from aiostorage import open_storage  # noqa: PLC0415  as above

    return open_storage(request.getfixturevalue("_aiostorage_mongodb_url"))


_MAKERS: Mapping[str, Callable[[pytest.FixtureRequest], Storage]] = {
    "aiostorage": _in_memory,
    "aiostorage_sqlite": _on_sqlite,
    "aiostorage_mongodb": _on_mongodb,
}


@pytest.fixture
def _aiostorage_mongodb_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a new database for one test."""
    from aiostorage.testing.mongodb.deployments import unavailable  # noqa: PLC0415  as above
    from aiostorage.testing.mongodb.mongod import MongodError  # noqa: PLC0415

    shared = request.config.pluginmanager.hasplugin("aiostorage.testing.plugin")
    fixture = "_mongodb_deployments" if shared else "_aiostorage_deployments"
    deployments: Deployments = request.getfixturevalue(fixture)
    name = f"aiostorage_test_{uuid4().hex[:16]}"
    try:
        url = deployments.get("any").url_for(name)
    except MongodError as error:
        unavailable(error)
    yield url
    deployments.drop("any", name)


@pytest.fixture(scope="session")
def _aiostorage_deployments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    """Start a server when it is asked for, and end it with the session."""
    from aiostorage.testing.mongodb.deployments import Deployments  # noqa: PLC0415  as above

    deployments = Deployments(tmp_path_factory.mktemp)
    yield deployments
    deployments.close()
