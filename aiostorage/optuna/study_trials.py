"""The trials of one study, as a process knows them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Container

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

__all__ = ["StudyTrials"]

_WAITING_ONLY = (TrialState.WAITING,)


class StudyTrials:
    """The trials of a study by their numbers; none of them is ever changed, only replaced.

    Any thread may use it.

    Parameters
    ----------
    directions
        The directions of the study.

    Attributes
    ----------
    next_number : int
        One more than the highest number known.
    skipped : set of int
        The lower numbers of which no trial is known, and of which none was removed.
    distributions : dict
        The distribution that each parameter had first.
    """

    def __init__(self, directions: list[StudyDirection]) -> None:
        self.next_number: int = 0
        self.skipped: set[int] = set()
        self.distributions: dict[str, BaseDistribution] = {}
        self._trials: dict[int, FrozenTrial] = {}
        self._numbers: list[int] = []
        self._by_number: list[FrozenTrial] = []
        self._unfinished: dict[int, TrialState] = {}
        self._putting = threading.Lock()
        self._maximize = directions[0] == StudyDirection.MAXIMIZE
        self._has_best = len(directions) == 1
        self._best: FrozenTrial | None = None

    def get(self, number: int) -> FrozenTrial | None:
        """Return a trial, if it is known."""
        return self._trials.get(number)

    def put(self, trial: FrozenTrial) -> None:
        """Take a trial as it is now."""
        with self._putting:
            self._put(trial)

    def _put(self, trial: FrozenTrial) -> None:
        number, state = trial.number, trial.state
        before = self._trials.get(number)
        if before is None:
            if number >= self.next_number:
                self.skipped.update(range(self.next_number, number))
                self.next_number = number + 1
            else:
                self.skipped.discard(number)
        self._trials[number] = trial
        self._place(trial)
        if state.is_finished():
            self._unfinished.pop(number, None)
        else:
            self._unfinished[number] = state
        for name, distribution in trial.distributions.items():
            self.distributions.setdefault(name, distribution)
        if self._has_best:
            if self._best is not None and self._best.number == number:
                self._look_for_best()
            elif state is TrialState.COMPLETE and self._is_better(trial):
                self._best = trial

    def _place(self, trial: FrozenTrial) -> None:
        """Put a trial among all; those of other processes come in between, and late."""
        place = bisect_left(self._numbers, trial.number)
        if place < len(self._numbers) and self._numbers[place] == trial.number:
            self._by_number[place] = trial
        else:
            self._numbers.insert(place, trial.number)
            self._by_number.insert(place, trial)

    def remove(self, number: int) -> None:
        """Forget a trial that was deleted."""
        with self._putting:
            if self._trials.pop(number, None) is None:
                return
            place = bisect_left(self._numbers, number)
            del self._numbers[place], self._by_number[place]
            self._unfinished.pop(number, None)
            if self._best is not None and self._best.number == number:
                self._look_for_best()

    def unfinished(self, state: TrialState) -> list[int]:
        """Return the numbers of the trials in a state that is not final, the lowest first."""
        unfinished = list(self._unfinished.items())
        return sorted(number for number, own in unfinished if own is state)

    def all(self, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials that are in one of these states, by number."""
        if states == _WAITING_ONLY:  # asked before each trial
            waiting = map(self._trials.get, self.unfinished(TrialState.WAITING))
            return [trial for trial in waiting if trial is not None]
        trials = list(self._by_number)  # another thread may put one in meanwhile
        return trials if states is None else [trial for trial in trials if trial.state in states]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the best value, the first of several; None before there is one.

        Of a study with several directions, any complete trial.
        """
        if not self._has_best:
            return next(iter(self.all((TrialState.COMPLETE,))), None)
        return self._best

    def _look_for_best(self) -> None:
        self._best = None
        for trial in self._by_number:
            if trial.state is TrialState.COMPLETE and self._is_better(trial):
                self._best = trial

    def _is_better(self, trial: FrozenTrial) -> bool:
        best = self._best
        if best is None:
            return True
        value: float = trial.values[0]
        than: float = best.values[0]
        if value == than:
            return trial.number < best.number
        return value > than if self._maximize else value < than
