"""What Optuna does with studies, on our storage."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from aiostorage import EncodingError, RetryPolicy, Storage, SyncStorage, open_storage
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage.doctor import examine
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Update
from aiostorage.optuna import OptunaStorage, param_writer, studies
from aiostorage.testing import FaultyDriver

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def storage(on_file: OptunaStorage) -> OptunaStorage:
    return on_file


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    n = trial.suggest_int("n", 1, 8, log=True)
    kind = trial.suggest_categorical("kind", ["a", None, True])
    for step in range(3):
        trial.report(x * x + step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x * x + n + (kind == "a")


@pytest.mark.parametrize("pruner", ["MedianPruner", "HyperbandPruner", "SuccessiveHalvingPruner"])
def test_pruned_trials_are_completed_and_nobody_gets_them(
    storage: OptunaStorage, file: str, pruner: str
) -> None:
    made = getattr(optuna.pruners, pruner)()
    study = optuna.create_study(storage=storage, study_name="tune", pruner=made)
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    study.optimize(objective, n_trials=25)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned, "the objective is such that some are pruned"
    assert all(trial.value == trial.intermediate_values[trial.last_step or 0] for trial in pruned)
    with SyncStorage(open_storage(file)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        assert store.reserve_trial(config) is None
        assert store.count_completed_trials(config) == 25
        best = store.best_trial(config)
        assert best is not None
        assert best.objective_value == study.best_value


def test_enqueued_trials_come_first_and_once(storage: OptunaStorage, other: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    study.enqueue_trial({"x": 1.5}, user_attrs={"why": "a guess"})
    study.enqueue_trial({"x": 2.5})
    study.enqueue_trial({"x": 2.5}, skip_if_exists=True)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2
    again = optuna.load_study(study_name="tune", storage=other)
    trials = [study.ask(), again.ask(), study.ask()]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert [trial.suggest_float("x", 0, 3) for trial in trials[:2]] == [1.5, 2.5]
    assert trials[0].user_attrs == {"why": "a guess"}
    number = trials[0]._trial_id
    assert not other.set_trial_state_values(number, TrialState.RUNNING)


def test_many_threads_claim_each_waiting_trial_once(storage: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage)
    for _ in range(20):
        study.enqueue_trial({"x": 1})
    claimed: list[int] = []

    def claim() -> None:
        for _ in range(10):
            claimed.append(study.ask().number)  # noqa: PERF401  each as soon as it is there

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(40))


def test_telling_twice_and_from_another_process(
    storage: OptunaStorage, other: OptunaStorage
) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    again = optuna.load_study(study_name="tune", storage=other)
    first, second = study.ask(), study.ask()
    study.tell(first, 1.0)
    with pytest.raises(ValueError, match="COMPLETE"):
        study.tell(first, 2.0)
    study.tell(first, 2.0, skip_if_finished=True)
    again.tell(second.number, 3.0)
    assert study.trials[1].value == 3.0
    with pytest.raises(UpdateFinishedTrialError):
        second.set_user_attr("late", True)
    with pytest.raises(ValueError, match="COMPLETE"):
        study.tell(second, 4.0)
    assert [trial.value for trial in again.trials] == [1.0, 3.0]


def test_a_trial_that_was_taken_from_its_worker_is_not_written_by_it(
    storage: OptunaStorage, other: OptunaStorage, file: str
) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    again = optuna.load_study(study_name="tune", storage=other)
    late = study.ask()
    late.suggest_float("x", 0, 1)
    late.report(0.5, 0)
    with SyncStorage(open_storage(file, lost_after=0.001)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        [lost] = store.recover_lost_trials(config)
        assert lost.status == "interrupted"
    assert study.trials[0].state == TrialState.WAITING
    successor = again.ask()
    assert successor.number == late.number
    assert successor.suggest_float("x", 0, 1) == late.params["x"], "the params stay"
    assert again.trials[0].intermediate_values == {}, "it begins again"
    for write in (
        lambda: late.report(0.7, 1),
        lambda: late.suggest_float("y", 0, 1),
        lambda: study.tell(late, 7.0),
    ):
        with pytest.raises(UpdateFinishedTrialError, match="no longer this worker's"):
            write()
    again.tell(successor, 1.0)
    assert [trial.value for trial in study.trials] == [1.0]


def test_stale_trials_fail_and_are_tried_again(file: str) -> None:
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)
    dead = OptunaStorage(file, heartbeat_interval=1, grace_period=1)
    alive = OptunaStorage(
        file, heartbeat_interval=1, grace_period=1, heartbeat_stale_trial_callback=retry
    )
    study = optuna.create_study(storage=dead, study_name="tune")
    trial_id = dead.create_new_trial(study._study_id)
    never = dead.create_new_trial(study._study_id)
    dead.set_trial_param(trial_id, "x", 0.5, FloatDistribution(0, 1))
    dead.record_heartbeat(trial_id)
    again = optuna.load_study(study_name="tune", storage=alive)
    assert alive._get_stale_trial_ids(study._study_id) == []
    threading.Event().wait(1.3)
    again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    states = [trial.state for trial in again.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE]
    assert again.trials[2].params == {"x": 0.5}
    assert again.trials[2].system_attrs["failed_trial"] == 0
    assert again.trials[1]._trial_id == never, "it has never had a heartbeat"
    with pytest.raises(UpdateFinishedTrialError):
        dead.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert again.trials[0].state == TrialState.FAIL
    assert alive.get_failed_trial_callback() is retry
    for made in (dead, alive):
        made.close()


def test_a_heartbeat_during_an_outage_is_logged_and_the_next_one_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise Optuna's thread would end, and the trial become stale while it is evaluated."""
    driver = FaultyDriver(MemoryDriver())
    storage = OptunaStorage(
        Storage(driver, retry=RetryPolicy(attempts=1)), heartbeat_interval=1, grace_period=60
    )
    study = optuna.create_study(storage=storage)

    def beats(operations: Sequence[Any]) -> bool:
        return any(isinstance(one, Update) and "heartbeat" in one.changes for one in operations)

    def evaluate(trial: optuna.Trial) -> float:
        threads = [t for t in threading.enumerate() if "_record_heartbeat" in t.name]
        while driver.faults == 0:
            time.sleep(0.01)
        assert threads[0].is_alive()
        return 1.0

    driver.fail_next("before", matching=beats)
    study.optimize(evaluate, n_trials=1)
    assert "a heartbeat failed: injected" in caplog.text
    [trial] = study.trials
    assert trial.state == TrialState.COMPLETE
    storage.close()


