"""The contract on arguments that are converted or refused before an engine sees them."""

from __future__ import annotations

import math
from datetime import date, time
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import pytest

from aiostorage.errors import EncodingError, InvalidResult, UnsupportedQuery
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    case,
    document,
    make_config,
    make_trial,
    registered,
    reserved,
    same,
    stored,
)
from aiostorage.trial import Result, Trial, as_results

__all__ = ["ConversionLaws", "RefusalLaws", "RefusedQueryLaws"]

UNSTORABLE: Final[dict[str, Any]] = {
    "object": object(),
    "big int": 2**63,
    "small int": -(2**63) - 1,
    "set": {1},
    "tuple": (1, 2),
    "complex": 1j,
    "surrogate": "\ud800",
    "function": len,
    "int as key": {1: 2},
    "surrogate in key": {"\udfff": 1},
}

WITH_ONE_FORM: Final[tuple[tuple[Any, Any], ...]] = (
    (date(2020, 1, 31), "2020-01-31"),
    (time(1, 2, 3, 4), "01:02:03.000004"),
    (PurePosixPath("data/train"), "data/train"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (bytearray(b"a"), b"a"),
)
"""Values, and what is stored for them."""

UNSUPPORTED: Final[list[Any]] = [
    {"$where": "true"},
    {"$expr": {"$gt": ["$a", 1]}},
    {"$nor": [{"a": 1}]},
    {"$text": {"$search": "x"}},
    {"$function": {}},
    {"a": {"$regex": "x"}},
    {"a": {"$not": {"$gt": 1}}},
    {"a": {"$size": 1}},
    {"a": {"$elemMatch": {"b": {"$mod": [2, 0]}}}},
    {"a": {"$type": "string"}},
    {"a": {"$mod": [2, 0]}},
    {"a": {"$all": [1]}},
    {"a": {"$in": 1}},
    {"a": {"$exists": "yes"}},
    {"a": {"$gt": 1, "b": 2}},
    {"a": [{"b": 1}], "$or": []},
    {"$and": {"a": 1}},
    {"$comment": "x"},
    {"": 1},
    {"a..b": 1},
    {"a.$b": 1},
    {1: 2},
    ["a"],
    "a",
]


UNSUPPORTED_SELECTIONS: Final[list[dict[str, Any]]] = [
    {"a": 1, "b": 0},
    {"a": "x"},
    {"a": {"$slice": 1}},
    {"a": 1, "a.b": 1},
]

WITHOUT_OBJECTIVE: Final[list[Any]] = [
    "1",
    None,
    [],
    {},
    {"a": "b"},
    [Result("s", "statistic", 1)],
    object(),
]


class ConversionLaws:
    """Law 3: what becomes a plain value."""

    async def test_numpy_becomes_numbers_and_lists(self, storage: AsyncStorageProtocol) -> None:
        np = pytest.importorskip("numpy")
        config = make_config(
            values=[np.float32(0.5), np.int64(7), np.bool_(True), np.array([[1, 2], [3, 4]])],
            nan=np.float64("nan"),
            text=np.str_("text"),
        )
        experiment = await storage.create_experiment(config)
        found = await document(storage, experiment.id)
        assert same(found["values"], [0.5, 7, True, [[1, 2], [3, 4]]])
        assert same(found["nan"], math.nan)
        assert same(found["text"], "text")
        await registered(storage, experiment, 1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.complete_trial(trial, {"loss": np.float32(0.5), "all": np.ones(2)})
        assert [r.value for r in (await stored(storage, trial)).results] == [0.5, [1.0, 1.0]]

    async def test_what_has_one_form_as_text_becomes_text(
        self, storage: AsyncStorageProtocol
    ) -> None:
        values = [value for value, _ in WITH_ONE_FORM]
        plain = [form for _, form in WITH_ONE_FORM]
        experiment = await storage.create_experiment(make_config(metadata={"x": values}))
        assert same((await document(storage, experiment.id))["metadata"], {"x": plain})
        await storage.update_experiment(experiment, again=values)
        assert same((await document(storage, experiment.id))["again"], plain)
        await storage.create_benchmark({"name": "b", "x": values})
        assert same((await storage.fetch_benchmark({"x": values}))[0]["x"], plain)
        for value, form in WITH_ONE_FORM:
            with case(value):
                given = make_trial(experiment, value)
                assert given.id == make_trial(experiment, form).id
                trial = await storage.register_trial(given)
                found = await stored(storage, trial)
                assert (found.id, found.params) == (given.id, {"x": form})
        held = await storage.reserve_trial(experiment)
        assert held is not None
        await storage.complete_trial(held, {"loss": 1.0, "all": values})
        assert same((await stored(storage, held)).results[1].value, plain)

    async def test_a_statistic_does_not_cost_the_objective(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        results = {"loss": 1.0, "seen": {1, 2}, "epochs": 3}
        kept = [("loss", "objective", 1.0), ("epochs", "statistic", 3)]
        for push in (False, True):
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            if push:
                trial.results, trial.status = as_results(results), "completed"
                await storage.push_trial_results(trial)
            else:
                await storage.complete_trial(trial, results)
                assert [(r.name, r.type, r.value) for r in trial.results] == kept
            found = await stored(storage, trial)
            assert found.status == "completed"
            assert [(r.name, r.type, r.value) for r in found.results] == kept

    async def test_mappings_become_dicts(self, storage: AsyncStorageProtocol) -> None:
        value: Any = MappingProxyType({"a": [MappingProxyType({})]})
        experiment = await storage.create_experiment(make_config(value=value))
        assert same((await document(storage, experiment.id))["value"], {"a": [{}]})


class RefusalLaws:
    """Values that are refused, and nothing is written."""

    async def test_create_without_name_writes_nothing(self, storage: AsyncStorageProtocol) -> None:
        config: dict[str, Any] = {"version": 1}
        with pytest.raises(EncodingError) as raised:
            await storage.create_experiment(config)
        assert raised.value.path == "name"
        assert config == {"version": 1}

    async def test_update_to_no_name(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        with pytest.raises(EncodingError) as raised:
            await storage.update_experiment(experiment, name=None)
        assert raised.value.path == "name"

    async def test_needs_a_name(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(EncodingError):
            await storage.create_benchmark({})

    async def test_trial_of_no_experiment_is_refused(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(EncodingError) as raised:
            await storage.register_trial(Trial(params={"x": 1}))
        assert raised.value.path == "experiment"
        assert await storage.get_trial(make_trial("e", 1)) is None

    async def test_params_that_are_no_unicode(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for params, path in (
            ({"x": "\ud800"}, "params[0].value"),
            ({"\ud800": 1}, "params[0].name"),
        ):
            with case(path):
                trial = Trial(experiment=experiment.id, params=params)
                with pytest.raises(EncodingError) as raised:
                    await storage.register_trial(trial)
                assert raised.value.path == path
        assert await storage.fetch_trials(experiment) == []

    async def test_complete_trial_without_objective(self, storage: AsyncStorageProtocol) -> None:
        trial = await reserved(storage)
        before = trial.to_dict()
        for results in WITHOUT_OBJECTIVE:
            with case(results):
                with pytest.raises(InvalidResult):
                    await storage.complete_trial(trial, results)
                assert trial.to_dict() == before
                assert (await stored(storage, trial)).to_dict() == before

    async def test_retry_interval_must_be_positive(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        with pytest.raises(ValueError, match="retry_interval"):
            async with storage.acquire_algorithm_lock(experiment, retry_interval=0):
                pass

    async def test_heartbeat_must_be_positive(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(Exception, match="heartbeat"):
            async with storage.reserved_trial({"_id": "e"}, heartbeat=0):
                pass

    async def test_unstorable_is_named_and_nothing_is_written(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        held = await storage.reserve_trial(experiment)
        assert held is not None
        before = await _everything(storage, experiment)
        for kind, value in UNSTORABLE.items():
            with case(kind):
                await self._refused(storage, experiment, held, value)
                assert await _everything(storage, experiment) == before

    async def _refused(
        self, storage: AsyncStorageProtocol, experiment: Experiment, held: Trial, value: Any
    ) -> None:
        with pytest.raises(EncodingError) as raised:
            await storage.create_experiment(make_config("another", metadata={"a": [0, value]}))
        assert raised.value.path.startswith("metadata.a[1]")
        assert raised.value.path in str(raised.value)
        with pytest.raises(EncodingError) as raised:
            await storage.update_experiment(experiment, good=1, bad={"x": value})
        assert raised.value.path.startswith("bad.x")
        trial = make_trial(experiment, 1)
        trial.param_list[0].value = {"deep": value}
        with pytest.raises(EncodingError) as raised:
            await storage.register_trials([make_trial(experiment, 2), trial])
        assert raised.value.path.startswith("params[0].value.deep")
        with pytest.raises(EncodingError):
            await storage.create_benchmark({"name": "b", "x": value})
        results = [
            {"name": "o", "type": "objective", "value": 1},
            {"name": "c", "type": "constraint", "value": value},
        ]
        with pytest.raises(EncodingError) as raised:
            await storage.complete_trial(held, results)
        assert raised.value.path.startswith("results[1].value")
        with pytest.raises(EncodingError):
            await storage.update_trial(held, status="broken", x=value)
        with pytest.raises(EncodingError):
            await storage.update_trials(experiment, status="broken", x=value)


class RefusedQueryLaws:
    """Law 5: queries and selections that mean nothing here."""

    async def test_unsupported_query(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        await storage.create_benchmark({"name": "b"})
        for query in UNSUPPORTED:
            calls = [
                storage.fetch_experiments(query),
                storage.fetch_benchmark(query),
                storage.delete_benchmark(query),
                storage.fetch_trials(experiment, where=query),
                storage.update_experiment(experiment, where=query, x=1),
                storage.update_trial(trial, where=query, x=1),
                storage.update_trials(experiment, where=query, x=1),
                storage.delete_trials(experiment, where=query),
                anext(storage.iter_trials(experiment, where=query)),
            ]
            for number, call in enumerate(calls):
                with case((query, number)), pytest.raises(UnsupportedQuery):
                    await call
        assert await storage.fetch_experiments({"x": {"$exists": True}}) == []
        assert await storage.fetch_trials(experiment, where={"x": None}) == [trial]
        assert len(await storage.fetch_benchmark({})) == 1

    async def test_unsupported_selection(self, storage: AsyncStorageProtocol) -> None:
        for selection in UNSUPPORTED_SELECTIONS:
            calls: list[Any] = [
                storage.fetch_experiments({}, selection),
                storage.fetch_benchmark({}, selection),
                anext(storage.iter_trials({"_id": "e"}, selection=selection)),
            ]
            for number, call in enumerate(calls):
                with case((selection, number)), pytest.raises(UnsupportedQuery):
                    await call


async def _everything(storage: AsyncStorageProtocol, experiment: Experiment) -> Any:
    """Read all that is stored."""
    return (
        await storage.fetch_experiments({}),
        [trial.to_dict() for trial in await storage.fetch_trials(experiment) or ()],
        await storage.fetch_benchmark({}),
    )
