from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostorage.optuna import OptunaStorage

ENGINES = ["memory", "sqlite", "track"]


@pytest.fixture(params=ENGINES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OptunaStorage]:
    """Give an empty storage on each engine."""
    match request.param:
        case "memory":
            url = "memory://"
        case "sqlite":
            url = f"sqlite:///{tmp_path}/store.db"
        case "track":
            url = f"track:///{tmp_path}/store.json"
    made = OptunaStorage(url)
    yield made
    made.close()
