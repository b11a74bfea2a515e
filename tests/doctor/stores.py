"""Sound stores to be damaged, and all that is in them."""

from __future__ import annotations

from typing import Any

from aiostorage import Storage, Trial
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.driver_calls.retry import RetryPolicy
from aiostorage._core.layout import LAYOUT
from aiostorage._core.named_store import named_store
from aiostorage.doctor import Examination
from aiostorage.factory import storage_of
from aiostorage.operations import Find
from aiostorage.protocols import ExaminableDriver

__all__ = ["BOOKKEEPING", "codes_of", "documents_in", "fill"]

BOOKKEEPING = frozenset({"receipts", "trial_changes", "settings"})
"""Collections in which every write may leave something."""


def trial(experiment: Any, x: float) -> Trial:
    return Trial(experiment=experiment, params=[{"name": "/x", "type": "real", "value": x}])


async def fill(storage: Storage) -> str:
    """Put one experiment with a state and three trials into a store; return its id."""
    experiment = await storage.create_experiment({"name": "tune", "algorithm": {"random": {}}})
    for number in range(3):
        await storage.register_trial(trial(experiment.id, float(number)))
    async with storage.reserved_trial(experiment) as first:
        assert first is not None
        await storage.complete_trial(first, 1.5)
    await storage.reserve_trial(experiment)
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"seen": [1, 2]})
    return str(experiment.id)


async def documents_in(url: str) -> dict[str, list[str]]:
    """Return all documents of a store, without the bookkeeping, as texts."""
    driver = storage_of(named_store(url))._gateway.driver
    assert isinstance(driver, ExaminableDriver)
    gateway = Gateway(driver.reader(), RetryPolicy())
    found: dict[str, list[str]] = {}
    try:
        for collection in LAYOUT.collections:
            if collection.name not in BOOKKEEPING:
                documents = await gateway.execute(Find(collection.name))
                found[collection.name] = sorted(map(repr, documents))
    finally:
        await gateway.aclose()
    return found


def codes_of(found: Examination) -> set[str]:
    """Return the codes of what is wrong."""
    return {finding.code for finding in found.findings if finding.severity != "note"}
