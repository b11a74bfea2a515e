"""The contract on arguments: their names, and what they may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest

from aiostorage._core.ids import get_trial_uid_and_exp, get_uid
from aiostorage.errors import MismatchedIds, MissingArguments, UndefinedCall
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.readonly import ReadOnlyStorage
from aiostorage.testing.contract.helpers import case, make_config, registered
from aiostorage.trial import Trial

__all__ = ["ArgumentLaws", "SignatureLaws"]

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


class SignatureLaws:
    """Law 1: every method has its name and its arguments."""

    async def test_method_has_the_signature_of_the_original(
        self, storage: AsyncStorageProtocol
    ) -> None:
        for name, expected in SIGNATURES.items():
            with case(name):
                method = getattr(storage, name)
                assert _signature(method) == expected
                is_manager = name == "acquire_algorithm_lock"
                assert inspect.iscoroutinefunction(method) is not is_manager

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


class ArgumentLaws:
    """Law 1: how a record is named."""

    async def test_neither_experiment_nor_uid(self, storage: AsyncStorageProtocol) -> None:
        for name in _BY_EXPERIMENT:
            with case(name), pytest.raises(MissingArguments):
                await getattr(storage, name)()

    async def test_experiment_and_uid_that_differ(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for name in _BY_EXPERIMENT:
            with case(name):
                with pytest.raises(MismatchedIds) as raised:
                    await getattr(storage, name)(experiment, uid="another")
                assert isinstance(raised.value, AssertionError)

    async def test_trial_and_uids(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        for name in ("get_trial", "update_trial"):
            with case(name):
                method = getattr(storage, name)
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


def _signature(method: Callable[..., Any]) -> str:
    """Return the arguments of a method as text; ours, which are optional, left out."""
    arguments = []
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty, "ours must be optional"
            continue
        star: dict[Any, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        arguments.append(star.get(parameter.kind, "") + parameter.name + default)
    return ", ".join(arguments)
