"""Params that are in the store a moment after they were set."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from aiostorage import RetryPolicy, Storage, SyncStorage, TemporaryBackendError, open_storage
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Operation, Take, Update
from aiostorage.optuna import OptunaStorage, param_writer, trial_writes
from aiostorage.optuna.study_ids import parts_of_trial_id
from aiostorage.testing import FaultyDriver

Pair = tuple[OptunaStorage, OptunaStorage]

UP = [StudyDirection.MAXIMIZE]

UNIT = FloatDistribution(0, 1)

NAMES = ("x", "y", "z")

RELATIVE = "tpe:relative_params:0"

DEADLINE = 20.0


def known_names(storage: OptunaStorage, *names: str) -> int:
    """Return a study in which a finished trial has params of these names."""
    study_id = storage.create_new_study(UP, "tune")
    params = dict.fromkeys(names or NAMES, 0.5)
    first = create_trial(params=params, distributions=dict.fromkeys(params, UNIT), value=1.0)
    storage.create_new_trial(study_id, first)
    storage.get_all_trials(study_id)
    return study_id


def waiting(storage: OptunaStorage) -> dict[int, list[str]]:
    """Return the names of the params that wait to be written, by trial."""
    unwritten = storage.studies.unwritten
    return {trial_id: [one.name for one in params] for trial_id, params in unwritten.items()}


def soon(found: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.005)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let params wait until something else is written."""
    monkeypatch.setattr(param_writer, "MAX_WRITE_DELAY", 3600.0)


