"""The steps from one layout to the next, without an engine."""

from __future__ import annotations

from typing import Any

from aiostorage._core.layout import LAYOUT
from aiostorage._core.upgrade_steps import STEPS, number_experiments
from aiostorage.operations import Find, Update
from aiostorage.upgrades import StepPlan, UpgradeReport, UpgradeStep, steps_from


def configs(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [
        {"_id": n, "name": name, **({} if version == "none" else {"version": version})}
        for n, (name, version) in enumerate(pairs)
    ]


def given(plan: StepPlan) -> dict[Any, Any]:
    """Return the version that each experiment gets, by its id."""
    found = {}
    for update in plan.operations:
        assert isinstance(update, Update)
        found[update.where.conditions[0].value] = update.changes["version"]  # type: ignore[union-attr]
    return found


def test_the_last_step_leads_to_the_layout() -> None:
    assert max(one.version for one in STEPS) == LAYOUT.version


def test_an_experiment_without_a_version_gets_one() -> None:
    assert number_experiments([]) == StepPlan()
    assert number_experiments(configs(("a", 1), ("b", 3))) == StepPlan()
    plan = number_experiments(configs(("a", "none"), ("b", None), ("c", 1)))
    assert given(plan) == {0: 1, 1: 1}
    assert plan.notes == ("2 experiments without a version get version 1",)
    plan = number_experiments(configs(("a", 5), ("a", "none"), ("a", "text")))
    assert given(plan) == {1: 1}
    assert plan.notes == ("1 experiment without a version gets version 1",)


def test_the_first_version_may_be_taken() -> None:
    plan = number_experiments(configs(("a", "none"), ("a", 1), ("a", 4), ("b", 9), ("a", None)))
    assert given(plan) == {0: 5, 4: 6}
    assert plan.notes == (
        "the experiment 'a' without a version (0) gets version 5: another 'a' has version 1",
        "the experiment 'a' without a version (4) gets version 6: another 'a' has version 1",
    )


def test_an_interrupted_step_is_continued() -> None:
    before = configs(("a", "none"), ("a", 1), ("b", "none"), ("c", None))
    whole = given(number_experiments(before))
    for done in range(len(whole) + 1):
        halfway = [
            {**one, "version": whole[one["_id"]]} if one["_id"] in [*whole][:done] else one
            for one in before
        ]
        assert given(number_experiments(halfway)) == dict([*whole.items()][done:])


def test_which_steps_are_needed() -> None:
    steps = [UpgradeStep(n, Find("x"), lambda _: StepPlan()) for n in (3, 2, 5, 4)]
    assert [one.version for one in steps_from(steps, 2, 4)] == [3, 4]
    assert steps_from(steps, 5, 5) == []


def test_whether_an_upgrade_was_needed() -> None:
    assert UpgradeReport("x", 1, 2).needed
    assert not UpgradeReport("x", 2, 2).needed
    assert not UpgradeReport("x", None, 2).needed
