"""The contract on what can be written: it can be read again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest

from aiostorage.errors import EncodingError, InvalidResult, UnsupportedQuery
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    case,
    make_config,
    make_trial,
    registered,
    reserved,
    stored,
)
from aiostorage.trial import Param, Result, Trial

__all__ = ["ListPartLaws", "ReadableLaws"]


def _item(**more: Any) -> dict[str, Any]:
    return {"name": "x", "type": "real", "value": 0.5, **more}


def _result(**more: Any) -> dict[str, Any]:
    return {"name": "o", "type": "objective", "value": 1, **more}


STATUSES: Final[list[Any]] = ["bogus", "", "New", 3, True, 1.5, None, [], ["new"], {"a": 1}]
"""Values that are not statuses."""

UNREADABLE: Final[list[tuple[dict[str, Any], str]]] = [
    ({"params": {"x": 1}}, "params"),
    ({"params": "abc"}, "params"),
    ({"params": ""}, "params"),
    ({"params": 0}, "params"),
    ({"params": [5]}, "params[0]"),
    ({"params": [_item(), None]}, "params[1]"),
    ({"params": [_item(name=None)]}, "params[0].name"),
    ({"params": [{"type": "real", "value": 1}]}, "params[0].name"),
    ({"params": [_item(name=3)]}, "params[0].name"),
    ({"params": [_item(type="objective")]}, "params[0].type"),
    ({"params": [_item(type=["real"])]}, "params[0].type"),
    ({"params": [_item(), _item(value=2)]}, "params"),
    ({"params": [_item(), _item(name="x.y")]}, "params"),
    ({"results": "abc"}, "results"),
    ({"results": {"objective": 1}}, "results"),
    ({"results": 1.0}, "results"),
    ({"results": [1.0]}, "results[0]"),
    ({"results": [_result(type="bogus")]}, "results[0].type"),
    ({"results": [_result(name=["o"])]}, "results[0].name"),
    ({"results": [_result(), _result(type="objective", value="1")]}, "results[1].value"),
    ({"params.0.type": "nope"}, "params[0].type"),
    ({"params.0.name": None}, "params[0].name"),
    ({"params.0": 5}, "params[0]"),
    ({"params.0.type.x": 1}, "params[0].type.x"),
    ({"results.0": "abc"}, "results[0]"),
    ({"results.0.type": "objective"}, "results[0].type"),
    ({"results.3": _result(value=[1])}, "results[3].value"),
    ({"id": "no md5"}, "id"),
    ({"id": 3}, "id"),
    ({"parent": [1]}, "parent"),
    ({"exp_working_dir": 3}, "exp_working_dir"),
]
"""Changes after which a trial could not be read or found, and the place that is wrong."""

EXPERIMENTS: Final[list[tuple[dict[str, Any], str]]] = [
    ({"version": "x"}, "version"),
    ({"version": 1.5}, "version"),
    ({"refers": "parent"}, "refers"),
    ({"metadata": ["me"]}, "metadata"),
]


def _spoilt_param(name: Any, type_: Any) -> Callable[[Trial], None]:
    def spoil(trial: Trial) -> None:
        trial.param_list[0].name, trial.param_list[0].type = name, type_

    return spoil


SPOILT: Final[dict[str, Callable[[Trial], None]]] = {
    "type": _spoilt_param("x", "bogus"),
    "no name": _spoilt_param(None, "real"),
    "int as name": _spoilt_param(3, "real"),
    "dict": lambda trial: trial.param_list.append({"name": "y"}),  # type: ignore[arg-type]
    "result": lambda trial: trial.param_list.append(Result("y", "lie", 1)),  # type: ignore[arg-type]
    "number as result": lambda trial: trial.results.append(1.0),  # type: ignore[arg-type]
    "same name": lambda trial: trial.param_list.append(Param("x", "real", 2.0)),
}
"""What may be done to a trial after it was made."""


class ReadableLaws:
    """What could not be read again is refused, and nothing is written."""

    async def test_what_is_no_status(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        before = trial.to_dict()
        for status in STATUSES:
            with case(status):
                if status is not None:
                    with pytest.raises(ValueError, match="unknown trial status"):
                        await storage.set_trial_status(trial, status)
                for update in (
                    storage.update_trial(trial, status=status),
                    storage.update_trials(experiment, parent="p", status=status),
                ):
                    with pytest.raises(ValueError, match="unknown trial status"):
                        await update
                assert (await stored(storage, trial)).to_dict() == before

    async def test_changes_that_nobody_could_read(self, storage: AsyncStorageProtocol) -> None:
        trial = await reserved(storage)
        before = (await stored(storage, trial)).to_dict()
        for changes, place in UNREADABLE:
            for update in (
                storage.update_trial(trial, **changes),
                storage.update_trials(uid=trial.experiment, worker="w", **changes),
            ):
                with case(changes), pytest.raises(EncodingError) as raised:
                    await update
                with case(changes):
                    assert raised.value.path == place
                    assert place in str(raised.value)
                    assert (await stored(storage, trial)).to_dict() == before
        unsupported: Any = {"params.x": 1}
        with pytest.raises(UnsupportedQuery, match="no index"):
            await storage.update_trial(trial, **unsupported)

    async def test_trials_that_were_spoilt(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for kind, spoil in SPOILT.items():
            trial = make_trial(experiment, 1.0)
            spoil(trial)
            with case(kind), pytest.raises(EncodingError):
                await storage.register_trials([make_trial(experiment, 2), trial])
        assert await storage.fetch_trials(experiment) == []

    async def test_results_that_were_spoilt(self, storage: AsyncStorageProtocol) -> None:
        trial = await reserved(storage)
        before = (await stored(storage, trial)).to_dict()
        bogus = Result("s", "statistic", 1)
        bogus.type = "bogus"
        spoilt: list[Any] = [[Result("o", "objective", 1), bogus], {"objective": 1, 3: 2}]
        for results in spoilt:
            with case(results), pytest.raises(InvalidResult):
                await storage.complete_trial(trial, results)
        trial.results.extend([Result("o", "objective", 1), bogus])
        with pytest.raises(EncodingError) as raised:
            await storage.push_trial_results(trial)
        assert raised.value.path == "results[1].type"
        trial.results[0].value, trial.results[1].type = "1", "statistic"
        with pytest.raises(EncodingError) as raised:
            await storage.push_trial_results(trial)
        assert raised.value.path == "results[0].value"
        trial.results[:] = [3.0]  # type: ignore[list-item]
        with pytest.raises(EncodingError):
            await storage.push_trial_results(trial)
        assert (await stored(storage, trial)).to_dict() == before

    async def test_experiments_that_nobody_could_read(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for changes, place in EXPERIMENTS:
            with case(changes), pytest.raises(EncodingError) as raised:
                await storage.update_experiment(experiment, **changes)
            assert raised.value.path == place
            with case(changes), pytest.raises(EncodingError):
                await storage.create_experiment({**make_config("other"), **changes})
        (found,) = await storage.fetch_experiments({})
        assert found == experiment.config


class ListPartLaws:
    """Parts of params and results, set by a path."""

    async def test_a_part_of_an_item(self, storage: AsyncStorageProtocol) -> None:
        trial = await reserved(storage)
        await storage.complete_trial(trial, {"loss": 1.0, "epochs": 2})
        good: list[dict[str, Any]] = [
            {"params.0.value": 7, "params.0.type": "integer", "params.0.name": "y"},
            {"results.0.value": math.inf},
            {"results.1": _result(name="n", type="statistic", value="text")},
            {"results.1.value": ["any"], "results.1.type": "gradient"},
        ]
        for changes in good:
            with case(changes):
                assert await storage.update_trial(trial, **changes) == 1
        found = await stored(storage, trial)
        assert found.params == {"y": 7}
        assert [(r.name, r.type, r.value) for r in found.results] == [
            ("loss", "objective", math.inf),
            ("n", "gradient", ["any"]),
        ]

    async def test_a_part_that_would_leave_an_unreadable_trial(
        self, storage: AsyncStorageProtocol
    ) -> None:
        trial = await reserved(storage)
        await storage.complete_trial(trial, {"loss": 1.0, "epochs": 2})
        before = (await stored(storage, trial)).to_dict()
        unfit: list[dict[str, Any]] = [
            {"results.3.value": 1},
            {"results.2": _result()},
            {"results.0.value": "no number"},
            {"params.1.value": 1},
            {"params.1.type": "real", "params.0.value": 9},
            {"params.1": _item()},
        ]
        for changes in unfit:
            with case(changes):
                assert await storage.update_trial(trial, **changes) == 0
                assert await storage.update_trials(uid=trial.experiment, **changes) == 0
                assert (await stored(storage, trial)).to_dict() == before