def test_the_reservation_of_a_trial_that_has_ended_is_forgotten(storage: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage)
    first, second = study.ask(), study.ask()
    held = storage.studies._studies[study._study_id].tokens
    assert set(held) == {0, 1}
    study.tell(first, 1.0)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert set(held) == {1}
    study.tell(second, 2.0)
    assert [trial.value for trial in study.trials] == [1.0, 2.0]
    assert set(held) == set()


@pytest.mark.parametrize("history", [None, "off", 3])
def test_another_process_sees_every_change(file: str, history: str | int | None) -> None:
    writer, reader = OptunaStorage(file, history=history), OptunaStorage(file)
    study_id = writer.create_new_study([StudyDirection.MAXIMIZE], "tune")
    with pytest.raises(ValueError, match="No trials"):
        reader.get_best_trial(study_id)
    for number in range(30):
        trial_id = writer.create_new_trial(study_id)
        assert reader.get_n_trials(study_id) == number + 1
        writer.set_trial_param(trial_id, "x", number, FloatDistribution(0, 100))
        while reader.get_all_trials(study_id)[-1].params != {"x": number}:
            time.sleep(0.005)  # it may be written a moment later
        writer.set_trial_user_attr(trial_id, "a", number)
        writer.set_trial_intermediate_value(trial_id, 1, number)
        assert reader.get_all_trials(study_id) == writer.get_all_trials(study_id)
        writer.set_trial_state_values(trial_id, TrialState.COMPLETE, [number % 7])
        assert reader.get_best_trial(study_id) == writer.get_best_trial(study_id)
        assert reader.get_best_trial(study_id).number == min(number, 6)
    assert reader.get_all_trials(study_id) == writer.get_all_trials(study_id)
    writer.delete_study(study_id)
    for gone in (
        lambda: reader.get_all_trials(study_id),
        lambda: reader.create_new_trial(study_id),
        lambda: writer.get_all_trials(study_id),
    ):
        with pytest.raises(KeyError):
            gone()
    for made in (writer, reader):
        made.close()


