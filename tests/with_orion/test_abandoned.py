"""Oríon closes no storage: those that are no longer in use end by themselves, without a word."""

from __future__ import annotations

import gc
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from aiostorage.orion import AioStorage, configuration

COUNT = 20


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def own_threads() -> list[threading.Thread]:
    names = ("aiostorage", "_connection_worker_thread")
    return [thread for thread in threading.enumerate() if any(n in thread.name for n in names)]


def options(url: str, number: int, tmp_path: Path) -> dict[str, Any]:
    """Return those of one of many files, or of a server with another time limit."""
    if url.startswith("sqlite"):
        return {"url": f"sqlite:///{tmp_path}/{number}.db"}
    return {"url": url, "timeout": 20 + number}


def test_what_is_not_in_use_ends(url: str, tmp_path: Path) -> None:
    def use(number: int) -> None:
        storage = AioStorage(database=options(url, number, tmp_path))
        storage.create_experiment({"name": str(number)})
        assert storage._db.count("experiments", {"name": str(number)}) == 1

    use(0)  # what is made once
    gc.collect()
    before, end = descriptors(), time.monotonic() + 10
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for number in range(1, COUNT):
            use(number)
        gc.collect()
    while (own_threads() or descriptors() > before) and time.monotonic() < end:
        time.sleep(0.02)
    assert own_threads() == []
    assert descriptors() <= before
    assert not configuration._shared


def test_those_of_one_configuration_share_it_as_long_as_one_is_in_use(url: str) -> None:
    first, second = (AioStorage(database={"url": url}) for _ in range(2))
    assert first._storage is second._storage
    first.create_experiment({"name": "tune"})
    del first
    gc.collect()
    database = second._db
    del second
    gc.collect()
    assert database.count("experiments") == 1
    assert len([t for t in own_threads() if t.name == "aiostorage"]) == 1


def test_what_is_in_memory_alone_stays() -> None:
    storage = AioStorage(database={"url": "memory://"})
    storage.create_experiment({"name": "tune"})
    del storage
    gc.collect()
    again = AioStorage(database={"url": "memory://"})
    assert [config["name"] for config in again.fetch_experiments({})] == ["tune"]
    again._storage.close()
    configuration._in_memory.clear()
