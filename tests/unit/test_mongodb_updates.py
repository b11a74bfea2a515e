"""Changes as updates of MongoDB, by the server's clock."""

from __future__ import annotations

from typing import Any

import pytest

from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage.drivers.mongodb.filters import schemas_of
from aiostorage.operations import StoreTime

NOW = StoreTime()


@pytest.mark.parametrize(
    ("changes", "update"),
    [
        ({"status": "new"}, {"$set": {"status": "new"}}),
        ({"heartbeat": NOW}, {"$currentDate": {"heartbeat": True}}),
        (
            {"heartbeat": NOW, "status": "$new"},
            {"$currentDate": {"heartbeat": True}, "$set": {"status": "$new"}},
        ),
        (  # one look at the clock
            {"heartbeat": NOW, "start_time": NOW, "status": "$new"},
            [
                {
                    "$set": {
                        "heartbeat": "$$NOW",
                        "start_time": "$$NOW",
                        "status": {"$literal": "$new"},
                    }
                }
            ],
        ),
        ({"heartbeat": StoreTime(1.5)}, [{"$set": {"heartbeat": {"$add": ["$$NOW", 1500]}}}]),
        # in a pipeline, a path means something else
        (
            {"heartbeat": NOW, "start_time": NOW, "a.0": 1},
            {"$currentDate": {"heartbeat": True, "start_time": True}, "$set": {"a.0": 1}},
        ),
        ({"heartbeat": StoreTime(1.5), "a.0": 1}, None),
    ],
)
def test_changes_by_the_clock_of_the_server(changes: dict[str, Any], update: Any) -> None:
    schema = schemas_of(LAYOUT, partial=True)[TRIALS]
    assert schema.update(changes, None) == update
