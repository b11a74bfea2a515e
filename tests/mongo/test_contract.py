"""The contract on MongoDB: both client libraries, a standalone server and a replica set.

Both contracts run on two of the four pairs, so that each library and each kind of server has all
of it. What a library does differently on one kind of server is how it runs transactions, waits for
changes and gives up: those laws run on the other two pairs as well. The facade is the same on each
engine, and has its whole contract elsewhere; here it is tested where connections belong to an event
loop in another thread.
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
from aiostorage.testing.contract.driver import DriverFixtures
from aiostorage.testing.contract.driver_laws import ChangeLaws, DriverLifetimeLaws, TransactionLaws
from aiostorage.testing.contract.facade import OpensFacade
from aiostorage.testing.contract.lifetime_laws import StorageLifetimeLaws
from aiostorage.testing.contract.lock_laws import LockLaws
from aiostorage.testing.contract.reservation_laws import ReservationLaws
from aiostorage.testing.contract.trial_laws import IterationLaws
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
    """With a history where that is the subject, else without, as a busy server may be used.

    Logged changes of all kinds are made on a server by itself in the tests of faults as well.
    """

    library = "motor"

    @pytest.fixture(autouse=True)
    def fixture_history(self, request: pytest.FixtureRequest) -> None:
        self.without = {} if "needs_log" in request.fixturenames else {"history": "off"}

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        return await super().open_storage(tmp_path, **self.without, **settings)


class TestStoragePymongoReplicaSet(OnReplicaSet, MongoDBStorageContract):
    library = "pymongo"


class TestFacadePymongoReplicaSet(
    OnReplicaSet, ReservationLaws, IterationLaws, LockLaws, StorageLifetimeLaws, OpensFacade
):
    library = "pymongo"

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return open_storage(self.url, client=self.library, **settings)


class MakesMongoDBDriver(OnMongoDB, DriverFixtures):
    def make_driver(self, tmp_path: Path) -> Driver:
        return MongoDBDriver(self.url, client=self.library)


class TestDriverMotorStandalone(OnStandalone, MakesMongoDBDriver, DriverContract):
    library = "motor"
    condition_seeds = range(5)


class TestDriverPymongoReplicaSet(OnReplicaSet, MakesMongoDBDriver, DriverContract):
    library = "pymongo"
    condition_seeds = range(5, 10)


class PairedDriverLaws(MakesMongoDBDriver, TransactionLaws, ChangeLaws, DriverLifetimeLaws):
    """What differs between the libraries on the same kind of server."""


class TestDriverMotorReplicaSet(OnReplicaSet, PairedDriverLaws):
    library = "motor"


class TestDriverPymongoStandalone(OnStandalone, PairedDriverLaws):
    library = "pymongo"
