"""A trial is found by the id that it has in the store, whatever its values have become there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from aiostorage import DuplicateKeyError, Experiment, Result, Storage, SyncStorage, Trial
from aiostorage.protocols import Driver
from tests.unit.subclasses import OldColour, Ratio

pytestmark = pytest.mark.anyio

MOMENT = datetime(2024, 2, 29, 12, 0, 0, 123456)  # noqa: DTZ001 -- read as UTC
VALUES: list[Any] = [
    np.array([0.1, 0.2]),
    list(np.random.default_rng(0).random(2)),
    [np.array([1]), [np.int8(2)]],
    MOMENT,
    MOMENT.replace(tzinfo=UTC),
    MOMENT.replace(tzinfo=timezone(timedelta(hours=2))),
    [MOMENT],
    np.datetime64(MOMENT, "ns"),
    [np.datetime64(MOMENT)],
    OldColour.RED,
    [Ratio(0.5)],
    [OrderedDict(a=1, b=OldColour.RED)],
    {"inner": [np.float32(0.1)]},
]


@pytest.fixture
async def storage(make_driver: Callable[[], Driver]) -> AsyncIterator[Storage]:
    async with Storage(make_driver()) as opened:
        yield opened


@pytest.fixture
async def experiment(storage: Storage) -> Experiment:
    return await storage.create_experiment({"name": "e"})


async def test_a_trial_of_any_values_goes_its_way(storage: Storage, experiment: Experiment) -> None:
    for number, value in enumerate(VALUES):
        given = Trial(experiment=experiment.id, params={"n": number, "x": value})
        registered = await storage.register_trial(given)
        assert registered.id == given.id
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert trial == given
        await storage.update_heartbeat(trial)
        await storage.set_trial_status(trial, "suspended")
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        trial.results = [Result("loss", "objective", 1)]
        await storage.push_trial_results(trial)
        await storage.complete_trial(trial, 0.5)
        found = None
        for handle in (given, registered, trial):
            found = await storage.get_trial(handle)
            assert found is not None
            assert (found.id, found.status) == (given.id, "completed")
            assert await storage.update_trial(handle, note=number) == 1
        assert found is not None
        same = Trial(experiment=experiment.id, params=found.params)
        if not isinstance(value, np.datetime64) and "datetime" not in repr(value):  # ms on MongoDB
            assert same.id == given.id
            with pytest.raises(DuplicateKeyError):
                await storage.register_trial(same)
    fetched = await storage.fetch_trials(experiment)
    assert fetched is not None
    assert len({trial.id for trial in fetched}) == len(VALUES)


async def test_a_worker_completes_it(storage: Storage, experiment: Experiment) -> None:
    given = Trial(experiment=experiment.id, params={"x": VALUES[1], "at": MOMENT})
    await storage.register_trial(given)
    async with storage.reserved_trial(experiment) as trial:
        assert trial is not None
        await storage.complete_trial(trial, 1.0)
    assert await storage.count_completed_trials(experiment) == 1


async def test_a_lie_leaves_the_id(storage: Storage, experiment: Experiment) -> None:
    lie = [Result("guess", "lie", 5.0)]
    given = Trial(experiment=experiment.id, params={"x": 1}, results=lie)
    await storage.register_trial(given)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    await storage.complete_trial(trial, 1.0)
    (fetched,) = await storage.fetch_trials_by_status(experiment, "completed")
    for handle in (trial, fetched):
        assert handle.id == given.id
        assert await storage.get_trial(handle) is not None
        assert await storage.update_trial(handle, k=1) == 1
    await storage.set_trial_status(fetched, "suspended", was="completed")


async def test_changed_values_leave_the_id(storage: Storage, experiment: Experiment) -> None:
    given = Trial(experiment=experiment.id, params={"x": 1})
    await storage.register_trial(given)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    trial.param_list[0].value = 2
    await storage.complete_trial(trial, 1.0)
    assert await storage.update_trial(trial, params=[{"name": "x", "type": "integer", "value": 3}])
    (fetched,) = await storage.fetch_trials_by_status(experiment, "completed")
    assert (fetched.params, fetched.id) == ({"x": 3}, given.id)
    assert await storage.get_trial(fetched) is not None


async def test_a_new_record_goes_by_its_values(storage: Storage, experiment: Experiment) -> None:
    given = Trial(experiment=experiment.id, params={"x": 1})
    registered = await storage.register_trial(given)
    changed = registered.copy()
    changed.param_list[0].value = 2
    changed.id_override = None
    again = await storage.register_trial(changed)
    assert again.id == Trial(params={"x": 2}).id
    assert await storage.get_trial(uid=again.id, experiment_uid=experiment.id) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [({"x": 1}, {"x": "1"}), ({"x": 1, "y": 2}, {"x": "1,y:2"}), ({"x": [1]}, {"x": "[1]"})],
)
async def test_other_params_with_the_same_id(
    storage: Storage, experiment: Experiment, first: dict[str, Any], second: dict[str, Any]
) -> None:
    trials = [Trial(experiment=experiment.id, params=params) for params in (first, second)]
    uid = trials[0].id
    with pytest.raises(
        DuplicateKeyError, match=f"has other params with the same id {uid}: "
    ) as both:
        await storage.register_trials(trials)
    assert await storage.fetch_trials(experiment) == []
    await storage.register_trial(trials[0])
    with pytest.raises(DuplicateKeyError, match="are the same as text") as raised:
        await storage.register_trial(trials[1])
    for error in (both.value, raised.value):
        assert f"{first} and {second}" in str(error)
        assert (error.collection, error.fields) == ("trials", ("experiment", "id"))
        assert error.values == (experiment.id, uid)
    with pytest.raises(DuplicateKeyError, match="already has a record"):
        await storage.register_trial(Trial(experiment=experiment.id, params=first))


def test_the_other_colour(make_driver: Callable[[], Driver]) -> None:
    with SyncStorage(Storage(make_driver())) as storage:
        experiment = storage.create_experiment({"name": "e"})
        given = Trial(experiment=experiment.id, params={"x": VALUES[0]})
        storage.register_trial(given)
        with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            storage.complete_trial(trial, 1.0)
        assert storage.get_trial(given) == given
        with pytest.raises(DuplicateKeyError, match="other params with the same id"):
            storage.register_trial(Trial(experiment=experiment.id, params={"x": "[0.1, 0.2]"}))
