"""The contract, on the tracker of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostorage.testing import TrackerContract
from aiostorage.testing.contract.tracker import Look
from aiostorage.trackers import Tracker
from tests.trackers.file_tracker import FileTracker, Seen


class TestFileTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path: Path) -> Iterator[Tracker]:
        tracker = FileTracker(tmp_path)
        yield tracker
        tracker.close()

    @pytest.fixture
    def look(self, tmp_path: Path) -> Look:
        return Seen(tmp_path).runs
