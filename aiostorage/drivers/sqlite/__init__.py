"""SQLite: the embedded engine, one file that many tasks and processes share."""

from aiostorage.drivers.sqlite.driver import SQLiteDriver, Synchronous

__all__ = ["SQLiteDriver", "Synchronous"]
