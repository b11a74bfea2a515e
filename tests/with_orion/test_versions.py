"""What Oríon stores without a version comes back to it so, and to others as version 1."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 needs Python 3.11", allow_module_level=True)

from orion.storage.legacy import Legacy

from aiostorage import DuplicateKeyError, Storage

from .support import plugged_in, using


def test_orions_door_stores_what_it_is_given(url: str) -> None:
    with plugged_in(url) as storage:
        config: dict[str, Any] = {"name": "tune", "metadata": {"user": "me"}}
        storage.create_experiment(config)
        assert set(config) == {"name", "metadata", "_id"}
        assert storage.fetch_experiments({}) == [config]
        assert storage.fetch_experiments({"name": "tune", "version": 1}) == []
        storage.update_experiment(uid=config["_id"], max_trials=3)
        assert storage.fetch_experiments({}) == [{**config, "max_trials": 3}]
        [found] = storage._db.read("experiments", {"name": "tune"})
        assert "version" not in found

    async def ours(storage: Storage) -> None:
        [found] = await storage.fetch_experiments({"name": "tune", "version": 1})
        assert found["version"] == 1
        with pytest.raises(DuplicateKeyError):
            await storage.create_experiment({"name": "tune"})

    using(url, ours)


@pytest.mark.parametrize("engine", ["motor"])
def test_orions_own_storage_on_the_same_database(url: str, engine: str) -> None:
    theirs = Legacy(database={"type": "mongodb", "host": url.partition("client=")[0].rstrip("?&")})
    try:
        theirs.create_experiment({"name": "tune"})
        with plugged_in(url) as storage:
            assert storage.fetch_experiments({}, {"_id": 0}) == [{"name": "tune"}]

        async def ours(storage: Storage) -> None:
            [found] = await storage.fetch_experiments({"version": 1})
            assert found["name"] == "tune"
            await storage.update_experiment(uid=found["_id"], max_trials=3)
            with pytest.raises(DuplicateKeyError):
                await storage.create_experiment({"name": "tune", "version": 1})

        using(url, ours)
        [stored] = theirs.fetch_experiments({"name": "tune"})
        assert (stored["max_trials"], "version" in stored) == (3, False)
    finally:
        theirs._db.close_connection()
