"""Optuna's own tests of a storage, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase

from aiostorage import open_storage
from aiostorage.optuna import OptunaStorage
from aiostorage.optuna.async_objectives.deferred_storage import DeferredStorage
from aiostorage.optuna.dashboard.storage import DashboardStorage
from aiostorage.optuna.studies import Studies


class TestStorage(StorageTestCase):
    """All of them, on each engine: see the fixture `storage`."""


class TestDeferredStorage(StorageTestCase):
    """All of them, for studies and trials that the event loop does not evaluate."""

    test_pickle_storage = None  # type: ignore[assignment]  # it lives for one call of `optimize`

    @pytest.fixture
    def storage(self) -> Iterator[DeferredStorage]:
        ours = OptunaStorage("memory://")
        study_id = ours.create_new_study([StudyDirection.MINIMIZE], "evaluated")
        known = ours._call(Studies.study, study_id)
        ours.delete_study(study_id)  # the tests count the studies
        yield DeferredStorage(ours, known)
        ours.close()


class TestDashboardStorage(StorageTestCase):
    """All of them, for studies, which the dashboard may change."""

    test_pickle_storage = None  # type: ignore[assignment]  # it belongs to a server

    @pytest.fixture
    def storage(self) -> Iterator[DashboardStorage]:
        ours = DashboardStorage(open_storage("memory://"))
        yield ours
        ours.close()
