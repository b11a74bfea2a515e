"""Optuna's own tests of a storage, unchanged."""

from __future__ import annotations

from optuna.testing.pytest_storages import StorageTestCase


class TestStorage(StorageTestCase):
    """All of them, on each engine: see the fixture `storage`."""
