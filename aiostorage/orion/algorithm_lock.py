"""The algorithm lock as Oríon's workers hold it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import orion.storage.base as orion_base

from aiostorage._core.event_log import EventLog
from aiostorage._core.ids import get_uid
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import LockError, LockLost
from aiostorage.orion.error_translation import orion_errors
from aiostorage.orion.experiment_ids import never_stored
from aiostorage.orion.lock_state import OrionLockState
from aiostorage.sync.facade import SyncStorage

__all__ = ["hold_algorithm_lock"]

events: Final = EventLog("lock")


@contextmanager
def hold_algorithm_lock(
    storage: SyncStorage,
    experiment: Any,
    uid: Any,
    timeout: float,
    retry_interval: float,
    *,
    encode: Callable[[Any], bytes],
) -> Iterator[OrionLockState]:
    """Hold the lock; the contract is `AioStorage.acquire_algorithm_lock`.

    Parameters
    ----------
    encode
        Encodes a state, to compare two of them.
    """
    manager, ours = _acquire(storage, experiment, uid, timeout, retry_interval)
    state = OrionLockState(ours)
    try:
        yield state
    except BaseException as error:
        # An error of the caller's block is the caller's own, and is raised as it is.
        with orion_errors():
            suppressed = manager.__exit__(type(error), error, error.__traceback__)
        if not suppressed:
            raise
    else:
        with orion_errors():
            try:
                manager.__exit__(None, None, None)
            except LockLost as error:
                if state.is_new(encode):
                    raise
                events.info(
                    "lock_ended_early",
                    "the algorithm lock ended early, with no new state to save: %(error)s",
                    error=error,
                )


def _acquire(
    storage: SyncStorage, experiment: Any, uid: Any, timeout: float, retry_interval: float
) -> tuple[AbstractContextManager[LockedAlgorithmState], LockedAlgorithmState]:
    """Wait for the lock, and for its record, as Oríon's own storage does."""
    with orion_errors():
        if never_stored(experiment, uid):
            raise orion_base.LockAcquisitionTimeout("the experiment is not in the storage yet")
        stored = {"_id": get_uid(experiment, uid)}
    end = time.monotonic() + timeout
    while True:
        left = max(end - time.monotonic(), 0.0)
        manager = storage.acquire_algorithm_lock(stored, left, retry_interval)
        try:
            with orion_errors():
                return manager, manager.__enter__()
        except LockError as error:  # there is no record; other errors of the lock are Oríon's
            if not left:
                raise orion_base.LockAcquisitionTimeout(str(error)) from error
        time.sleep(min(retry_interval, max(end - time.monotonic(), 0.0)))
