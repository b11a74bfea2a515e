"""The contract on arguments of the wrong kind: one clear error, and nothing is done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

import pytest

from aiostorage.errors import (
    AioStorageError,
    InvalidArgument,
    InvalidResult,
    MismatchedIds,
    MissingArguments,
    UnsupportedQuery,
)
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import case, make_config, make_trial, registered, stored
from aiostorage.trial import Result, Trial

__all__ = ["KeyLaws", "WrongArgumentLaws"]


class _Silent:
    """Something whose ``repr`` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


WRONG: Final[tuple[Any, ...]] = (object(), b"x", 1j, int, _Silent(), ...)
"""What no argument may be."""

ANYTHING: Final = frozenset({"algo_state", "state", "new_state", "results", "reservation"})
"""Arguments that are looked into where they are encoded."""

REFUSED: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    ("reserve_trial", "wait"): ("1", None, True, math.nan, -1, []),
    ("reserve_trial", "recover"): ("no", None, 2, 0.5),
    ("reserve_trials", "count"): (0, -1, 2**70, True, 1.5, "1", None),
    ("iter_trials", "batch_size"): (0, -1, 2**70, True, 1.5, "1", None),
    ("delete_experiment", "uid"): (1.5, True, 2**70, "\ud800", [], {}),
    ("get_trial", "uid"): (1.5, True, 2**70, "\ud800", [], {}),
    ("get_trial", "trial"): ("x", 5, {}, SimpleNamespace(id="x")),
    ("write_algorithm_lock", "experiment_id"): (None, True, 2**70, "\ud800"),
    ("write_algorithm_lock", "locked"): (2, "x", None),
    ("set_trial_status", "heartbeat"): ("2026-01-01", 5, True),
    ("reserved_trial", "heartbeat"): ("1", True, math.nan, -1, 0),
    ("reserved_trial", "wait"): ("1", math.nan, -1.0),
    ("reserved_trial", "max_trials"): (-1, False, 1.5, "1", []),
    ("reserved_trial", "max_broken"): (-1, False, math.nan, "1"),
    ("limit_reached", "max_trials"): (-1, False, 1.5, "1", []),
    ("reserved_trial", "on_lost"): ("never", None, [], 1),
    ("acquire_algorithm_lock", "timeout"): ("1", None, True, math.nan),
    ("acquire_algorithm_lock", "retry_interval"): (0, -1, math.nan, "1"),
    ("create_experiment", "config"): (None, 5, "x", [], [("name", "x")]),
    ("create_benchmark", "config"): (None, 5, "x", []),
    ("delete_benchmark", "query"): (None, "x", []),
    ("register_trials", "trials"): (None, "x", {"x": 1}, [5], [None]),
    ("flush_tracker", "timeout"): ("1", True, math.nan),
}
"""What one argument may not be, although another might."""


