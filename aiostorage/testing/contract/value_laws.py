"""The contract on values and queries: what goes in comes out, and what is asked for is found."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Final

import pytest

from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    cut,
    document,
    make_config,
    make_trial,
    registered,
    same,
    stored,
)

__all__ = ["QueryLaws", "ValueLaws"]

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


class ValueLaws:
    """Laws 2, 3 and 4: copies, round trips, time."""

    @pytest.mark.parametrize("kind", VALUES)
    async def test_round_trip_of_a_config(self, storage: AsyncStorageProtocol, kind: str) -> None:
        config = make_config(metadata={"value": VALUES[kind]}, value=VALUES[kind])
        experiment = await storage.create_experiment(copy.deepcopy(config))
        config["_id"] = experiment.id
        assert same(await document(storage, experiment.id), config)
        await storage.update_experiment(experiment, value={"again": VALUES[kind]})
        config["value"] = {"again": VALUES[kind]}
        assert same(await document(storage, experiment.id), config)

    @pytest.mark.parametrize("kind", VALUES)
    async def test_round_trip_of_a_trial(self, storage: AsyncStorageProtocol, kind: str) -> None:
        experiment = await storage.create_experiment(make_config())
        trial = make_trial(experiment, [VALUES[kind]])
        answered = await storage.register_trial(trial)
        found = await stored(storage, answered)
        assert same(found.params["x"], [VALUES[kind]])
        assert found.id == trial.id
        assert same(found.to_dict(), answered.to_dict())

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

    async def test_mappings_become_dicts(self, storage: AsyncStorageProtocol) -> None:
        value: Any = MappingProxyType({"a": [MappingProxyType({})]})
        experiment = await storage.create_experiment(make_config(value=value))
        assert same((await document(storage, experiment.id))["value"], {"a": [{}]})

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 2, 28, 12, 0, 0, 1),  # noqa: DTZ001  naive is UTC
            datetime(2026, 2, 28, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        ],
        ids=str,
    )
    async def test_datetimes(
        self, storage: AsyncStorageProtocol, resolution: timedelta, moment: datetime
    ) -> None:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        expected = cut(aware.astimezone(UTC), resolution)
        experiment = await storage.create_experiment(make_config(at=moment, deep=[{"at": moment}]))
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
        assert await storage.fetch_experiments({"at": moment}) != []

    @pytest.mark.parametrize("kind", UNSTORABLE)
    async def test_unstorable_is_named_and_nothing_is_written(
        self, storage: AsyncStorageProtocol, kind: str
    ) -> None:
        value = UNSTORABLE[kind]
        with pytest.raises(EncodingError) as raised:
            await storage.create_experiment(make_config(metadata={"a": [0, value]}))
        assert raised.value.path.startswith("metadata.a[1]")
        assert raised.value.path in str(raised.value)
        assert await storage.fetch_experiments({}) == []

        experiment = await storage.create_experiment(make_config())
        with pytest.raises(EncodingError) as raised:
            await storage.update_experiment(experiment, good=1, bad={"x": value})
        assert raised.value.path.startswith("bad.x")
        trial = make_trial(experiment, 1)
        trial.param_list[0].value = {"deep": value}
        with pytest.raises(EncodingError) as raised:
            await storage.register_trials([make_trial(experiment, 2), trial])
        assert raised.value.path.startswith("params[0].value.deep")
        assert await storage.fetch_trials(experiment) == []
        with pytest.raises(EncodingError):
            await storage.create_benchmark({"name": "b", "x": value})
        assert await storage.fetch_benchmark({}) == []

        await registered(storage, experiment, 1)
        reserved = await storage.reserve_trial(experiment)
        assert reserved is not None
        before = (await stored(storage, reserved)).to_dict()
        results = [
            {"name": "o", "type": "objective", "value": 1},
            {"name": "s", "type": "statistic", "value": value},
        ]
        with pytest.raises(EncodingError) as raised:
            await storage.complete_trial(reserved, results)
        assert raised.value.path.startswith("results[1].value")
        with pytest.raises(EncodingError):
            await storage.update_trial(reserved, status="broken", x=value)
        with pytest.raises(EncodingError):
            await storage.update_trials(experiment, status="broken", x=value)
        assert (await stored(storage, reserved)).to_dict() == before
        assert "good" not in await document(storage, experiment.id)

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


DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "a": {"n": 1, "s": "x", "sub": {"k": 1, "deep": {"z": 5}}, "tags": ["red", "blue"]},
    "b": {"n": 2, "s": None, "sub": {"k": 2}, "tags": []},
    "c": {"n": 2.5, "sub": {}, "tags": [{"k": 1}, {"k": 2}]},
    "d": {"n": "2", "s": "y", "sub": [{"k": 1}], "with.dot": 1},
    "e": {"n": True, "s": "", "at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"1"},
    "f": {"n": math.nan, "version": 2},
}

QUERIES: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "abcdef"),
    ({"name": "a"}, "a"),
    ({"name": {"$in": ["a", "c", "zz"]}}, "ac"),
    ({"name": {"$nin": ["a", "c"]}}, "bdef"),
    ({"name": {"$gt": "b", "$lte": "e"}}, "cde"),
    ({"name": 1}, ""),
    ({"version": 1}, "abcde"),
    ({"version": 1.0}, "abcde"),
    ({"version": True}, ""),
    ({"version": {"$ne": 1}}, "f"),
    ({"n": 2}, "b"),
    ({"n": {"$gt": 1}}, "bc"),
    ({"n": {"$gte": 1, "$lt": 2.5}}, "ab"),
    ({"n": {"$ne": 1}}, "bcdef"),
    ({"n": True}, "e"),
    ({"n": math.nan}, "f"),
    ({"s": None}, "bcf"),
    ({"s": {"$ne": None}}, "ade"),
    ({"s": {"$ne": "x"}}, "bcdef"),
    ({"s": {"$exists": True}}, "abde"),
    ({"s": {"$exists": False}}, "cf"),
    ({"s": {"$in": [None, "y"]}}, "bcdf"),
    ({"s": {"$nin": [None]}}, "ade"),
    ({"sub.k": 1}, "ad"),
    ({"sub.k": {"$ne": 1}}, "bcef"),
    ({"sub.deep.z": {"$gte": 5}}, "a"),
    ({"sub": {}}, "c"),
    ({"sub": {"k": 2}}, "b"),
    ({"sub.0.k": 1}, "d"),
    ({"tags": "red"}, "a"),
    ({"tags": []}, "b"),
    ({"tags": ["red", "blue"]}, "a"),
    ({"tags": ["blue", "red"]}, ""),
    ({"tags.k": 2}, "c"),
    ({"tags.1": "blue"}, "a"),
    ({"with.dot": 1}, ""),
    ({"at": {"$gte": datetime(2026, 1, 1)}}, "e"),  # noqa: DTZ001  naive is UTC
    ({"at": {"$lt": datetime(2026, 1, 1, tzinfo=UTC)}}, ""),
    ({"raw": b"1"}, "e"),
    ({"$and": [{"n": {"$gt": 0}}, {"n": {"$lt": 2.2}}]}, "ab"),
    ({"$or": [{"name": "a"}, {"sub": {"$exists": False}}]}, "aef"),
    ({"$or": [{"$and": [{"name": "a"}, {"n": 1}]}, {"n": 2}], "version": 1}, "ab"),
    ({"missing": None}, "abcdef"),
    ({"missing": {"$ne": 1}}, "abcdef"),
    ({"missing": {"$lte": None}}, "abcdef"),
]

UNSUPPORTED: Final[list[Any]] = [
    {"$where": "true"},
    {"$expr": {"$gt": ["$a", 1]}},
    {"$nor": [{"a": 1}]},
    {"$text": {"$search": "x"}},
    {"$function": {}},
    {"a": {"$regex": "x"}},
    {"a": {"$not": {"$gt": 1}}},
    {"a": {"$size": 1}},
    {"a": {"$elemMatch": {"b": 1}}},
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


class QueryLaws:
    """Law 5: queries mean what MongoDB means by them."""

    @pytest.mark.parametrize(("query", "names"), QUERIES, ids=repr)
    async def test_query(
        self, storage: AsyncStorageProtocol, query: dict[str, Any], names: str
    ) -> None:
        for name, fields in DOCUMENTS.items():
            await storage.create_experiment(make_config(name, **fields))
        unchanged = copy.deepcopy(query)
        found = await storage.fetch_experiments(query)
        assert "".join(c["name"] for c in found) == names
        assert same(query, unchanged)
        # as the condition of a write, and on trials
        hit = [
            name
            for name in DOCUMENTS
            if await storage.update_experiment(
                (await storage.fetch_experiments({"name": name}))[0], where=query, hit=True
            )
        ]
        assert "".join(hit) == names
        for number, fields in enumerate(DOCUMENTS.values()):
            trial = await storage.register_trial(make_trial("e", number))
            changes = {"name": "abcdef"[number], "version": 1, **fields}
            changes.pop("with.dot", None)  # is a path there
            await storage.update_trial(trial, **changes)
        trials = await storage.fetch_trials(uid="e", where=query) or []
        assert "".join("abcdef"[t.params["x"]] for t in trials) == names

    @pytest.mark.parametrize("query", UNSUPPORTED, ids=repr)
    async def test_unsupported_query(self, storage: AsyncStorageProtocol, query: Any) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        await storage.create_benchmark({"name": "b"})
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
        for call in calls:
            with pytest.raises(UnsupportedQuery):
                await call
        assert await storage.fetch_experiments({"x": {"$exists": True}}) == []
        assert await storage.fetch_trials(experiment, where={"x": None}) == [trial]
        assert len(await storage.fetch_benchmark({})) == 1

    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            (
                None,
                {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]},
            ),
            ({}, {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]}),
            ({"name": 1}, {"_id": 1, "name": "tune"}),
            ({"name": True, "_id": 0}, {"name": "tune"}),
            ({"a.b": 1}, {"_id": 1, "a": {"b": 1}}),
            ({"a.b": 0, "l": 0}, {"_id": 1, "name": "tune", "version": 1, "a": {"c": 2}}),
            ({"_id": 0, "l": 0, "a": 0, "name": 0}, {"version": 1}),
            ({"l.k": 1, "_id": 0}, {"l": [{"k": 1}]}),
            ({"missing": 1}, {"_id": 1}),
        ],
        ids=repr,
    )
    async def test_selection(
        self,
        storage: AsyncStorageProtocol,
        selection: dict[str, Any] | None,
        expected: dict[str, Any],
    ) -> None:
        config = {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]}
        await storage.create_experiment(dict(config))
        assert await storage.fetch_experiments({}, selection) == [expected]

    @pytest.mark.parametrize(
        "selection", [{"a": 1, "b": 0}, {"a": "x"}, {"a": {"$slice": 1}}, {"a": 1, "a.b": 1}]
    )
    async def test_unsupported_selection(
        self, storage: AsyncStorageProtocol, selection: dict[str, Any]
    ) -> None:
        with pytest.raises(UnsupportedQuery):
            await storage.fetch_experiments({}, selection)
        with pytest.raises(UnsupportedQuery):
            await storage.fetch_benchmark({}, selection)
        with pytest.raises(UnsupportedQuery):
            await anext(storage.iter_trials({"_id": "e"}, selection=selection))
