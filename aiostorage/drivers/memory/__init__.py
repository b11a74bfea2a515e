"""Memory: dicts in this process, for tests, dry runs and single-process work."""

from aiostorage.drivers.memory.driver import MemoryDriver, driver_from_options

__all__ = ["MemoryDriver", "driver_from_options"]
