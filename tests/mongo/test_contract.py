"""The contract on MongoDB: both client libraries, a standalone server and a replica set."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aiostorage import Storage, open_storage
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.protocols import AsyncStorageProtocol, Driver
from aiostorage.testing import Deployment, DriverContract, StorageContract
from aiostorage.testing.contract.facade import FacadeContract

MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def standalone_url(mongodb_standalone: Deployment, mongodb_database: str) -> str:
    return mongodb_standalone.url_for(mongodb_database)


@pytest.fixture
def replica_set_url(mongodb_replica_set: Deployment, mongodb_database: str) -> str:
    return mongodb_replica_set.url_for(mongodb_database)


class _OnStandalone:
    url: ClassVar[str]

    @pytest.fixture(autouse=True)
    def given(self, standalone_url: str) -> None:
        type(self).url = standalone_url


class _OnReplicaSet:
    url: ClassVar[str]

    @pytest.fixture(autouse=True)
    def given(self, replica_set_url: str) -> None:
        type(self).url = replica_set_url


class _Storage(StorageContract):
    url: ClassVar[str]
    library = "motor"
    resolution = MILLISECOND

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        storage: Storage = open_storage(self.url, client=self.library, **settings)
        await storage.open()
        return storage


class TestMotorStandalone(_OnStandalone, _Storage): ...


class TestMotorReplicaSet(_OnReplicaSet, _Storage): ...


class TestPymongoStandalone(_OnStandalone, _Storage):
    library = "pymongo"


class TestPymongoReplicaSet(_OnReplicaSet, _Storage):
    library = "pymongo"


class _Facade(FacadeContract):
    url: ClassVar[str]
    library = "motor"
    resolution = MILLISECOND

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return open_storage(self.url, client=self.library, **settings)


class TestFacadeMotorReplicaSet(_OnReplicaSet, _Facade): ...


class TestFacadePymongoStandalone(_OnStandalone, _Facade):
    library = "pymongo"


class _Driver(DriverContract):
    url: ClassVar[str]
    library: Any = "motor"
    resolution = MILLISECOND

    def make_driver(self, tmp_path: Path) -> Driver:
        return MongoDBDriver(self.url, client=self.library)


class TestDriverMotorStandalone(_OnStandalone, _Driver): ...


class TestDriverMotorReplicaSet(_OnReplicaSet, _Driver): ...


class TestDriverPymongoStandalone(_OnStandalone, _Driver):
    library = "pymongo"


class TestDriverPymongoReplicaSet(_OnReplicaSet, _Driver):
    library = "pymongo"
