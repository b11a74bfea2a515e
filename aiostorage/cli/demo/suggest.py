"""A random search whose state is in the storage, shared by all workers.

The state includes that of the random generator, so the holder of the algorithm lock goes on where
the last holder stopped. One seed gives one sequence of suggestions, however many workers draw from
it and however many suggestions each draws at a time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.cli.demo.space import Space
from aiostorage.cli.demo.timed_storage import TimedStorage
from aiostorage.errors import ConfigurationError, DuplicateKeyError
from aiostorage.protocols import Uid
from aiostorage.trial import Trial

__all__ = ["RandomSearch"]


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Suggest distinct points of a space, at random.

    Parameters
    ----------
    space
        The space of the points.
    trials
        The number of points to suggest in total.

    Raises
    ------
    ConfigurationError
        The space has fewer points than that.
    """

    space: Space
    trials: int

    def __post_init__(self) -> None:
        if self.space.size < self.trials:
            raise ConfigurationError(
                f"the space has {self.space.size:.0f} different points at most, "
                f"too few for {self.trials} trials"
            )

    @staticmethod
    def initial_state(seed: int) -> dict[str, Any]:
        """Return the state to begin with."""
        return {"generator": random.Random(seed).getstate(), "suggested": 0, "seen": set()}  # noqa: S311

    async def suggest(self, storage: TimedStorage, experiment: Uid, count: int) -> bool:
        """Register up to `count` new trials unless some are pending.

        Returns
        -------
        exhausted
            Whether all trials have been suggested.
        """
        async with storage.acquire_algorithm_lock({"_id": experiment}) as algorithm:
            left = self.trials - int(algorithm.state["suggested"])
            if left > 0 and not await storage.fetch_pending_trials({"_id": experiment}):
                count = min(count, left)
                await _register(storage, self._drawn(algorithm, experiment, count))
                left -= count
        return left <= 0

    def _drawn(self, algorithm: LockedAlgorithmState, experiment: Uid, count: int) -> list[Trial]:
        state = algorithm.state
        rng = random.Random()  # noqa: S311  nothing secret
        rng.setstate(state["generator"])
        seen = set(state["seen"])
        trials: list[Trial] = []
        while len(trials) < count:
            trial = Trial(experiment=experiment, params=self.space.draw(rng))
            if trial.id not in seen:
                seen.add(trial.id)
                trials.append(trial)
        algorithm.set_state(
            {
                "generator": rng.getstate(),
                "suggested": state["suggested"] + count,
                "seen": seen,
            }
        )
        return trials


async def _register(storage: TimedStorage, trials: list[Trial]) -> None:
    """Register trials, of which some may be registered already.

    A process that dies between registering its suggestions and saving the state leaves them behind.
    The next process starts from the same state, and so draws the same suggestions.
    """
    try:
        await storage.register_trials(trials)
    except DuplicateKeyError:
        for trial in trials:
            try:
                await storage.register_trials([trial])
            except DuplicateKeyError:
                continue
