"""The contract on MongoDB: both client libraries, a standalone server and a replica set.

The contract of a storage runs on two of the four pairs, that of a driver on all.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from aiostorage import Storage, open_storage
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.protocols import AsyncStorageProtocol, Driver
from aiostorage.testing import Deployment, DriverContract, StorageContract
from aiostorage.testing.contract.facade import FacadeContract
from tests.mongo.conftest import UNCLOSED

pytestmark = [UNCLOSED, pytest.mark.usefixtures("sockets_collected")]

Library = Literal["motor", "pymongo"]


class OnMongoDB:
    resolution = timedelta(milliseconds=1)
    url: str
    library: Library


class OnStandalone(OnMongoDB):
    @pytest.fixture(autouse=True)
    def fixture_url(self, mongodb_standalone: Deployment, mongodb_emptied_database: str) -> None:
        self.url = mongodb_standalone.url_for(mongodb_emptied_database)


class OnReplicaSet(OnMongoDB):
    @pytest.fixture(autouse=True)
    def fixture_url(self, mongodb_replica_set: Deployment, mongodb_emptied_database: str) -> None:
        self.url = mongodb_replica_set.url_for(mongodb_emptied_database)


class MongoDBStorageContract(OnMongoDB, StorageContract):
    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        storage: Storage = open_storage(self.url, client=self.library, **settings)
        await storage.open()
        return storage


class TestStorageMotorStandalone(OnStandalone, MongoDBStorageContract):
    library = "motor"


class TestStoragePymongoReplicaSet(OnReplicaSet, MongoDBStorageContract):
    library = "pymongo"


class TestFacadePymongoReplicaSet(OnReplicaSet, FacadeContract):
    library = "pymongo"
    large_state = 1 << 20

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return open_storage(self.url, client=self.library, **settings)


class MongoDBDriverContract(OnMongoDB, DriverContract):
    def make_driver(self, tmp_path: Path) -> Driver:
        return MongoDBDriver(self.url, client=self.library)


class TestDriverMotorStandalone(OnStandalone, MongoDBDriverContract):
    library = "motor"
    condition_seeds = range(5)


class TestDriverMotorReplicaSet(OnReplicaSet, MongoDBDriverContract):
    library = "motor"
    condition_seeds = range(5, 10)


class TestDriverPymongoStandalone(OnStandalone, MongoDBDriverContract):
    library = "pymongo"
    condition_seeds = range(10, 15)


class TestDriverPymongoReplicaSet(OnReplicaSet, MongoDBDriverContract):
    library = "pymongo"
    condition_seeds = range(15, 20)
