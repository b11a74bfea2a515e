"""New trials for a worker that has none left, suggested by its user's function under the lock."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio

from aiostorage._core.kinds import shown
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import (
    ConfigurationError,
    DuplicateKeyError,
    LockAcquisitionTimeout,
    LockLost,
)
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike, Uid
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus
from aiostorage.work.calls import NamedCall, is_async
from aiostorage.work.daemon_threads import in_daemon_thread

__all__ = [
    "PENDING_STATUSES",
    "Suggestions",
    "check_suggest",
    "register_new",
    "suggested_trials",
]

log: Final = logging.getLogger("aiostorage.worker")

PENDING_STATUSES: Final = (
    TrialStatus.NEW.value,
    TrialStatus.SUSPENDED.value,
    TrialStatus.INTERRUPTED.value,
)

MAX_REPEATS: Final = 20
"""How many times in a row all suggestions may be trials that exist already."""

OFFERED: Final = ("algorithm", "count", "storage", "experiment")
"""The arguments that a function may name."""


class Suggestions:
    """Calls a function that suggests new trials, for one task at a time.

    Parameters
    ----------
    suggest
        Returns params or trials. It gets those arguments of `OFFERED` that it names.
    limit
        How many trials are to be completed; infinity for no limit.
    """

    def __init__(
        self,
        storage: AsyncStorageProtocol,
        experiment: ExperimentLike,
        uid: Uid,
        suggest: Callable[..., Any],
        *,
        limit: float,
    ) -> None:
        self._storage = storage
        self._experiment = experiment
        self._uid = uid
        self._suggest = suggest
        self._limit = limit
        self._asking = anyio.Lock()
        self._rounds = self._repeats = 0
        self._may_be_more = False

    async def ask(self, count: int) -> tuple[bool, int]:
        """Register new trials, unless some are pending or another task is doing so.

        Returns
        -------
        more, registered
            Whether it is worth looking for a pending trial now, and how many were registered.
        """
        before = self._rounds
        async with self._asking:
            if before != self._rounds:
                return self._may_be_more, 0
            registered = 0
            try:
                self._may_be_more, registered = await self._ask(count)
            except (LockAcquisitionTimeout, LockLost) as error:
                log.warning("another worker suggests trials: %s", error)
                self._may_be_more = True
            self._rounds += 1
            return self._may_be_more, registered

    async def _ask(self, count: int) -> tuple[bool, int]:
        storage, experiment = self._storage, self._experiment
        taken = 0
        if self._limit < math.inf:
            taken = await self._count(TrialStatus.COMPLETED.value, TrialStatus.RESERVED.value)
        count = int(min(count, self._limit - taken))
        if count <= 0:
            return False, 0
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            if await self._count(*PENDING_STATUSES):
                return True, 0
            trials = suggested_trials(await self._call(algorithm, count), self._uid)
            registered = await register_new(storage, trials)
        self._repeats = 0 if registered or not trials else self._repeats + 1
        return bool(trials) and self._repeats < MAX_REPEATS, registered

    async def _call(self, algorithm: LockedAlgorithmState, count: int) -> Any:
        offered = {
            "algorithm": algorithm,
            "count": count,
            "storage": self._storage,
            "experiment": self._experiment,
        }
        call = NamedCall(self._suggest)
        arguments = {name: offered[name] for name in OFFERED if name in call.names}
        asked = partial(self._suggest, **arguments)
        if is_async(self._suggest):
            return await asked()
        return await in_daemon_thread(asked)

    async def _count(self, *statuses: str) -> int:
        where = {"status": {"$in": list(statuses)}}
        return await self._storage.count_trials(self._experiment, where=where)


def check_suggest(suggest: Callable[..., Any]) -> None:
    """Raise ConfigurationError for a function that needs other arguments than those offered."""
    call = NamedCall(suggest)
    arguments: dict[str, Any] = {name: None for name in OFFERED if name in call.names}
    if problem := call.problem(arguments):
        raise ConfigurationError(
            f"the function {call!r} for suggestions may have the arguments "
            f"{', '.join(OFFERED)}, by these names: {problem}"
        )


def suggested_trials(found: Any, experiment: Uid) -> list[Trial]:
    """Return the suggestions of a function, which are dicts of params or trials, as trials.

    Raises
    ------
    ConfigurationError
        It is something else.
    """
    if isinstance(found, Mapping) or not isinstance(found, Iterable | None):
        found = (found,)
    return [_trial_of(item, experiment) for item in found or ()]


def _trial_of(item: Any, experiment: Uid) -> Trial:
    if isinstance(item, Trial):
        return item
    if isinstance(item, Mapping):
        return Trial(experiment=experiment, params=dict(item))
    raise ConfigurationError(
        f"a suggestion is a dict of params or a Trial, not {shown(item)}; return a list of them"
    )


async def register_new(storage: AsyncStorageProtocol, trials: Sequence[Trial]) -> int:
    """Register the trials that do not exist yet; return their number.

    If a process dies after it has registered its suggestions, the state of the algorithm was not
    saved. The next one starts with the same state, and may suggest the same trials.
    """
    if not trials:
        return 0
    try:
        return len(await storage.register_trials(trials))
    except DuplicateKeyError:
        count = 0
        for trial in trials:
            try:
                await storage.register_trial(trial)
            except DuplicateKeyError:
                continue
            count += 1
        return count
