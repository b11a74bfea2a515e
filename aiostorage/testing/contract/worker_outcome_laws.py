"""The contract on `reserved_trial`: what the error that ends a block makes of its trial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest

from aiostorage.errors import (
    BackendError,
    DuplicateKeyError,
    EncodingError,
    FailedUpdate,
    InvalidResult,
    LockAcquisitionTimeout,
    LockError,
    MissingArguments,
    StorageClosedError,
    TemporaryBackendError,
    UnsupportedQuery,
)
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    case,
    make_config,
    make_trial,
    registered,
    stored,
)
from aiostorage.trial import Result, Trial

__all__ = ["WorkerOutcomeLaws"]

Fail = Callable[[AsyncStorageProtocol, Experiment, Trial], Awaitable[Any]]


def _raise(make: Callable[[], Exception]) -> Fail:
    async def fail(_storage: AsyncStorageProtocol, _experiment: Experiment, _trial: Trial) -> None:
        raise make()

    return fail


async def _lock_of_another(
    storage: AsyncStorageProtocol, experiment: Experiment, _trial: Trial
) -> None:
    async with (
        storage.acquire_algorithm_lock(experiment),
        storage.acquire_algorithm_lock(experiment, timeout=0),
    ):
        pass


async def _suggest_again(
    storage: AsyncStorageProtocol, experiment: Experiment, _trial: Trial
) -> None:
    await storage.register_trial(make_trial(experiment, 0))


async def _write_a_trial_not_reserved(
    storage: AsyncStorageProtocol, experiment: Experiment, _trial: Trial
) -> None:
    await storage.complete_trial(make_trial(experiment, 1), 1)


async def _complete_without_objective(
    storage: AsyncStorageProtocol, _experiment: Experiment, trial: Trial
) -> None:
    await storage.complete_trial(trial, {})


async def _complete_with_a_set(
    storage: AsyncStorageProtocol, _experiment: Experiment, trial: Trial
) -> None:
    constraint = {"name": "seen", "type": "constraint", "value": {1, 2}}
    objective = {"name": "o", "type": "objective", "value": 1.0}
    await storage.complete_trial(trial, [objective, constraint])


async def _push_a_set(storage: AsyncStorageProtocol, _experiment: Experiment, trial: Trial) -> None:
    trial.results = [Result("o", "objective", 1.0), Result("seen", "constraint", {1, 2})]
    trial.status = "completed"
    await storage.push_trial_results(trial)


async def _query_what_nobody_supports(
    storage: AsyncStorageProtocol, experiment: Experiment, _trial: Trial
) -> None:
    await storage.fetch_trials(experiment, where={"$where": "1"})


async def _call_without_arguments(
    storage: AsyncStorageProtocol, _experiment: Experiment, _trial: Trial
) -> None:
    await storage.get_trial()


async def _raise_from_an_error_of_the_store(
    _storage: AsyncStorageProtocol, _experiment: Experiment, _trial: Trial
) -> None:
    try:
        raise LockError
    except LockError as error:
        raise LookupError from error


OUTCOMES: Final[dict[str, tuple[Fail, type[BaseException], str]]] = {
    "a lock that stays busy": (_lock_of_another, LockAcquisitionTimeout, "interrupted"),
    "a duplicate suggestion": (_suggest_again, DuplicateKeyError, "interrupted"),
    "another trial": (_write_a_trial_not_reserved, FailedUpdate, "interrupted"),
    "an engine that fails": (_raise(BackendError), BackendError, "interrupted"),
    "an engine that is busy": (
        _raise(TemporaryBackendError),
        TemporaryBackendError,
        "interrupted",
    ),
    "another storage": (_raise(StorageClosedError), StorageClosedError, "interrupted"),
    "failures at the same time": (
        _raise(lambda: ExceptionGroup("", [LockError(), ExceptionGroup("", [BackendError()])])),
        ExceptionGroup,
        "interrupted",
    ),
    "no objective": (_complete_without_objective, InvalidResult, "broken"),
    "a result that cannot be stored": (_complete_with_a_set, EncodingError, "broken"),
    "results that cannot be stored": (_push_a_set, EncodingError, "broken"),
    "a wrong query": (_query_what_nobody_supports, UnsupportedQuery, "broken"),
    "a wrong call": (_call_without_arguments, MissingArguments, "broken"),
    "an exception raised from that of the store": (
        _raise_from_an_error_of_the_store,
        LookupError,
        "broken",
    ),
    "a time limit of the objective": (_raise(TimeoutError), TimeoutError, "broken"),
    "an own failure among others": (
        _raise(lambda: ExceptionGroup("", [LockError(), ExceptionGroup("", [LookupError()])])),
        ExceptionGroup,
        "broken",
    ),
}
"""How a body fails, with what, and what that makes of its trial."""


class WorkerOutcomeLaws:
    """A failure of the store is not one of the objective, and the store's record is what counts."""

    async def test_who_failed_decides(self, storage: AsyncStorageProtocol) -> None:
        for name, (fail, expected, status) in OUTCOMES.items():
            with case(name):
                experiment = await storage.create_experiment(make_config(name))
                await registered(storage, experiment, 2)
                with pytest.raises(expected) as raised:
                    async with storage.reserved_trial(experiment) as trial:
                        assert trial is not None
                        await fail(storage, experiment, trial)
                assert not isinstance(raised.value, AssertionError)
                assert trial is not None
                assert trial.status == status
                assert (await stored(storage, trial)).status == status

    async def test_a_status_that_was_only_set_by_hand(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            trial.status = "completed"
        assert trial.status == "interrupted"
        assert (await stored(storage, trial)).status == "interrupted"
        with pytest.raises(LookupError):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                trial.status = "suspended"
                trial.worker = None
                raise LookupError
        assert trial is not None
        assert trial.status == "broken"
        assert (await stored(storage, trial)).status == "broken"

    async def test_what_another_storage_made_of_it_stays(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        for status in ("completed", "broken", "suspended"):
            with case(status):
                experiment = await storage.create_experiment(make_config(status))
                await registered(storage, experiment, 1)
                with pytest.raises(LookupError):
                    async with storage.reserved_trial(experiment) as trial:
                        assert trial is not None
                        if status == "completed":
                            await other.complete_trial(trial.copy(), 1)
                        else:
                            await other.set_trial_status(trial.copy(), status)
                        raise LookupError
                assert trial is not None
                assert (await stored(storage, trial)).status == status

    async def test_reserved_anew_by_the_body(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        for fails, status in ((False, "interrupted"), (True, "broken")):
            with suppress(LookupError):
                async with storage.reserved_trial(experiment, heartbeat=0.02) as trial:
                    assert trial is not None
                    await storage.set_trial_status(trial, "suspended")
                    await storage.set_trial_status(trial, "reserved")
                    if fails:
                        raise LookupError
            assert trial is not None
            assert (await stored(storage, trial)).status == status

    async def test_results_that_leave_it_reserved(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            trial.results = [Result("o", "objective", 1.0)]
            await storage.push_trial_results(trial)
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_completed_before_the_body_raises(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(LookupError):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                trial.results = [Result("o", "objective", 1.0)]
                trial.status = "completed"
                await storage.push_trial_results(trial)
                raise LookupError
        assert trial is not None
        found = await stored(storage, trial)
        assert (found.status, found.results) == ("completed", trial.results)
