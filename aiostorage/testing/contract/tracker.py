"""The contract of a tracker, as tests: subclass `TrackerContract` for yours."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest

from aiostorage.experiment import Experiment
from aiostorage.trackers.protocol import TrackedExperiment, TrackedTrial, Tracker, TrackerRun
from aiostorage.trial import Trial, TrialStatus

__all__ = ["Look", "TrackerContract"]

Look: TypeAlias = Callable[[str], Sequence[TrackerRun]]
"""Reads the runs of an experiment, by its key, with the tracker's own client."""

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def _an_experiment(name: str = "tune", uid: str = "e1", **config: Any) -> Experiment:
    """Return an experiment as a store has it."""
    return Experiment.from_config({"_id": uid, "name": name, "version": 1, **config})


def _a_trial(x: Any = 1.5, experiment: str = "e1", **fields: Any) -> Trial:
    """Return a trial as a store has it; it is reserved unless `fields` say otherwise."""
    fields = {"status": "reserved", "start_time": START, **fields}
    params = fields.pop("params", {"x": x, "layers": {"width": 64}})
    made = Trial(experiment=experiment, params=params, submit_time=START, **fields)
    return Trial.from_dict({**made.to_dict(), "_id": f"t{x}"})


def _run_of(tracker: Tracker, tracked: TrackedTrial) -> str:
    """Send a reserved trial; return the key of its run."""
    key = tracker.send_trial(tracked)
    assert isinstance(key, str)
    return key


