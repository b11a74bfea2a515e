"""The contracts as test classes: what every storage, and every engine, has to do."""

from aiostorage.testing.contract.api import ApiContract
from aiostorage.testing.contract.driver import DriverContract
from aiostorage.testing.contract.storage import StorageContract

__all__ = ["ApiContract", "DriverContract", "StorageContract"]