class WrongArgumentLaws:
    """Law 1: arguments are checked before anything else, and named when they are wrong."""

    async def test_what_no_argument_may_be(self, storage: AsyncStorageProtocol) -> None:
        right = await _right_arguments(storage)
        before = await _everything(storage)
        for method, arguments in right.items():
            for name in arguments.keys() - ANYTHING:
                for value in WRONG:
                    await _refused(storage, method, {**arguments, name: value}, name)
        assert await _everything(storage) == before

    async def test_what_one_argument_may_not_be(self, storage: AsyncStorageProtocol) -> None:
        right = await _right_arguments(storage)
        before = await _everything(storage)
        for (method, name), values in REFUSED.items():
            for value in values:
                await _refused(storage, method, {**right[method], name: value}, name)
        assert await _everything(storage) == before

    async def test_an_id_is_no_experiment(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        uid: Any = experiment.id
        with pytest.raises(MissingArguments, match=r"make \{\"_id\": '") as raised:
            await storage.reserve_trial(uid)
        assert "reserve_trial: experiment is" in str(raised.value)
        with pytest.raises(MissingArguments, match="uid="):
            await storage.fetch_trials(uid)
        wrong: Any = trial
        with pytest.raises(MissingArguments, match=r"its experiment is trial\.experiment"):
            await storage.reserve_trial(wrong)
        for other in ({"_id": [1]}, SimpleNamespace(id=1.5), {"_id": 2**70}):
            with case(other), pytest.raises(InvalidArgument, match="the id of experiment is"):
                await storage.reserve_trial(other)
        found = await storage.reserve_trial({"_id": uid})
        assert found == trial

    async def test_what_was_not_awaited(self, storage: AsyncStorageProtocol) -> None:
        async def make() -> None: ...

        made: Any = make()
        try:
            with pytest.raises(MissingArguments, match="await it first"):
                await storage.reserve_trial(made)
        finally:
            made.close()

    async def test_a_bool_is_no_objective(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        results: tuple[Any, ...] = (True, {"loss": False}, [Result("o", "objective", True)])
        for value in results:
            with case(value), pytest.raises(InvalidResult, match="objective"):
                await storage.complete_trial(trial, value)
        assert (await stored(storage, trial)).status == "reserved"
        await storage.complete_trial(trial, {"loss": 1, "good": True})
        assert (await stored(storage, trial)).statistics == [Result("good", "statistic", True)]


class KeyLaws:
    """Law 1: ids and numbers in other forms do as well."""

    async def test_a_trial_is_found_by_its_key_as_well(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        key: Any = trial.id_override
        assert await storage.get_trial(uid=key, experiment_uid=experiment.id) == trial
        assert await storage.update_trial(uid=key, experiment_uid=experiment.id, worker="w") == 1
        assert (await stored(storage, trial)).worker == "w"
        assert await storage.get_trial(uid=key, experiment_uid="another") is None
        with pytest.raises(MismatchedIds, match="its uid is its `id`"):
            await storage.get_trial(trial, uid=key)

    async def test_what_is_as_good(self, storage: AsyncStorageProtocol) -> None:
        np = pytest.importorskip("numpy")
        experiment = await storage.create_experiment(make_config(_id=7), np.bool_(False))
        wait: Any = np.float32(0)
        assert await storage.reserve_trial(experiment, wait=wait, recover=np.True_) is None
        trials: Any = (make_trial(experiment.name, x) for x in (1, 2))
        assert len(await storage.register_trials(trials)) == 2
        await storage.register_trial(Trial(experiment=7, params={"x": 1}))
        uid: Any = np.int64(7)
        assert len(await storage.fetch_trials(uid=uid) or ()) == 1
        assert await storage.fetch_trials(uid=uid, where={"status": "completed"}) == []
        (trial,) = await storage.reserve_trials(SimpleNamespace(id=uid), np.int8(5))
        assert await storage.update_heartbeat(_look_alike(trial)) == 1
        assert await storage.get_trial(_look_alike(trial)) == trial


def _look_alike(trial: Trial) -> Any:
    """Return an object like the trial of another library."""
    return SimpleNamespace(id=trial.id, experiment=trial.experiment, worker=trial.worker)


async def _right_arguments(storage: AsyncStorageProtocol) -> Mapping[str, dict[str, Any]]:
    """Return arguments for each method with which it would do something."""
    experiment = await storage.create_experiment(make_config())
    trials = await registered(storage, experiment, 2)
    reserved = await storage.reserve_trial(experiment)
    assert reserved is not None
    by_name: dict[str, Any] = {
        "algo_heartbeat": datetime(2026, 1, 1, tzinfo=UTC),
        "algorithm_config": {},
        "config": {"name": "another"},
        "experiment": experiment,
        "experiment_id": "another",
        "heartbeat": None,
        "query": {"name": "none"},
        "status": "broken",
        "trial": trials[1],
        "trials": [make_trial(experiment, 9)],
    }
    right: dict[str, dict[str, Any]] = {}
    for method in vars(AsyncStorageProtocol):
        if method.startswith("_") or method == "aclose":
            continue
        parameters = list(
            inspect.signature(getattr(AsyncStorageProtocol, method)).parameters.values()
        )
        named = (p for p in parameters[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        right[method] = {
            p.name: by_name.get(p.name, None if p.default is p.empty else p.default) for p in named
        }
    right["reserve_trials"]["count"] = 1
    right["update_heartbeat"]["trial"] = reserved
    return right


async def _refused(
    storage: AsyncStorageProtocol, method: str, arguments: dict[str, Any], name: str
) -> None:
    with case((method, name, type(arguments[name]))):
        with pytest.raises(AioStorageError) as raised:
            await _call(getattr(storage, method), arguments)
        error, message = raised.value, str(raised.value)
        assert name in message
        assert len(message) < 400
        if isinstance(error, InvalidArgument):
            assert (error.call, error.argument.partition("[")[0]) == (method, name)
        else:
            assert isinstance(error, MissingArguments | UnsupportedQuery) or name == "heartbeat"


async def _call(method: Callable[..., Any], arguments: dict[str, Any]) -> None:
    made = method(**arguments)
    if hasattr(made, "__aenter__"):
        async with made:
            pass
    elif hasattr(made, "__anext__"):
        await anext(made, None)
    else:
        await made


async def _everything(storage: AsyncStorageProtocol) -> Any:
    """Read all that is stored, and how the locks are."""
    experiments = await storage.fetch_experiments({})
    return (
        experiments,
        [[t.to_dict() for t in await storage.fetch_trials(e) or ()] for e in experiments],
        [repr(await storage.get_algorithm_lock_info(e)) for e in experiments],
        await storage.get_algorithm_lock_info(uid="another"),
        await storage.fetch_benchmark({}),
    )
