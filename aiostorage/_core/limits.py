"""The limits of an experiment: how many trials are to be completed, and how many may break.

The limit on completed trials is kept by the order of the operations alone; see
`LimitedReservations`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import anyio

from aiostorage._core.cancellation import clean_up
from aiostorage._core.documents import equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid
from aiostorage._core.kinds import shown
from aiostorage._core.layout import EXPERIMENTS, PENDING, TRIALS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.reservations import Reservations
from aiostorage.errors import ConfigurationError
from aiostorage.operations import And, Compare, Condition, Count, Find, Or
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["ONE_TOO_MANY", "LimitName", "LimitedReservations", "Limits", "configured_limit"]

LimitName: TypeAlias = Literal["max_trials", "max_broken"]
AskedLimit: TypeAlias = int | bool | None

PAUSE: Final = 0.05
"""Seconds between two counts, at least, while other callers decide or no trial is pending."""

PATIENCE: Final = 20
"""How often to count again while later reservations are expected to be handed back."""

ONE_TOO_MANY: Final = "released by a worker that would have exceeded max_trials"
"""The reason in the history of a trial that was handed back at once."""

CHECK_INTERVAL: Final = 1.0
"""Seconds between two counts while waiting, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many trials are to be completed, and how many may break; infinity for no limit."""

    trials: float
    broken: float

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited."""
        return self.trials == self.broken == math.inf


def configured_limit(asked: AskedLimit, name: LimitName, config: dict[str, Any]) -> float:
    """Return a limit: the one that was asked for, or the one in the experiment's config for True.

    Raises
    ------
    ConfigurationError
        The value in the config is not a number.
    """
    if asked is None:
        return math.inf
    if asked is not True:
        return asked
    value = config.get(name)
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(
            f"the experiment has {shown(value)} as {name}, which is not a number of trials; "
            f"set it with update_experiment, or pass {name} as a number"
        )
    return value


class LimitedReservations:
    """Reservations within the limits of an experiment.

    A caller counts, reserves, and counts again; if there are too many by then, it hands the trial
    back. Of all trials that are completed or being evaluated at a given moment, one was reserved
    last. The second count for this trial came after the reservations of all the others. They were
    reserved or completed by then, so the count included all of them. Each count reads the reserved
    trials first and the completed ones afterwards, so that it does not miss a trial that is
    completed in between.
    """

    def __init__(self, gateway: Gateway, lost: LostTrials, reservations: Reservations) -> None:
        self._gateway = gateway
        self._lost = lost
        self._reservations = reservations

    async def reached(
        self, experiment: Any, max_trials: AskedLimit, max_broken: AskedLimit
    ) -> LimitName | None:
        """Return the limit that the experiment has reached, if any."""
        uid = experiment_uid(experiment)
        return await self._reached(uid, await self._limits(uid, max_trials, max_broken))

    async def reserve(
        self,
        experiment: Any,
        wait: float,
        recover: bool,
        max_trials: AskedLimit,
        max_broken: AskedLimit,
    ) -> list[Trial]:
        """Reserve one trial, as `Reservations.reserve` does, unless a limit forbids it."""
        uid = experiment_uid(experiment)
        limits = await self._limits(uid, max_trials, max_broken)
        if limits.are_none:
            return await self._reservations.reserve(experiment, 1, wait, recover)
        now = begin = anyio.current_time()
        end, next_look, next_check = begin + wait, begin, begin
        version: object | None = None
        while True:
            if await self._reached(uid, limits):
                return []
            look = recover and (now >= next_look or now >= end)
            if trials := await self._within(uid, limits, look):
                return trials
            if look:
                next_look = now + self._lost.look_interval
            if (left := end - now) <= 0:
                return []
            await anyio.sleep(min(PAUSE, left))
            if now >= next_check:
                await self._reservations.check_experiment(experiment)
                next_check = now + CHECK_INTERVAL
            left = min(end, next_check) - anyio.current_time()
            # without a version it returns at once: a change may have come before the first call
            version = await self._gateway.wait_for_change(TRIALS, version, max(left, 0.0))
            now = anyio.current_time()

    async def _within(self, uid: Any, limits: Limits, look: bool) -> list[Trial]:
        """Reserve a trial if there is one and the limits leave room for it."""
        if await self._count_taken(uid) >= limits.trials:
            return []
        experiment = {"_id": uid}
        if not (look or await self._count(uid, PENDING)):
            return []
        trials = await self._reservations.reserve(experiment, 1, 0.0, look)
        if not trials or limits.trials == math.inf:
            return trials
        kept = False
        try:
            kept = await self._fits(trials[0], limits.trials)
        finally:
            if not kept:
                seconds = self._gateway.policy.total
                await clean_up(
                    seconds, lambda: self._give_back(trials[0]), "handing back a trial too many"
                )
        return trials if kept else []

    async def _fits(self, trial: Trial, limit: float) -> bool:
        """Return whether a trial that has just been reserved is within the limit.

        If several callers have reserved the last one at the same time, the first of them waits
        until the others have handed theirs back.
        """
        for _ in range(PATIENCE):
            if await self._count_taken(trial.experiment) <= limit:
                return True
            earlier = Or(
                (
                    Compare("start_time", "lt", trial.start_time),
                    And(
                        (
                            Compare("start_time", "eq", trial.start_time),
                            Compare("id", "lt", trial.id),
                        )
                    ),
                )
            )
            if await self._count_taken(trial.experiment, earlier) >= limit:
                return False
            await anyio.sleep(PAUSE)
        return False

    async def _give_back(self, trial: Trial) -> None:
        turn = self._reservations.begin_turn(trial)
        try:
            await self._reservations.hand_back(turn, TrialStatus.INTERRUPTED.value, ONE_TOO_MANY)
        finally:
            self._reservations.end_turn(turn)

    # --------------------------------------------------------------------------------- counts

    async def _limits(self, uid: Any, max_trials: AskedLimit, max_broken: AskedLimit) -> Limits:
        config: dict[str, Any] = {}
        if max_trials is True or max_broken is True:
            selection = {"max_trials": True, "max_broken": True}
            found = await self._gateway.execute(
                Find(EXPERIMENTS, equal(_id=uid), selection, limit=1)
            )
            config = dict(found[0]) if found else {}
        return Limits(
            configured_limit(max_trials, "max_trials", config),
            configured_limit(max_broken, "max_broken", config),
        )

    async def _reached(self, uid: Any, limits: Limits) -> LimitName | None:
        if limits.trials < math.inf:
            completed = await self._count(uid, _has(TrialStatus.COMPLETED))
            if completed >= limits.trials:
                return "max_trials"
        if limits.broken < math.inf:
            broken = await self._count(uid, _has(TrialStatus.BROKEN))
            if broken >= limits.broken:
                return "max_broken"
        return None

    async def _count_taken(self, uid: Any, earlier: Condition | None = None) -> int:
        """Count the trials that are being evaluated, or the `earlier` of them, then the completed.

        The order of the two counts matters; see the class.
        """
        alive = self._lost.alive_conditions
        running = await self._count(uid, *alive, *(() if earlier is None else (earlier,)))
        return running + await self._count(uid, _has(TrialStatus.COMPLETED))

    async def _count(self, uid: Any, *conditions: Condition) -> int:
        ours = Compare("experiment", "eq", uid)
        return await self._gateway.execute(Count(TRIALS, And((ours, *conditions))))


def _has(status: TrialStatus) -> Compare:
    return Compare("status", "eq", status.value)
