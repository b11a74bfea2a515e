"""The contracts as test classes: what every storage, engine and tracker has to do."""

from aiostorage.testing.contract.api import ApiContract
from aiostorage.testing.contract.driver import DriverContract
from aiostorage.testing.contract.storage import StorageContract
from aiostorage.testing.contract.tracker import TrackerContract

__all__ = ["ApiContract", "DriverContract", "StorageContract", "TrackerContract"]
