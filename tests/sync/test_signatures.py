"""`Storage` has the signatures of its protocol, and the generated classes those of the original."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aiostorage import Storage, SyncStorage
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.sync import BaseStorageProtocol

needs_orion = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Oríon 0.2.7 does not run on Python 3.12 and later"
)

ORIGINAL = """
acquire_algorithm_lock(experiment, timeout=600, retry_interval=1)
count_broken_trials(experiment)
count_completed_trials(experiment)
create_benchmark(config)
create_experiment(config)
delete_algorithm_lock(experiment=None, uid=None)
delete_experiment(experiment=None, uid=None)
delete_trials(experiment=None, uid=None, where=None)
fetch_benchmark(query, selection=None)
fetch_experiments(query, selection=None)
fetch_lost_trials(experiment)
fetch_noncompleted_trials(experiment)
fetch_pending_trials(experiment)
fetch_trials(experiment=None, uid=None, where=None)
fetch_trials_by_status(experiment, status)
get_algorithm_lock_info(experiment=None, uid=None)
get_trial(trial=None, uid=None, experiment_uid=None)
initialize_algorithm_lock(experiment_id, algorithm_config)
push_trial_results(trial)
register_trial(trial)
release_algorithm_lock(experiment=None, uid=None, new_state=None)
reserve_trial(experiment)
retrieve_result(trial, *args, **kwargs)
set_trial_status(trial, status, heartbeat=None, was=None)
update_experiment(experiment=None, uid=None, where=None, **kwargs)
update_heartbeat(trial)
update_trial(trial=None, uid=None, experiment_uid=None, where=None, **kwargs)
update_trials(experiment=None, uid=None, where=None, **kwargs)
"""
"""The signatures in the documentation of Oríon's ``BaseStorageProtocol``."""


def methods_of(owner: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


def test_the_storage_has_the_protocols_signatures() -> None:
    declared = methods_of(AsyncStorageProtocol)
    assert len(declared) > 35
    for name, method in declared.items():
        own = vars(Storage)[name]
        assert inspect.signature(own) == inspect.signature(method), name
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(method), name


def test_the_facade_is_not_asynchronous() -> None:
    twins = methods_of(SyncStorage)
    assert {*twins, "aclose"} == set(methods_of(AsyncStorageProtocol))
    assert not any(inspect.iscoroutinefunction(method) for method in twins.values())
    assert set(methods_of(BaseStorageProtocol)) < set(twins)


@pytest.mark.parametrize("owner", [SyncStorage, BaseStorageProtocol])
def test_the_originals_signatures_come_first(owner: type) -> None:
    methods = methods_of(owner)
    for line in ORIGINAL.split("\n")[1:-1]:
        name, _, arguments = line.partition("(")
        made: dict[str, Any] = {}
        exec(f"def original(self, {arguments}: ...", made)
        wanted = parameters(made["original"])
        assert parameters(methods[name])[: len(wanted)] == wanted, line


@needs_orion
def test_orions_own_protocol_comes_first() -> None:
    """Whatever calls Oríon's methods, by position or by name, can call ours."""
    import orion.storage.base as original

    from aiostorage.orion import AioStorage

    theirs = methods_of(original.BaseStorageProtocol)
    assert len(theirs) > 25
    for name, method in theirs.items():
        wanted = parameters(method)
        for owner in (SyncStorage, BaseStorageProtocol, AioStorage):
            ours = parameters(vars(owner)[name])
            if (owner, name) == (AioStorage, "acquire_algorithm_lock"):
                # `uid` may be passed instead of the experiment, which therefore has a default
                assert ours[1] == (*wanted[1][:2], None)
                ours[1] = wanted[1]
            assert ours[: len(wanted)] == wanted, (owner, name)
            more = ours[len(wanted) :]
            assert all(
                default is not inspect.Parameter.empty
                or kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
                for _, kind, default in more
            ), (owner, name)


@needs_orion
def test_orions_other_names_are_there() -> None:
    import orion.storage.base as original

    import aiostorage.base as ours

    for name in (
        "BaseStorageProtocol",
        "FailedUpdate",
        "LockAcquisitionTimeout",
        "LockedAlgorithmState",
        "MissingArguments",
        "ReadOnlyStorageProtocol",
        "get_trial_uid_and_exp",
        "get_uid",
        "setup_storage",
        "storage_factory",
    ):
        assert hasattr(original, name)
        assert name in ours.__all__
    for name in ("get_trial_uid_and_exp", "setup_storage"):
        assert parameters(getattr(ours, name)) == parameters(getattr(original, name)), name
    assert parameters(ours.get_uid)[:2] == parameters(original.get_uid)[:2]
    assert (
        original.ReadOnlyStorageProtocol.valid_attributes
        <= ours.ReadOnlyStorageProtocol.valid_attributes
    )
    locked = parameters(original.LockedAlgorithmState.__init__)
    assert parameters(ours.LockedAlgorithmState.__init__)[: len(locked)] == locked
