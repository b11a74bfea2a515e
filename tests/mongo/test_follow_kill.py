"""A follower of a server that is killed again and again has each change once, and in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostorage.testing import Deployment, ReplicaSet
from tests.mongo.conftest import UNCLOSED
from tests.processes.following import follow_to_the_end
from tests.processes.support import Starter, starter

pytestmark = [UNCLOSED, pytest.mark.timeout(240)]

TRIALS, KILLS = 15, 4


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


def test_of_a_server_by_itself(
    start: Starter, tmp_path: Path, mongodb_standalone: Deployment, mongodb_emptied_database: str
) -> None:
    url = mongodb_standalone.url_for(mongodb_emptied_database)
    follow_to_the_end(start, url, tmp_path / "seen", trials=TRIALS, kills=KILLS)


def test_of_a_replica_set_whose_primary_steps_down(
    start: Starter, tmp_path: Path, mongodb_replica_set_3: ReplicaSet, mongodb_database: str
) -> None:
    follow_to_the_end(
        start,
        mongodb_replica_set_3.url_for(mongodb_database),
        tmp_path / "seen",
        trials=TRIALS,
        kills=KILLS,
        half_way=mongodb_replica_set_3.step_down,
        one_order=False,
    )