@pytest.mark.parametrize("history", [None, "off"])
def test_trials_begun_elsewhere_before_an_own_one_are_seen(file: str, history: str | None) -> None:
    one, other = OptunaStorage(file, history=history), OptunaStorage(file)
    study_id = one.create_new_study([StudyDirection.MAXIMIZE], "tune")
    one.create_new_trial(study_id)
    assert other.get_n_trials(study_id) == 1
    for first, second in ((one, other), (other, one)):
        ids = [first.create_new_trial(study_id) for _ in range(3)]
        assert ids[2] + 1 == second.create_new_trial(study_id), "it takes the next number unasked"
        for trial_id in ids:
            first.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
        trials = second.get_all_trials(study_id)
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert [trial.state for trial in trials[-4:]] == [
            *[TrialState.COMPLETE] * 3,
            TrialState.RUNNING,
        ]
        assert second.get_all_trials(study_id) == first.get_all_trials(study_id)
    for made in (one, other):
        made.close()


def test_a_trial_asks_the_store_once_for_each_thing_that_is_set(
    storage: OptunaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "MAX_TRIAL_AGE", 60.0)  # however slow this machine is
    monkeypatch.setattr(param_writer, "MAX_WRITE_DELAY", 60.0)
    study = optuna.create_study(storage=storage, study_name="tune")
    asked: list[str] = []
    for name in ("execute", "execute_once", "transact", "transact_once", "insert_next", "read_log"):
        method = getattr(Gateway, name)

        def counted(*args: Any, name: str = name, method: Any = method) -> Any:
            asked.append(name)
            return method(*args)

        monkeypatch.setattr(Gateway, name, counted)

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("twice", 2 * x)
        trial.report(x, 1)
        assert not trial.should_prune()
        return x + trial.suggest_int("n", 1, 3)

    study.sampler = optuna.samplers.RandomSampler()
    study.pruner = optuna.pruners.ThresholdPruner(upper=2)
    study.optimize(objective, n_trials=3)
    asked.clear()
    study.optimize(objective, n_trials=5)
    # the attribute and the intermediate value, and the end, with the params before them
    assert asked == ["read_log", "insert_next", *["execute"] * 3] * 5


@pytest.mark.parametrize(("before", "after"), [("load", "train"), (0, False), (1, 1.0)])
def test_what_is_set_back_elsewhere_is_seen(
    storage: OptunaStorage, other: OptunaStorage, before: Any, after: Any
) -> None:
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    trial_id = storage.create_new_trial(study_id)
    for value in (before, after, before):
        storage.set_trial_user_attr(trial_id, "k", value)
        [trial] = other.get_all_trials(study_id)
        assert repr(trial.user_attrs) == repr({"k": value})
        assert repr(other.get_trial(trial_id).user_attrs) == repr({"k": value})


