"""The contract on names and arguments, experiments and benchmarks."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, Final

import pytest

from aiostorage._core.ids import get_trial_uid_and_exp, get_uid
from aiostorage.errors import (
    DuplicateKeyError,
    EncodingError,
    MismatchedIds,
    MissingArguments,
    UndefinedCall,
)
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.readonly import ReadOnlyStorage
from aiostorage.testing.contract.helpers import (
    document,
    gather,
    make_config,
    make_trial,
    registered,
)
from aiostorage.trial import Trial

__all__ = ["BenchmarkLaws", "ExperimentLaws", "NameLaws"]

_BY_UID: Final = "experiment=None, uid=None"
_BY_TRIAL: Final = "trial=None, uid=None, experiment_uid=None"

SIGNATURES: Final = {
    "acquire_algorithm_lock": "experiment, timeout=600, retry_interval=1",
    "count_broken_trials": "experiment",
    "count_completed_trials": "experiment",
    "create_benchmark": "config",
    "create_experiment": "config, algo_locked=None, algo_state=None, algo_heartbeat=None",
    "delete_algorithm_lock": _BY_UID,
    "delete_benchmark": "query",
    "delete_experiment": _BY_UID,
    "delete_trials": f"{_BY_UID}, where=None",
    "fetch_benchmark": "query, selection=None",
    "fetch_experiments": "query, selection=None",
    "fetch_lost_trials": "experiment",
    "fetch_noncompleted_trials": "experiment",
    "fetch_pending_trials": "experiment",
    "fetch_trials": f"{_BY_UID}, where=None",
    "fetch_trials_by_status": "experiment, status",
    "get_algorithm_lock_info": _BY_UID,
    "get_trial": _BY_TRIAL,
    "initialize_algorithm_lock": "experiment_id, algorithm_config",
    "push_trial_results": "trial",
    "register_trial": "trial",
    "release_algorithm_lock": f"{_BY_UID}, new_state=None",
    "reserve_trial": "experiment",
    "retrieve_result": "trial, *args, **kwargs",
    "set_trial_status": "trial, status, heartbeat=None, was=None",
    "update_experiment": f"{_BY_UID}, where=None, **kwargs",
    "update_heartbeat": "trial",
    "update_trial": f"{_BY_TRIAL}, where=None, **kwargs",
    "update_trials": f"{_BY_UID}, where=None, **kwargs",
    "write_algorithm_lock": "experiment_id, algorithm_config, locked=0, state=None, heartbeat=None",
}
"""Oríon's methods: names, order and defaults of their arguments."""

_BY_EXPERIMENT: Final = (
    "delete_algorithm_lock",
    "delete_experiment",
    "delete_trials",
    "fetch_trials",
    "get_algorithm_lock_info",
    "release_algorithm_lock",
    "update_experiment",
    "update_trials",
)