def test_params_are_seen_here_at_once_and_elsewhere_soon(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    reads: tuple[Callable[[], FrozenTrial], ...] = (
        lambda: one.get_trial(trial_id),
        lambda: one.get_trial(trial_id),  # once more, from the store
        lambda: one.get_all_trials(study_id)[-1],
        lambda: one.get_all_trials(study_id, states=(TrialState.RUNNING,))[0],
    )
    for number, name in enumerate(NAMES, 1):
        one.set_trial_param(trial_id, name, 1 / number, UNIT)
        with ThreadPoolExecutor(1) as thread:
            seen = [thread.submit(read).result() for read in reads]
        expected = {name: 1 / place for place, name in enumerate(NAMES[:number], 1)}
        assert [trial.params for trial in seen] == [expected] * 4
        assert [[*trial.distributions] for trial in seen] == [[*NAMES[:number]]] * 4
    soon(lambda: other.get_trial(trial_id).params == expected)
    assert other.get_all_trials(study_id)[-1] == one.get_all_trials(study_id)[-1]
    soon(lambda: not waiting(one))


@pytest.mark.usefixtures("patient")
def test_params_go_with_the_next_write_of_their_trial(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one, "a", "b", "c", "d")
    trial_id = one.create_new_trial(study_id)
    one.set_trial_param(trial_id, "a", 0.1, UNIT)
    one.set_trial_param(trial_id, "b", 0.2, UNIT)
    assert waiting(one) == {trial_id: ["a", "b"]}
    assert other.get_trial(trial_id).params == {}
    one.set_trial_intermediate_value(trial_id, 1, 2.0)
    assert other.get_trial(trial_id).params == {"a": 0.1, "b": 0.2}
    one.set_trial_param(trial_id, "c", 0.3, UNIT)
    one.set_trial_user_attr(trial_id, "k", "v")
    assert other.get_trial(trial_id) == one.get_trial(trial_id)
    one.set_trial_param(trial_id, "d", 0.4, UNIT)
    assert waiting(one) == {trial_id: ["d"]}
    one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    for storage in pair:
        trial = storage.get_trial(trial_id)
        assert trial.params == {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
        assert (trial.state, trial.user_attrs) == (TrialState.COMPLETE, {"k": "v"})
    assert not waiting(one)


@pytest.mark.usefixtures("patient")
def test_what_another_process_adds_meanwhile_stays(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    for storage, name, value in (
        (one, "x", 0.1),
        (other, "y", 0.2),
        (one, "z", 0.3),
        (other, "x", 0.9),  # the one that is written last stands
    ):
        storage.set_trial_param(trial_id, name, value, UNIT)
    one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    for storage in pair:
        assert storage.get_trial(trial_id).params == {"x": 0.1, "y": 0.2, "z": 0.3}


@pytest.mark.parametrize("end", ["in time", "at close"])
def test_params_of_a_trial_that_was_taken_away_never_reach_its_successor(
    file: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(param_writer, "MAX_WRITE_DELAY", 0.5 if end == "in time" else 3600.0)
    one, other = OptunaStorage(file), OptunaStorage(file)
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    one.set_trial_param(trial_id, "x", 0.1, UNIT)
    with SyncStorage(open_storage(file, lost_after=0.001)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        time.sleep(0.01)
        [_] = store.recover_lost_trials(config)
    assert other.set_trial_state_values(trial_id, TrialState.RUNNING)
    other.set_trial_param(trial_id, "y", 0.2, UNIT)
    if end == "at close":
        one.close()
        error: type[Exception] = Exception
    else:
        soon(lambda: not waiting(one))
        error = UpdateFinishedTrialError
    for write in (
        lambda: one.set_trial_param(trial_id, "z", 0.3, UNIT),
        lambda: one.set_trial_intermediate_value(trial_id, 1, 1.0),
        lambda: one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0]),
    ):
        with pytest.raises(error):
            write()
    other.set_trial_state_values(trial_id, TrialState.COMPLETE, [2.0])
    assert other.get_trial(trial_id).params == {"y": 0.2}
    for made in (one, other):
        made.close()


def taken_away(one: OptunaStorage, other: OptunaStorage) -> tuple[int, int]:
    """Let `other` take over a trial of which a param waits in `one`; return its study and it."""
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    one.set_trial_param(trial_id, "x", 0.1, UNIT)
    other.set_trial_state_values(trial_id, TrialState.WAITING)
    assert other.set_trial_state_values(trial_id, TrialState.RUNNING)
    return study_id, trial_id


@pytest.mark.usefixtures("patient")
def test_a_trial_that_is_known_to_be_taken_away_takes_no_more_params(pair: Pair) -> None:
    one, other = pair
    study_id, trial_id = taken_away(one, other)
    assert one.get_all_trials(study_id)[-1].params == {}, "it is another one's"
    for name in ("y", "y"):
        with pytest.raises(UpdateFinishedTrialError):
            one.set_trial_param(trial_id, name, 0.2, UNIT)
    other.set_trial_state_values(trial_id, TrialState.COMPLETE, [2.0])
    assert one.get_trial(trial_id).params == other.get_trial(trial_id).params == {}


@pytest.mark.usefixtures("patient")
def test_who_fails_a_successor_gives_it_nothing(pair: Pair) -> None:
    """As a process that was paused, and finds its old trial stale under another worker."""
    one, other = pair
    study_id, trial_id = taken_away(one, other)
    other.record_heartbeat(trial_id)
    one.heartbeat_interval, one.grace_period = 60, 1e-9  # type: ignore[assignment]
    soon(lambda: one._get_stale_trial_ids(study_id) == [trial_id])
    one.set_trial_state_values(trial_id, TrialState.FAIL)
    assert one.get_trial(trial_id).params == {}
    with pytest.raises(UpdateFinishedTrialError):
        other.set_trial_param(trial_id, "y", 0.2, UNIT)
        other.set_trial_user_attr(trial_id, "k", 1)
    assert other.get_trial(trial_id).params == {}


def test_who_ends_a_trial_of_another_process_waits_for_its_params(pair: Pair) -> None:
    """As one who has asked in one process and tells in another, right afterwards."""
    one, other = pair
    study_id = known_names(one)
    for _ in range(3):
        trial_id = one.create_new_trial(study_id)
        for name in NAMES:
            one.set_trial_param(trial_id, name, 0.5, UNIT)
        other.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
        for storage in pair:
            trial = storage.get_trial(trial_id)
            assert (trial.state, [*trial.params]) == (TrialState.COMPLETE, [*NAMES])
    soon(lambda: not waiting(one))


@pytest.mark.usefixtures("patient")
def test_who_ends_a_trial_of_a_dead_process_does_not_wait_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    one.set_trial_param(trial_id, "x", 0.5, UNIT)
    monkeypatch.setattr(trial_writes, "PARAMS_TIMEOUT", 0.05)
    other.set_trial_state_values(trial_id, TrialState.FAIL)
    assert other.get_trial(trial_id).params == {}
    with pytest.raises(UpdateFinishedTrialError):
        one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert one.get_trial(trial_id) == other.get_trial(trial_id)


def test_params_that_come_late_wait_for_those_behind_them(
    storage: OptunaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a sampler that thinks for longer than params wait."""
    study_id = known_names(storage)
    trial_id = storage.create_new_trial(study_id)
    soon(lambda: not storage.studies._studies[study_id].unwritten)
    monkeypatch.setattr(param_writer, "MAX_WRITE_DELAY", 3600.0)
    for name in NAMES:
        storage.set_trial_param(trial_id, name, 0.5, UNIT)
    assert waiting(storage) == {trial_id: ["y", "z"]}
    storage.set_trial_state_values(trial_id, TrialState.WAITING)
    assert not waiting(storage)
    assert [*storage.get_trial(trial_id).params] == [*NAMES], "it waits with all of them"


@pytest.mark.usefixtures("patient")
def test_a_name_that_no_trial_has_is_written_at_once(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one, "x")
    ids = [storage.create_new_trial(study_id) for storage in pair]
    one.set_trial_param(ids[0], "n", 3, IntDistribution(1, 8))
    with pytest.raises(ValueError, match="distribution"):
        other.set_trial_param(ids[1], "n", 0.5, UNIT)
    with pytest.raises(ValueError, match="distribution"):
        one.set_trial_param(ids[0], "x", 3, IntDistribution(1, 8))
    other.set_trial_param(ids[1], "n", 4, IntDistribution(1, 8))
    assert not waiting(other).get(ids[0])
    assert one.get_trial(ids[0]).params == {"n": 3}
    assert other.get_trial(ids[1]).params == {"n": 4}


@pytest.mark.usefixtures("patient")
def test_a_waiting_trial_with_fixed_params(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one)
    study = optuna.load_study(study_name="tune", storage=one)
    study.enqueue_trial({"x": 0.25})
    fixed = one.create_new_trial(study_id, create_trial(state=TrialState.WAITING))
    one.set_trial_param(fixed, "x", 0.5, UNIT)
    assert other.get_trial(fixed).params == {"x": 0.5}, "a trial that does not run is written to"
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.25
    trial.suggest_float("y", 0, 1)
    assert waiting(one) == {trial._trial_id: ["x", "y"]}
    study.tell(trial, 1.0)
    assert one.set_trial_state_values(fixed, TrialState.RUNNING)
    one.set_trial_param(fixed, "y", 0.75, UNIT)
    assert one.get_trial(fixed).params == {"x": 0.5, "y": 0.75}
    one.set_trial_state_values(fixed, TrialState.PRUNED)
    assert other.get_trial(fixed).params == {"x": 0.5, "y": 0.75}
    assert other.get_all_trials(study_id) == one.get_all_trials(study_id)


@pytest.mark.usefixtures("patient")
def test_a_late_answer_from_before_the_trial_began_loses_nothing(storage: OptunaStorage) -> None:
    """As one thread reads a trial that waits while another one begins it and sets a param."""
    study_id = known_names(storage)
    trial_id = storage.create_new_trial(study_id, create_trial(state=TrialState.WAITING))
    number = parts_of_trial_id(trial_id)[1]
    study = storage.studies._studies[study_id]
    before = storage._call(lambda ours: ours.records.read(study.uid, number))
    assert before is not None
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    study.take(before)
    assert waiting(storage) == {trial_id: ["x"]}
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    again = OptunaStorage(storage._storage)
    for trial in (storage.get_trial(trial_id), again.get_trial(trial_id)):
        assert (trial.state, trial.params) == (TrialState.COMPLETE, {"x": 0.5})


def writes_params(operations: Sequence[Operation[Any]]) -> bool:
    return any(isinstance(one, Update | Take) and "params" in one.changes for one in operations)


@pytest.fixture
def faulty() -> FaultyDriver:
    return FaultyDriver(MemoryDriver())


@pytest.fixture
def unsteady(faulty: FaultyDriver) -> Iterator[OptunaStorage]:
    """Give a storage whose engine may fail, and which does not try again."""
    storage = OptunaStorage(Storage(faulty, retry=RetryPolicy(attempts=1)))
    yield storage
    storage.close()


@pytest.mark.parametrize("fault", ["before", "lost", "after"])
def test_what_could_not_be_written_is_written_later(
    unsteady: OptunaStorage, faulty: FaultyDriver, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trial_id = unsteady.create_new_trial(known_names(unsteady))
    faulty.fail_next(fault, count=3, matching=writes_params)
    unsteady.set_trial_param(trial_id, "x", 0.5, UNIT)
    unsteady.set_trial_param(trial_id, "y", 0.5, UNIT)
    soon(lambda: faulty.faults)
    assert unsteady.get_trial(trial_id).params == {"x": 0.5, "y": 0.5}
    soon(lambda: not waiting(unsteady))
    with SyncStorage(Storage(faulty)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        [stored] = store.fetch_trials(config, where={"status": "reserved"}) or []
    assert stored.params == {"x": 0.5, "y": 0.5}
    assert caplog.text.count("its params are not written yet") <= 1


def test_the_next_write_raises_what_is_wrong_and_loses_nothing(
    unsteady: OptunaStorage, faulty: FaultyDriver, caplog: pytest.LogCaptureFixture
) -> None:
    trial_id = unsteady.create_new_trial(known_names(unsteady))
    faulty.fail_next("before", count=1000, matching=writes_params)
    unsteady.set_trial_param(trial_id, "x", 0.5, UNIT)
    soon(lambda: "its params are not written yet" in caplog.text)
    for write in (
        lambda: unsteady.set_trial_param(trial_id, "y", 0.5, UNIT),
        lambda: unsteady.set_trial_user_attr(trial_id, "k", 1),
        lambda: unsteady.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0]),
    ):
        with pytest.raises(TemporaryBackendError):
            write()
    assert unsteady.get_trial(trial_id).params == {"x": 0.5}
    faulty._planned.clear()
    unsteady.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    trial = unsteady.get_trial(trial_id)
    assert (trial.params, trial.user_attrs) == ({"x": 0.5}, {})


@pytest.mark.usefixtures("patient")
def test_deleted_studies_and_closed_storages_leave_nothing_waiting(file: str) -> None:
    storage, other = OptunaStorage(file), OptunaStorage(file)
    gone = storage.create_new_trial(known_names(storage))
    storage.set_trial_param(gone, "x", 0.5, UNIT)
    other.delete_study(1)
    taken = storage.create_new_trial(_second(storage))
    storage.set_trial_param(taken, "x", 0.5, UNIT)
    storage.delete_study(2)
    with pytest.raises(KeyError):
        storage.set_trial_param(taken, "y", 0.5, UNIT)
    kept = storage.create_new_trial(_second(storage))
    storage.set_trial_param(kept, "x", 0.5, UNIT)
    storage.close()
    assert other.get_trial(kept).params == {"x": 0.5}
    other.close()


def _second(storage: OptunaStorage) -> int:
    study_id = storage.create_new_study(UP)
    first = create_trial(params={"x": 0.5}, distributions={"x": UNIT}, value=1.0)
    storage.create_new_trial(study_id, first)
    return study_id


def test_the_facade_writes_them_before_it_is_closed(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(param_writer, "MAX_WRITE_DELAY", 3600.0)
    with SyncStorage(open_storage(file), in_running_loop=True) as facade:
        storage = OptunaStorage(facade)
        trial_id = storage.create_new_trial(known_names(storage))
        storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    other = OptunaStorage(file)
    assert other.get_trial(trial_id).params == {"x": 0.5}
    other.close()


@pytest.mark.usefixtures("patient")
def test_a_pickled_copy_knows_them_and_writes_them(file: str) -> None:
    storage = OptunaStorage(file)
    study_id = known_names(storage)
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_system_attr(trial_id, RELATIVE, "earlier")
    storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    copied = pickle.loads(pickle.dumps(storage))
    again = pickle.loads(pickle.dumps(copied))
    for twin in (copied, again):
        assert twin.get_all_trials(study_id)[-1].params == {"x": 0.5}
        assert twin.get_trial(trial_id).params == {"x": 0.5}
    again.close()
    copied.set_trial_param(trial_id, "y", 0.25, UNIT)
    storage.set_trial_param(trial_id, "z", 0.75, UNIT)
    storage.close()
    copied.set_trial_system_attr(trial_id, RELATIVE, "later")
    copied.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    copied.close()
    again = OptunaStorage(file)
    assert again.get_trial(trial_id).params == {"x": 0.5, "y": 0.25, "z": 0.75}
    assert again.get_trial(trial_id).system_attrs == {RELATIVE: "later"}
    again.close()


@pytest.mark.usefixtures("patient")
def test_a_copy_sets_anew_what_waits(file: str) -> None:
    storage = OptunaStorage(file)
    trial_id = storage.create_new_trial(known_names(storage))
    storage.set_trial_system_attr(trial_id, RELATIVE, "earlier")
    copied = pickle.loads(pickle.dumps(storage))
    assert copied.get_trial(trial_id).system_attrs == {RELATIVE: "earlier"}
    copied.set_trial_system_attr(trial_id, RELATIVE, "later")
    assert copied.get_trial(trial_id).system_attrs == {RELATIVE: "later"}
    copied.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    for one in (storage, copied):
        one.close()
    again = OptunaStorage(file)
    assert again.get_trial(trial_id).system_attrs == {RELATIVE: "later"}
    again.close()


def test_threads_of_one_study_do_not_lose_any(file: str) -> None:
    storage = OptunaStorage(file)
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        return sum(trial.suggest_float(f"x{n}", 0, 1) for n in range(5))

    study.optimize(objective, n_trials=60, n_jobs=4)
    storage.close()
    again = OptunaStorage(file)
    for trial in optuna.load_study(study_name=study.study_name, storage=again).trials:
        assert trial.value == sum(trial.params[f"x{n}"] for n in range(5))
    again.close()


EXITS = """
import multiprocessing, os, sys, optuna
from aiostorage.optuna import OptunaStorage, param_writer
optuna.logging.set_verbosity(optuna.logging.WARNING)
param_writer.MAX_WRITE_DELAY = 3600.0

def suggests(storage):
    study = optuna.load_study(study_name="tune", storage=storage)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    return study, trial

def asks(url):
    suggests(OptunaStorage(url))

if __name__ == "__main__":
    url, how = sys.argv[1:]
    if how == "exit":
        asks(url)
    elif how == "os.fork":
        study, trial = suggests(OptunaStorage(url))
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            sys.exit(code)
        assert list(study.trials[-1].params) == ["x"]
        trial.suggest_float("y", 0, 1)
        study.tell(trial, 1.0)
        study._storage.close()
    else:
        process = multiprocessing.get_context(how).Process(target=asks, args=(url,))
        process.start()
        process.join()
        sys.exit(process.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    ("how", "state", "names"),
    [
        ("exit", TrialState.RUNNING, ["x"]),
        ("os.fork", TrialState.COMPLETE, ["x", "y"]),
        ("fork", TrialState.RUNNING, ["x"]),
        ("spawn", TrialState.RUNNING, ["x"]),
    ],
)
def test_a_process_that_ends_writes_them(
    file: str, tmp_path: Any, how: str, state: TrialState, names: list[str]
) -> None:
    storage = OptunaStorage(file)
    study_id = known_names(storage)
    script = tmp_path / "ends.py"
    script.write_text(EXITS)
    ended = subprocess.run(
        # newer Pythons warn of every fork of a process with threads
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", script, file, how],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert ended.stderr == ""
    trial = storage.get_all_trials(study_id)[-1]
    assert (trial.state, [*trial.params]) == (state, names)
    storage.close()


def test_what_a_sampler_has_chosen_together_waits_like_params(pair: Pair) -> None:
    one, other = pair
    study_id = known_names(one)
    trial_id = one.create_new_trial(study_id)
    one.set_trial_system_attr(trial_id, RELATIVE, "{}")
    one.set_trial_system_attr(trial_id, RELATIVE, '{"x": 0.5}')
    one.set_trial_param(trial_id, "x", 0.5, UNIT)
    assert waiting(one) == {trial_id: [RELATIVE, "x"]}
    expected = {RELATIVE: '{"x": 0.5}'}
    assert one.get_trial(trial_id).system_attrs == expected
    assert other.get_trial(trial_id).system_attrs == {}
    soon(lambda: other.get_trial(trial_id).system_attrs == expected)
    assert other.get_trial(trial_id).params == {"x": 0.5}
    one.set_trial_system_attr(trial_id, RELATIVE, "{}")
    assert other.get_trial(trial_id).system_attrs == {RELATIVE: "{}"}, "it came late"


@pytest.mark.usefixtures("patient")
def test_another_attribute_takes_it_along(pair: Pair) -> None:
    one, other = pair
    trial_id = one.create_new_trial(known_names(one))
    one.set_trial_system_attr(trial_id, RELATIVE, "{}")
    one.set_trial_system_attr(trial_id, "k", 1)
    assert other.get_trial(trial_id).system_attrs == {RELATIVE: "{}", "k": 1}
    assert not waiting(one)
    with pytest.raises(TypeError):
        one.set_trial_system_attr(trial_id, RELATIVE, object())
    one.set_trial_state_values(trial_id, TrialState.FAIL)
    assert one.get_trial(trial_id) == other.get_trial(trial_id)


@pytest.mark.usefixtures("patient")
def test_a_trial_of_three_params_costs_two_writes(
    storage: OptunaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = known_names(storage)
    asked: list[str] = []
    for name in ("execute", "execute_once", "transact", "transact_once", "insert_next"):
        method = getattr(Gateway, name)

        def counted(*args: Any, name: str = name, method: Any = method) -> Any:
            asked.append(name)
            return method(*args)

        monkeypatch.setattr(Gateway, name, counted)
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_system_attr(trial_id, RELATIVE, "{}")
    for name in NAMES:
        storage.set_trial_param(trial_id, name, 0.5, UNIT)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert asked == ["insert_next", "execute"]