def test_what_others_have_set_comes_with_what_is_set_here(file: str) -> None:
    one, other = OptunaStorage(file), OptunaStorage(file)
    trial_id = one.create_new_trial(one.create_new_study([StudyDirection.MAXIMIZE], "tune"))
    other.set_trial_user_attr(trial_id, "note", "seen")
    one.set_trial_param(trial_id, "x", 0.5, FloatDistribution(0, 1))
    for _ in range(2):
        trial = one.get_trial(trial_id)
        assert (trial.user_attrs, trial.params) == ({"note": "seen"}, {"x": 0.5})
    other.set_trial_user_attr(trial_id, "note", "seen again")
    one.set_trial_intermediate_value(trial_id, 1, 2.0)
    assert one.get_trial(trial_id) == other.get_trial(trial_id)
    other.set_trial_param(trial_id, "y", 0.25, FloatDistribution(0, 1))
    one.set_trial_param(trial_id, "z", 0.75, FloatDistribution(0, 1))
    assert one.get_trial(trial_id).params == {"x": 0.5, "y": 0.25, "z": 0.75}
    one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert one.get_trial(trial_id) == other.get_trial(trial_id)
    for made in (one, other):
        made.close()


def test_what_another_program_does_to_trials_is_seen(storage: OptunaStorage, file: str) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    for x in (1, 2, 3):
        study.enqueue_trial({"x": x})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 9), n_trials=1)
    with SyncStorage(open_storage(file)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        trial = store.reserve_trial(config)
        assert trial is not None
        store.complete_trial(trial, 17.0)
        [finished, *_] = study.trials
        assert finished.value == 1.0
        store.update_trials(config, where={"optuna.number": 0}, status="new")
        store.delete_trials(config, where={"optuna.number": 2})
    assert [(t.number, t.state, t.value) for t in study.trials] == [
        (0, TrialState.WAITING, None),
        (1, TrialState.COMPLETE, 17.0),
    ]


def test_studies_are_copied_and_deleted(storage: OptunaStorage, tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    study.set_user_attr("team", {"a.b": ["c"]})
    study.optimize(objective, n_trials=5)
    study.enqueue_trial({"x": 1.0})
    target = OptunaStorage(f"track:///{tmp_path}/copy.json")
    optuna.copy_study(from_study_name="tune", from_storage=storage, to_storage=target)
    copied = optuna.load_study(study_name="tune", storage=target)
    assert copied.user_attrs == {"team": {"a.b": ["c"]}}
    for ours, theirs in zip(study.trials, copied.trials, strict=True):
        ours._trial_id = theirs._trial_id
        assert ours == theirs
    with pytest.raises(DuplicatedStudyError):
        optuna.copy_study(from_study_name="tune", from_storage=storage, to_storage=target)
    target.close()
    optuna.delete_study(study_name="tune", storage=storage)
    assert optuna.get_all_study_names(storage) == []
    with pytest.raises(KeyError):
        optuna.load_study(study_name="tune", storage=storage)


def test_a_study_id_is_never_given_twice(storage: OptunaStorage, other: OptunaStorage) -> None:
    ids = [storage.create_new_study([StudyDirection.MINIMIZE]) for _ in range(3)]
    assert ids == [1, 2, 3]
    for study_id in ids[1:]:
        storage.delete_study(study_id)
    assert other.create_new_study([StudyDirection.MINIMIZE]) == 4
    assert [study._study_id for study in storage.get_all_studies()] == [1, 4]


def test_a_study_beside_an_experiment_of_ours(storage: OptunaStorage, file: str) -> None:
    with SyncStorage(open_storage(file)) as store:
        store.create_experiment({"name": "ours"})
        store.create_experiment({"name": "by Oríon", "_id": 1})
    assert storage.get_all_studies() == []
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("ours")
    with pytest.raises(DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name="ours")
    with pytest.raises(KeyError):
        storage.get_study_directions(1)
    assert storage.create_new_study([StudyDirection.MINIMIZE], "study") == 2


def test_a_study_that_was_copied_to_a_taken_id(
    storage: OptunaStorage, file: str, tmp_path: Path
) -> None:
    from aiostorage.transfer import copy_storage

    study = optuna.create_study(storage=storage, study_name="tune")
    study.optimize(objective, n_trials=3)
    url = f"sqlite:///{tmp_path}/two.db"
    target = OptunaStorage(url)
    optuna.create_study(storage=target, study_name="first")
    target.close()

    async def move() -> None:
        async with open_storage(file) as source, open_storage(url) as destination:
            await copy_storage(source, destination)

    anyio.run(move)
    target = OptunaStorage(url)
    copied = optuna.load_study(study_name="tune", storage=target)
    assert copied._study_id != study._study_id
    assert [trial.params for trial in copied.trials] == [trial.params for trial in study.trials]
    copied.optimize(objective, n_trials=2)
    assert [trial.number for trial in copied.trials] == list(range(5))
    optuna.delete_study(study_name="tune", storage=target)
    assert optuna.get_all_study_names(target) == ["first"]
    target.close()


def test_a_pickled_copy_goes_on_with_the_same_trial(storage: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    trial = study.ask()
    copied = pickle.loads(pickle.dumps(trial))
    copied.suggest_float("x", 0, 1)
    copied.study.tell(copied, 1.0)
    copied.storage.close()
    assert study.trials[0].value == 1.0
    with pytest.raises(UpdateFinishedTrialError):
        trial.report(1.0, 1)


FORKS = """
import os, sys, optuna
from aiostorage.optuna import OptunaStorage
optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = OptunaStorage(sys.argv[1])
study = optuna.create_study(storage=storage, study_name="tune")
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
child = os.fork()
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
storage.close()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_goes_on(storage: OptunaStorage, file: str) -> None:
    subprocess.run([sys.executable, "-c", FORKS, file], check=True, timeout=60)
    study = optuna.load_study(study_name="tune", storage=storage)
    assert [trial.number for trial in study.trials] == list(range(13))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize(
    ("set_one", "error"),
    [
        (lambda s, t: s.set_trial_user_attr(t, "big", 2**70), EncodingError),
        (lambda s, t: s.set_trial_user_attr(t, "odd", {1, 2}), TypeError),
        (lambda s, t: s.set_trial_user_attr(t, "half", "\ud800"), EncodingError),
        (
            lambda s, t: s.set_trial_param(t, "big", 0, CategoricalDistribution((2**70,))),
            EncodingError,
        ),
    ],
)
def test_values_that_no_engine_takes_are_refused_and_the_trial_goes_on(
    storage: OptunaStorage, set_one: Any, error: type[Exception]
) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    with pytest.raises(error, match=r"big|odd|half|set is not JSON"):
        set_one(storage, trial._trial_id)
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 1.0)
    assert study.trials[0].user_attrs == {}


def test_names_that_no_path_can_have(storage: OptunaStorage, other: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="tune")
    trial = study.ask()
    names = ["", "a.b", "a", "$x", "01", "ä", "%", "a.b.c"]
    for name in names:
        trial.set_user_attr(name, name)
        study.set_user_attr(name, {"": name})
        trial.suggest_float(name, 0, 1)
    study.tell(trial, 1.0)
    again = optuna.load_study(study_name="tune", storage=other)
    assert again.trials == study.trials
    assert list(again.trials[0].params) == names
    assert again.user_attrs == {name: {"": name} for name in names}


def test_the_doctor_finds_nothing_wrong(storage: OptunaStorage, file: str) -> None:
    study = optuna.create_study(storage=storage, directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1), n_trials=3)
    study.enqueue_trial({"x": 1})
    assert anyio.run(examine, file).findings == ()


@pytest.mark.parametrize(
    "arguments",
    [
        {"heartbeat_interval": 0},
        {"grace_period": -1},
        {"failed_trial_callback": print, "heartbeat_stale_trial_callback": print},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        OptunaStorage("memory://", **arguments)


def test_options_belong_to_a_url() -> None:
    with pytest.raises(TypeError, match="lost_after"):
        OptunaStorage(open_storage("memory://"), lost_after=3)
    assert OptunaStorage("memory://", lost_after=3).lost_after == 3
