"""The contract on values: what is read is what was written."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    case,
    cut,
    document,
    make_config,
    make_trial,
    same,
    stored,
)

__all__ = ["CopyLaws", "ValueLaws"]

VALUES: Final[dict[str, Any]] = {
    "floats": [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 0.1, 3.0],
    "ints": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "bools": [True, False, None],
    "texts": ["", "ä€😀", "\0", "\n\t\\\"'", "$", "a.b", "x" * 10_000],
    "bytes": [b"", b"\0\xff", bytes(range(256))],
    "empty": {"dict": {}, "list": [], "nested": {"a": {"b": [{}, [], [[]]]}}},
    "keys": {"with.dot": {"and.more": 1}, "": 2, "$date": "text", "$escape": {"$date": "x"}},
    "tags": [{"$date": "today"}, {"$bytes": "AA=="}, {"$float": "nan"}, {"$escape": {}}],
    "mixed": [1, 1.0, True, "1", b"1", None, [1], {"1": 1}],
}


MOMENTS: Final = (
    datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 2, 28, 12, 0, 0, 1),  # noqa: DTZ001  naive is UTC
    datetime(2026, 2, 28, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
)


class ValueLaws:
    """Laws 3 and 4: round trips and time."""

    async def test_round_trip_of_a_config(self, storage: AsyncStorageProtocol) -> None:
        for kind, value in VALUES.items():
            with case(kind):
                config = make_config(kind, metadata={"value": value}, value=value)
                experiment = await storage.create_experiment(copy.deepcopy(config))
                config["_id"] = experiment.id
                assert same(await document(storage, experiment.id), config)
                await storage.update_experiment(experiment, value={"again": value})
                config["value"] = {"again": value}
                assert same(await document(storage, experiment.id), config)

    async def test_round_trip_of_a_trial(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for kind, value in VALUES.items():
            with case(kind):
                trial = make_trial(experiment, [value])
                returned = await storage.register_trial(trial)
                found = await stored(storage, returned)
                assert same(found.params["x"], [value])
                assert found.id == trial.id
                assert same(found.to_dict(), returned.to_dict())

    async def test_datetimes(self, storage: AsyncStorageProtocol, resolution: timedelta) -> None:
        for moment in MOMENTS:
            with case(str(moment)):
                await self._datetime(storage, resolution, moment)

    async def _datetime(
        self, storage: AsyncStorageProtocol, resolution: timedelta, moment: datetime
    ) -> None:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        expected = cut(aware.astimezone(UTC), resolution)
        config = make_config(str(moment), at=moment, deep=[{"at": moment}])
        experiment = await storage.create_experiment(config)
        found = await document(storage, experiment.id)
        for back in (found["at"], found["deep"][0]["at"]):
            assert back == expected
            assert back.utcoffset() == timedelta(0)
        times = dict.fromkeys(("submit_time", "start_time", "end_time", "heartbeat"), moment)
        trial = await storage.register_trial(make_trial(experiment, 1, **times))
        for one in (await stored(storage, trial), trial):
            for name in times:
                back = getattr(one, name)
                assert cut(back, resolution) == expected
                assert back.utcoffset() == timedelta(0)
        assert await storage.fetch_trials(experiment, where={"heartbeat": moment}) == [trial]
        assert [c["_id"] for c in await storage.fetch_experiments({"at": moment})] == [
            experiment.id
        ]


class CopyLaws:
    """Law 2: copies."""

    async def test_what_is_passed_is_not_kept(self, storage: AsyncStorageProtocol) -> None:
        config = make_config(metadata={"tags": ["a"]})
        experiment = await storage.create_experiment(config)
        before = copy.deepcopy(config)
        config["metadata"]["tags"].append("b")
        config["algorithm"]["random"]["seed"] = 2
        assert await document(storage, experiment.id) == before
        info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.configuration == {"random": {"seed": 1}}
        value = {"list": [1]}
        await storage.update_experiment(experiment, value=value)
        value["list"].append(2)
        assert (await document(storage, experiment.id))["value"] == {"list": [1]}
        trial = make_trial(experiment, [1])
        await storage.register_trial(trial)
        trial.param_list[0].value.append(2)
        trials = await storage.fetch_trials(experiment)
        assert trials is not None
        assert trials[0].params == {"x": [1]}
        benchmark: dict[str, Any] = {"name": "b", "x": [1]}
        await storage.create_benchmark(benchmark)
        benchmark["x"].append(2)
        assert (await storage.fetch_benchmark({}))[0]["x"] == [1]

    async def test_what_is_returned_is_not_kept(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config(tags=["a"]))
        answered = await storage.register_trial(make_trial(experiment, [1]))
        answered.param_list[0].value.append(2)
        answered.status = "broken"
        found = await document(storage, experiment.id)
        found["tags"].append("b")
        for selection in (None, {"tags": 1}, {"name": 0}):
            (config,) = await storage.fetch_experiments({}, selection)
            assert config["tags"] == ["a"]
            config["tags"].append("b")
        reserved = await storage.reserve_trial(experiment)
        assert reserved is not None
        assert reserved.params == {"x": [1]}
        reserved.param_list[0].value.append(2)
        async for trial in storage.iter_trials(experiment):
            assert trial.params == {"x": [1]}
            trial.param_list[0].value.append(2)
        for trial in await storage.fetch_trials(experiment) or ():
            assert trial.params == {"x": [1]}
            trial.param_list[0].value.append(2)
        assert (await stored(storage, make_trial(experiment, [1]))).params == {"x": [1]}

    async def test_what_is_returned_is_not_changed_by_later_writes(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config(a={"b": 1}))
        config = await document(storage, experiment.id)
        trial = await storage.register_trial(make_trial(experiment, 1))
        found = await stored(storage, trial)
        reserved = await storage.reserve_trial(experiment)
        dotted: Any = {"a.b": 2}
        await storage.update_experiment(experiment, **dotted)
        await storage.update_trial(trial, status="broken", worker="w")
        await storage.delete_experiment(experiment)
        assert config["a"] == {"b": 1}
        assert (trial.status, found.status, found.worker) == ("new", "new", None)
        assert reserved is not None
        assert reserved.status == "reserved"