class NameLaws:
    """Law 1: every method has its name and its arguments."""

    @pytest.mark.parametrize("name", SIGNATURES)
    async def test_method_has_the_signature_of_the_original(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        method = getattr(storage, name)
        arguments = []
        for parameter in inspect.signature(method).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert parameter.default is not parameter.empty, "ours must be optional"
                continue
            star: dict[Any, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            arguments.append(star.get(parameter.kind, "") + parameter.name + default)
        assert ", ".join(arguments) == SIGNATURES[name]
        is_manager = name == "acquire_algorithm_lock"
        assert inspect.iscoroutinefunction(method) is not is_manager

    @pytest.mark.parametrize("name", _BY_EXPERIMENT)
    async def test_neither_experiment_nor_uid(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        with pytest.raises(MissingArguments):
            await getattr(storage, name)()

    @pytest.mark.parametrize("name", _BY_EXPERIMENT)
    async def test_experiment_and_uid_that_differ(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        with pytest.raises(MismatchedIds) as raised:
            await getattr(storage, name)(experiment, uid="another")
        assert isinstance(raised.value, AssertionError)

    @pytest.mark.parametrize("name", ["get_trial", "update_trial"])
    async def test_trial_and_uids(self, storage: AsyncStorageProtocol, name: str) -> None:
        method = getattr(storage, name)
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        for missing in ({}, {"uid": trial.id}, {"experiment_uid": experiment.id}):
            with pytest.raises(UndefinedCall):
                await method(**missing)
        for differing in ({"uid": "another"}, {"experiment_uid": "another"}):
            with pytest.raises(MismatchedIds):
                await method(trial, **differing)
        assert await method(trial, uid=trial.id, experiment_uid=experiment.id)
        assert await method(uid=trial.id, experiment_uid=experiment.id)

    async def test_whatever_has_an_id_is_an_experiment(self, storage: AsyncStorageProtocol) -> None:
        config = make_config()
        experiment = await storage.create_experiment(config)
        await registered(storage, experiment, 1)
        uid = experiment.id
        for like in (experiment, config, SimpleNamespace(id=uid), SimpleNamespace(_id=uid)):
            assert await storage.count_completed_trials(like) == 0
            assert len(await storage.fetch_trials(like) or ()) == 1
        with pytest.raises(MissingArguments):
            await storage.reserve_trial(None)  # type: ignore[arg-type]  # untyped code may
        with pytest.raises(MissingArguments):
            await storage.reserve_trial({"name": "not stored"})

    def test_get_uid(self) -> None:
        assert get_uid(SimpleNamespace(id=7)) == 7
        assert get_uid(uid=0) == 0
        assert get_uid(SimpleNamespace(id=0), 0) == 0
        assert get_uid(force_uid=False) is None
        with pytest.raises(MissingArguments):
            get_uid()
        with pytest.raises(MismatchedIds):
            get_uid(SimpleNamespace(id=7), 8)

    def test_get_trial_uid_and_exp(self) -> None:
        trial = Trial(experiment="e", params={"x": 1})
        assert get_trial_uid_and_exp(trial) == (trial.id, "e")
        assert get_trial_uid_and_exp(uid="t", experiment_uid="e") == ("t", "e")
        for missing in ({}, {"uid": "t"}, {"experiment_uid": "e"}):
            with pytest.raises(MissingArguments):
                get_trial_uid_and_exp(**missing)
        with pytest.raises(MismatchedIds):
            get_trial_uid_and_exp(trial, experiment_uid="f")


class ExperimentLaws:
    """Experiments and what hangs on them."""

    async def test_create_puts_the_id_into_the_config(self, storage: AsyncStorageProtocol) -> None:
        config = make_config(metadata={"user": "me"})
        experiment = await storage.create_experiment(config)
        assert config == make_config(metadata={"user": "me"}, _id=experiment.id)
        assert (experiment.name, experiment.version) == ("tune", 1)
        assert await document(storage, experiment.id) == config

    @pytest.mark.parametrize("uid", ["mine", 7, 0, -(2**63)])
    async def test_create_keeps_an_id(self, storage: AsyncStorageProtocol, uid: str | int) -> None:
        experiment = await storage.create_experiment(make_config(_id=uid))
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

    async def test_create_without_name_writes_nothing(self, storage: AsyncStorageProtocol) -> None:
        config: dict[str, Any] = {"version": 1}
        with pytest.raises(EncodingError) as raised:
            await storage.create_experiment(config)
        assert raised.value.path == "name"
        assert config == {"version": 1}

    async def test_no_version_is_a_version(self, storage: AsyncStorageProtocol) -> None:
        await storage.create_experiment({"name": "tune"})
        with pytest.raises(DuplicateKeyError):
            await storage.create_experiment({"name": "tune", "version": None})
        await storage.create_experiment({"name": "tune", "version": 1})

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

    async def test_update_to_no_name(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        with pytest.raises(EncodingError) as raised:
            await storage.update_experiment(experiment, name=None)
        assert raised.value.path == "name"

    async def test_fetch_answers_by_insertion(self, storage: AsyncStorageProtocol) -> None:
        names = ["b", "a", "d", "c"]
        for name in names:
            await storage.create_experiment(make_config(name))
        assert [c["name"] for c in await storage.fetch_experiments({})] == names

    async def test_read_only_view(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        view = ReadOnlyStorage(storage)
        assert await view.fetch_experiments({}) == await storage.fetch_experiments({})
        assert await view.get_trial(trial) == trial
        assert [t async for t in view.iter_trials(experiment)] == [trial]
        for name in {*SIGNATURES, "complete_trial", "aclose"} - ReadOnlyStorage.valid_attributes:
            with pytest.raises(AttributeError, match=name):
                getattr(view, name)
        for name in ReadOnlyStorage.valid_attributes:
            assert callable(getattr(view, name))


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

    async def test_needs_a_name(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(EncodingError):
            await storage.create_benchmark({})

    async def test_trial_of_no_experiment_is_refused(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(EncodingError) as raised:
            await storage.register_trial(Trial(params={"x": 1}))
        assert raised.value.path == "experiment"
        assert await storage.get_trial(make_trial("e", 1)) is None
