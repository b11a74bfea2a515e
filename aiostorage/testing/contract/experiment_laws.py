"""The contract on experiments and benchmarks."""

from __future__ import annotations

from typing import Any

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import case, document, gather, make_config, registered

__all__ = ["BenchmarkLaws", "ExperimentLaws"]


class ExperimentLaws:
    """Experiments and what belongs to them."""

    async def test_create_puts_the_id_into_the_config(self, storage: AsyncStorageProtocol) -> None:
        config = make_config(metadata={"user": "me"})
        experiment = await storage.create_experiment(config)
        assert config == make_config(metadata={"user": "me"}, _id=experiment.id)
        assert (experiment.name, experiment.version) == ("tune", 1)
        assert await document(storage, experiment.id) == config

    async def test_create_keeps_an_id(self, storage: AsyncStorageProtocol) -> None:
        for uid in ("mine", 7, 0, -(2**63)):
            with case(uid):
                experiment = await storage.create_experiment(make_config(f"e{uid}", _id=uid))
                assert experiment.id == uid
                assert (await document(storage, uid))["_id"] == uid
                assert await storage.get_algorithm_lock_info(uid=uid) is not None

    async def test_create_makes_the_lock_record(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.configuration == {"random": {"seed": 1}}
        assert (bool(info.locked), info.state) == (False, None)

    async def test_create_duplicate_writes_nothing(self, storage: AsyncStorageProtocol) -> None:
        first = await storage.create_experiment(make_config())
        config = make_config(_id="second")
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.create_experiment(config)
        assert raised.value.fields == ("name", "version")
        assert config == make_config(_id="second")
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.create_experiment(make_config("other", _id=first.id))
        assert raised.value.fields == ("_id",)
        fresh = make_config()
        with pytest.raises(DuplicateKeyError):
            await storage.create_experiment(fresh)
        assert "_id" not in fresh
        assert await storage.get_algorithm_lock_info(uid="second") is None
        assert [c["_id"] for c in await storage.fetch_experiments({})] == [first.id]

    async def test_create_writes_the_experiment_and_its_lock_or_neither(
        self, storage: AsyncStorageProtocol
    ) -> None:
        first = await storage.create_experiment(make_config())
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.create_experiment(make_config(_id="another"))
        assert raised.value.collection == "experiments"
        assert await storage.get_algorithm_lock_info(uid="another") is None
        assert [found["_id"] for found in await storage.fetch_experiments({})] == [first.id]
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.initialize_algorithm_lock(first.id, {})
        assert raised.value.collection == "algo"

    async def test_create_by_many_at_once_succeeds_once(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        async def create(number: int) -> bool:
            try:
                await (storage, other)[number % 2].create_experiment(make_config())
            except DuplicateKeyError:
                return False
            return True

        assert sum(await gather(map(create, range(20)))) == 1
        (config,) = await other.fetch_experiments({})
        assert await storage.get_algorithm_lock_info(uid=config["_id"]) is not None

    async def test_no_version_is_version_1(self, storage: AsyncStorageProtocol) -> None:
        without: tuple[dict[str, Any], ...] = ({}, {"version": None})
        for number, missing in enumerate(without):
            with case(missing):
                config: dict[str, Any] = {"name": f"e{number}", **missing}
                experiment = await storage.create_experiment(config)
                assert config == {"name": f"e{number}", **missing, "_id": experiment.id}
                assert (experiment.version, experiment.config["version"]) == (1, 1)
                found = await document(storage, experiment.id)
                assert found == {**config, "version": 1} == dict(experiment.config)
                for same in (*without, {"version": 1}):
                    again: dict[str, Any] = {"name": config["name"], **same}
                    with pytest.raises(DuplicateKeyError) as raised:
                        await storage.create_experiment(again)
                    assert raised.value.fields == ("name", "version")
                    assert again == {"name": config["name"], **same}
                await storage.create_experiment({"name": config["name"], "version": 2})
                first = {"name": config["name"], "version": 1}
                assert await storage.fetch_experiments(first) == [found]
                versions = await storage.fetch_experiments({"name": config["name"]}, {"version": 1})
                assert [one["version"] for one in versions] == [1, 2]
        for missing in without:
            with pytest.raises(DuplicateKeyError):
                await storage.create_experiment({"name": "tune", "version": 1})
                await storage.create_experiment({"name": "tune", **missing})

    async def test_update_to_no_version(self, storage: AsyncStorageProtocol) -> None:
        second = await storage.create_experiment({"name": "tune", "version": 2})
        assert await storage.update_experiment(second, version=None, x=1)
        assert await document(storage, second.id) == {
            "name": "tune",
            "version": 1,
            "x": 1,
            "_id": second.id,
        }
        third = await storage.create_experiment({"name": "tune", "version": 3})
        with pytest.raises(DuplicateKeyError):
            await storage.update_experiment(third, version=None)
        assert await storage.update_experiment(third, where={"version": 3}, x=2)
        assert not await storage.update_experiment(third, where={"version": 1}, x=3)

    @pytest.mark.parametrize("cascade", [True, False])
    async def test_delete(self, storage: AsyncStorageProtocol, cascade: bool) -> None:
        doomed = await storage.create_experiment(make_config())
        bystander = await storage.create_experiment(make_config("bystander"))
        for experiment in (doomed, bystander):
            await registered(storage, experiment, 3)
        if cascade:
            assert await storage.delete_experiment(doomed) == 1  # the default
            assert await storage.fetch_trials(doomed) is None
            assert await storage.get_algorithm_lock_info(doomed) is None
        else:
            assert await storage.delete_experiment(uid=doomed.id, cascade=False) == 1
            assert len(await storage.fetch_trials(doomed) or ()) == 3
            assert await storage.get_algorithm_lock_info(doomed) is not None
        assert [c["name"] for c in await storage.fetch_experiments({})] == ["bystander"]
        assert len(await storage.fetch_trials(bystander) or ()) == 3
        assert await storage.delete_experiment(doomed) == 0

    async def test_create_where_a_lock_record_was_left(self, storage: AsyncStorageProtocol) -> None:
        before = await storage.create_experiment(make_config(), algo_locked=1, algo_state="old")
        assert await storage.delete_experiment(before, cascade=False) == 1
        config = {**make_config("after"), "_id": before.id, "algorithm": {"random": {}}}
        after = await storage.create_experiment(config, algo_state="new")
        assert after.id == before.id
        async with storage.acquire_algorithm_lock(after, timeout=0) as algorithm:
            assert (algorithm.state, algorithm.configuration) == ("new", {"random": {}})
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.create_experiment({**config, "name": "another"}, algo_state="newer")
        assert raised.value.collection == "experiments"
        info = await storage.get_algorithm_lock_info(after)
        assert info is not None
        assert info.state == "new"

    async def test_update(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config(metadata={"user": "me"}))
        changes: Any = {"max_trials": 9, "metadata.user": "you", "refers.root_id": 5}
        assert await storage.update_experiment(experiment, **changes) is True
        found = await document(storage, experiment.id)
        assert found["max_trials"] == 9
        assert found["metadata"] == {"user": "you"}
        assert found["refers"] == {"root_id": 5}
        assert not await storage.update_experiment(experiment, where={"max_trials": 8}, x=1)
        assert await storage.update_experiment(uid=experiment.id, where={"max_trials": 9}, x=1)
        assert await storage.update_experiment(uid="nobody", x=1) is False

    async def test_update_to_a_taken_name(self, storage: AsyncStorageProtocol) -> None:
        await storage.create_experiment(make_config("first"))
        second = await storage.create_experiment(make_config("second"))
        with pytest.raises(DuplicateKeyError):
            await storage.update_experiment(second, name="first", max_trials=3)
        assert await document(storage, second.id) == make_config("second", _id=second.id)

    async def test_fetch_answers_by_insertion(self, storage: AsyncStorageProtocol) -> None:
        names = ["b", "a", "d", "c"]
        for name in names:
            await storage.create_experiment(make_config(name))
        assert [c["name"] for c in await storage.fetch_experiments({})] == names


class BenchmarkLaws:
    """Benchmarks."""

    async def test_create_fetch_delete(self, storage: AsyncStorageProtocol) -> None:
        config: dict[str, Any] = {"name": "b", "targets": [{"assess": {"x": 1}}]}
        assert await storage.create_benchmark(config) == 1
        assert set(config) == {"name", "targets", "_id"}
        assert await storage.fetch_benchmark({"name": "b"}) == [config]
        assert await storage.fetch_benchmark({}, {"_id": 0, "name": 1}) == [{"name": "b"}]
        duplicate = {"name": "b"}
        with pytest.raises(DuplicateKeyError):
            await storage.create_benchmark(duplicate)
        assert duplicate == {"name": "b"}
        assert await storage.delete_benchmark({"name": "c"}) == 0
        assert await storage.delete_benchmark({"name": "b"}) == 1
        assert await storage.fetch_benchmark({}) == []
