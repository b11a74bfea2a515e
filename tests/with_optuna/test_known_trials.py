"""What a process knows of the trials of a study, whatever the order in which it hears of them."""

from __future__ import annotations

import random

import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from aiostorage.optuna.study_trials import StudyTrials
from aiostorage.optuna.unread_trials import UnreadTrials


def trial(number: int, state: TrialState, value: float) -> FrozenTrial:
    made = create_trial(state=state, value=value if state.is_finished() else None)
    made.number = number
    return made


@pytest.mark.parametrize("seed", range(5))
def test_trials_are_in_order_and_the_best_one_is_found(seed: int) -> None:
    chance = random.Random(seed)
    known, model = StudyTrials([StudyDirection.MINIMIZE]), dict[int, FrozenTrial]()
    for _ in range(300):
        number = chance.randrange(60)
        if chance.random() < 0.2:
            known.remove(number)
            model.pop(number, None)
        else:
            state = chance.choice((TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE))
            model[number] = trial(number, state, chance.random())
            known.put(model[number])
        assert known.all() == [model[n] for n in sorted(model)]
        assert known.get(number) is model.get(number)
        for state in (TrialState.WAITING, TrialState.COMPLETE):
            expected = [model[n] for n in sorted(model) if model[n].state == state]
            assert known.all((state,)) == expected
        complete = [one for one in model.values() if one.state == TrialState.COMPLETE]
        assert known.best is min(complete, key=lambda one: one.value or 0, default=None)


def test_unread_trials_are_found_by_their_statuses() -> None:
    unread = UnreadTrials()
    unread.add("a", "reserved")
    unread.add("b", "completed", known=True)
    unread.add("a", "completed")
    unread.add("c", "new")
    assert unread.all() == {"a", "b", "c"}
    assert unread.in_statuses({"completed", "broken"}) == {"a", "b"}
    assert unread.in_statuses({"reserved"}) == set()
    assert unread.known == {"b"}
    unread.discard("b")
    unread.discard("d")
    assert (unread.known, "b" in unread, "a" in unread) == (set(), False, True)
    unread.clear()
    assert unread.all() == unread.in_statuses({"completed", "new"}) == set()
