"""A follower that is killed again and again has each change once, and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from .following import follow_to_the_end
from .support import Starter


@pytest.mark.parametrize(("scheme", "trials", "kills"), [("sqlite", 40, 8), ("track", 15, 4)])
def test_follow_kill(start: Starter, tmp_path: Path, scheme: str, trials: int, kills: int) -> None:
    url = f"{scheme}:///{tmp_path / 'store'}.json"
    changes = follow_to_the_end(start, url, tmp_path / "seen", trials=trials, kills=kills)
    assert {change.reason for change in changes} >= {"lost", "bad\nluck"}