class TrackerContract:
    """Every law of `aiostorage.trackers.Tracker`.

    A subclass has two fixtures, `tracker` and `look`. The tests call the tracker as the deliverer
    does, from threads and without an event loop.

    Attributes
    ----------
    deletes : bool
        Whether the tracker can delete; else its deletions do nothing.
    finds : bool
        Whether it finds a run whose key is lost; else a second one may be made.
    reads : bool
        Whether `fetch_metrics` reads what was logged; else it raises `TrackerError`.

    Examples
    --------
    >>> class TestMine(TrackerContract):
    ...     @pytest.fixture
    ...     def tracker(self, tmp_path):
    ...         tracker = MyTracker(tmp_path)
    ...         yield tracker
    ...         tracker.close()
    ...
    ...     @pytest.fixture
    ...     def look(self, tmp_path):
    ...         return lambda experiment_key: my_client.read_runs(tmp_path, experiment_key)
    """

    deletes: bool = True
    finds: bool = True
    reads: bool = True

    @pytest.fixture
    def tracker(self) -> Iterator[Tracker]:
        """Give a tracker that is not open and has nothing yet, and close it after the test."""
        raise NotImplementedError

    @pytest.fixture
    def look(self) -> Look:
        """Give a function that reads the runs of an experiment that are not deleted.

        The ``status`` of each is the trial's own, which a tracker with fewer states keeps beside
        its own. The function may close the tracker first, if only that makes all visible; so
        nothing is sent after it in a test.
        """
        raise NotImplementedError

    @pytest.fixture
    def opened(self, tracker: Tracker) -> Tracker:
        """Give the tracker, open."""
        tracker.open()
        return tracker

    @pytest.fixture
    def sent(self, opened: Tracker) -> TrackedExperiment:
        """Give an experiment that the tracker has."""
        experiment = _an_experiment()
        return TrackedExperiment(experiment, opened.send_experiment(TrackedExperiment(experiment)))

    # ------------------------------------------------------------------------------ lifetime

    def test_it_is_a_tracker(self, tracker: Tracker) -> None:
        assert isinstance(tracker, Tracker)
        assert tracker.name == tracker.name.lower() != ""
        assert isinstance(tracker.location, str)
        assert tracker.location
        assert tracker.max_concurrency >= 1

    def test_open_and_close_may_come_twice(self, tracker: Tracker) -> None:
        tracker.open()
        tracker.open()
        tracker.close()
        tracker.close()
        tracker.open()
        assert tracker.send_experiment(TrackedExperiment(_an_experiment()))

    def test_it_may_be_closed_without_being_opened(self, tracker: Tracker) -> None:
        tracker.close()

    def test_a_pickled_copy_is_opened_anew(self, tracker: Tracker) -> None:
        before = pickle.loads(pickle.dumps(tracker))  # noqa: S301  our own
        tracker.open()
        copy = pickle.loads(pickle.dumps(tracker))  # noqa: S301  as above
        tracker.close()
        assert before.location == copy.location == tracker.location
        copy.open()
        try:
            assert copy.send_experiment(TrackedExperiment(_an_experiment()))
        finally:
            copy.close()

    # --------------------------------------------------------------------------- experiments

    def test_an_experiment_keeps_its_key(self, opened: Tracker) -> None:
        experiment = TrackedExperiment(_an_experiment())
        key = opened.send_experiment(experiment)
        assert isinstance(key, str)
        assert opened.send_experiment(replace(experiment, key=key)) == key
        if self.finds:
            assert opened.send_experiment(experiment) == key

    def test_versions_and_names_are_experiments_of_their_own(self, opened: Tracker) -> None:
        made = [
            _an_experiment(),
            Experiment.from_config({"_id": "e2", "name": "tune", "version": 2}),
            _an_experiment("other", "e3"),
        ]
        keys = {opened.send_experiment(TrackedExperiment(experiment)) for experiment in made}
        assert len(keys) == len(made)

    def test_a_name_of_any_characters(self, opened: Tracker, look: Look) -> None:
        odd = _an_experiment("a/b: \"c\" %s 'd' — ü\n" + "long" * 100, "e4")
        tracked = TrackedExperiment(odd, opened.send_experiment(TrackedExperiment(odd)))
        _run_of(opened, TrackedTrial(tracked, _a_trial(experiment="e4")))
        assert len(look(tracked.key or "")) == 1

    # -------------------------------------------------------------------------------- trials

    def test_a_trial_is_a_run(self, opened: Tracker, sent: TrackedExperiment, look: Look) -> None:
        end = START + timedelta(seconds=90)
        trial = _a_trial(
            status="completed",
            results={"objective": 0.25, "accuracy": 3},
            worker="w1",
            start_time=START,
            end_time=end,
        )
        key = _run_of(opened, TrackedTrial(sent, trial, attempt=1))
        [run] = look(sent.key or "")
        assert run.key == key
        assert run.status == "completed"
        assert {name: float(value) for name, value in run.params.items()} == {
            "x": 1.5,
            "layers.width": 64.0,
        }
        assert run.metrics == {"objective": 0.25, "accuracy": 3.0}
        assert (run.start_time, run.end_time) == (START, end)

    def test_a_second_sending_leaves_one_run(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        trial = _a_trial(status="completed", results=0.25, start_time=START, end_time=START)
        tracked = TrackedTrial(sent, trial, attempt=1)
        key = _run_of(opened, tracked)
        assert _run_of(opened, replace(tracked, key=key)) == key
        assert [run.metrics for run in look(sent.key or "")] == [{"objective": 0.25}]

    def test_a_run_whose_key_is_lost_is_found(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        if not self.finds:
            pytest.skip("the tracker cannot look for a run")
        first = TrackedTrial(sent, _a_trial())
        key = _run_of(opened, first)
        others = [_run_of(opened, TrackedTrial(sent, _a_trial(x))) for x in (2.5, 3.5)]
        assert _run_of(opened, replace(first, uncertain=True)) == key
        assert sorted(run.key for run in look(sent.key or "")) == sorted([key, *others])

    def test_an_uncertain_trial_that_was_never_sent(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        key = _run_of(opened, TrackedTrial(sent, _a_trial(), uncertain=True))
        assert [run.key for run in look(sent.key or "")] == [key]

    @pytest.mark.parametrize("status", list(TrialStatus))
    def test_the_status(
        self, opened: Tracker, sent: TrackedExperiment, look: Look, status: TrialStatus
    ) -> None:
        tracked = TrackedTrial(sent, _a_trial())
        tracked = replace(tracked, key=_run_of(opened, tracked))
        done: dict[str, Any] = {"results": 1.0, "end_time": START + timedelta(seconds=1)}
        begun: dict[str, Any] = {"start_time": START, "worker": "w1"}
        begun = {} if status is TrialStatus.NEW else begun
        ended = done if status is TrialStatus.COMPLETED else {}
        trial = _a_trial(status=status.value, **begun, **ended)
        assert _run_of(opened, replace(tracked, trial=trial, attempt=1)) == tracked.key
        [run] = look(sent.key or "")
        assert run.status == status.value

    def test_what_is_evaluated_anew_has_the_new_values(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        tracked = TrackedTrial(sent, _a_trial(), attempt=1)
        life: list[tuple[str, dict[str, Any]]] = [
            ("completed", {"results": 1.0, "end_time": START}),
            ("reserved", {"worker": "w2"}),
            ("completed", {"results": 2.0, "end_time": START + timedelta(seconds=5)}),
        ]
        for attempt, (status, fields) in enumerate(life):
            trial = _a_trial(status=status, start_time=START, **fields)
            key = _run_of(opened, replace(tracked, trial=trial, attempt=1 + attempt // 2))
            tracked = replace(tracked, key=key)
        [run] = look(sent.key or "")
        assert (run.status, run.metrics) == ("completed", {"objective": 2.0})

    def test_trials_at_the_same_time(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        trials = [TrackedTrial(sent, _a_trial(float(x))) for x in range(12)]
        with ThreadPoolExecutor(opened.max_concurrency) as pool:
            keys = list(pool.map(partial(_run_of, opened), trials))
        assert len(set(keys)) == len(trials)
        runs = {run.key: run for run in look(sent.key or "")}
        assert [float(runs[key].params["x"]) for key in keys] == list(range(12))

    def test_values_that_it_cannot_hold_keep_nothing_else_back(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        trial = _a_trial(
            params={"x": 1.5, "long": "y" * 20_000, "list": [1, {"a": None}], "ü/ %~": "odd"},
            status="completed",
            results=[
                {"name": "objective", "type": "objective", "value": 0.5},
                {"name": "nan", "type": "statistic", "value": math.nan},
                {"name": "inf", "type": "statistic", "value": -math.inf},
                {"name": "text", "type": "statistic", "value": "no number"},
                {"name": "list", "type": "gradient", "value": [1.0, 2.0]},
                {"name": "ü/ %~" * 100, "type": "statistic", "value": 3},
                {"name": "huge", "type": "statistic", "value": 2**62},
            ],
            end_time=START,
        )
        _run_of(opened, TrackedTrial(sent, trial))
        [run] = look(sent.key or "")
        assert float(run.params["x"]) == 1.5
        assert run.metrics["objective"] == 0.5

    def test_a_trial_that_nobody_has_reserved_yet(
        self, opened: Tracker, sent: TrackedExperiment, look: Look
    ) -> None:
        tracked = TrackedTrial(sent, _a_trial(status="new", start_time=None))
        tracked = replace(tracked, key=opened.send_trial(tracked))
        key = _run_of(opened, replace(tracked, trial=_a_trial(), attempt=1))
        assert tracked.key in (key, None)
        [run] = look(sent.key or "")
        assert (run.key, run.status) == (key, "reserved")

    # ----------------------------------------------------------------------------- deletions

    def test_a_deleted_trial(self, opened: Tracker, sent: TrackedExperiment, look: Look) -> None:
        gone, kept = (_run_of(opened, TrackedTrial(sent, _a_trial(x))) for x in (1.5, 2.5))
        opened.delete_trial(gone)
        opened.delete_trial(gone)
        left = {run.key for run in look(sent.key or "")}
        assert left == ({kept} if self.deletes else {kept, gone})

    def test_a_deleted_experiment(self, opened: Tracker, sent: TrackedExperiment) -> None:
        key = _run_of(opened, TrackedTrial(sent, _a_trial()))
        opened.delete_experiment(sent.key or "")
        opened.delete_experiment(sent.key or "")
        opened.delete_trial(key)

    # ------------------------------------------------------------------ what users ask it for

    def test_the_last_metrics(self, opened: Tracker, sent: TrackedExperiment) -> None:
        if not self.reads:
            pytest.skip("the tracker cannot read metrics")
        tracked = TrackedTrial(sent, _a_trial(status="reserved", start_time=START))
        key = _run_of(opened, tracked)
        assert dict(opened.fetch_metrics(key)) == {}
        results = {"objective": 0.25, "accuracy": 3}
        done = _a_trial(status="completed", results=results, end_time=START)
        _run_of(opened, replace(tracked, trial=done, key=key))
        assert dict(opened.fetch_metrics(key)) == {"objective": 0.25, "accuracy": 3.0}

    def test_the_environment(self, opened: Tracker, sent: TrackedExperiment) -> None:
        key = _run_of(opened, TrackedTrial(sent, _a_trial()))
        variables = opened.environment(sent.key or "", key)
        assert variables
        for name, value in variables.items():
            assert isinstance(name, str)
            assert isinstance(value, str)
