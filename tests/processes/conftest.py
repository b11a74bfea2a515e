from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import Starter, starter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start processes, which end with the test at the latest."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the file that the processes share."""
    return tmp_path / "shared.db"
