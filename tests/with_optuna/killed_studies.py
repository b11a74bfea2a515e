"""A study that many processes evaluate while they are killed and paused, and what has to hold."""

from __future__ import annotations

import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from aiostorage import SyncStorage, open_storage
from aiostorage.testing.contract.change_feed_laws import check_chains
from aiostorage.trial_change import TrialChange
from tests.cli.support import environment
from tests.preloaded import Process, preloaded
from tests.with_optuna.worker_kills import (
    HANDED_BACK,
    STUDY,
    EvaluationLog,
    Evaluator,
    opened,
    value_of,
)

__all__ = ["KilledStudy", "Report"]

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("worker_kills.py")

LIBRARIES = ("optuna", "aiostorage.optuna.storage", "aiostorage.drivers.sqlite")
"""What the processes need not import themselves."""

WORKERS = 8

SLOW = 0.5
"""Seconds that an evaluation takes in the process that is paused."""

PAUSED_FOR = 5
"""Kills in the time for which that process stands still."""

DEADLINE = 60.0
"""Seconds that anything may take on a machine that has much else to do."""

FINAL = {"completed", "broken"}


@dataclass(frozen=True)
class Report:
    """What has become of a study."""

    trials: int
    kills: int
    told: int
    refused: int
    failed: int
    retried: int
    recovered: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.trials} trials of {WORKERS} processes in {self.seconds:.1f} s, {self.kills} "
            f"kills: {self.told} results told, {self.refused} late evaluations refused, "
            f"{self.failed} trials failed as stale, of which {self.retried} were tried again, "
            f"{self.recovered} handed back; 0 numbers missing, 0 given twice, 0 ended twice"
        )


@dataclass
class KilledStudy:
    """Processes that evaluate the trials of one study.

    Parameters
    ----------
    url
        An empty store.
    folder
        For their log.
    libraries
        What the processes need not import themselves, beside Optuna.
    seed
        Decides who is killed and when.
    seconds
        That an evaluation takes.
    """

    url: str
    folder: Path
    libraries: Sequence[str] = ()
    seed: int = 0
    seconds: float = 0.02
    kills: int = 0
    workers: list[Process] = field(default_factory=list)

    def run(self, kills: int, trials: int, disturbances: Sequence[Callable[[], object]]) -> Report:
        """Run the study to its end and check everything.

        Parameters
        ----------
        kills
            How many processes are killed, each of which gets a successor.
        trials
            How many trials are finished at least.
        disturbances
            Called one after the other, spread over the kills.
        """
        begin, chance = time.monotonic(), random.Random(self.seed)
        self._log, self._end = self.folder / "log", self.folder / "end"
        self._log.touch()
        storage = opened(self.url)
        study = optuna.create_study(
            storage=storage, study_name=STUDY, sampler=optuna.samplers.RandomSampler()
        )
        self.workers = [self._started(self.seconds) for _ in range(WORKERS - 1)]
        sleeper = self._started(SLOW)
        seen: dict[int, FrozenTrial] = {}
        todo = list(disturbances)
        try:
            for kill in range(kills):
                if kill % PAUSED_FOR == 0:
                    given = self._pause(sleeper)
                    _hand_back(study, given)
                    self._resume(sleeper, given, study)
                    paused = self._pause(sleeper)
                time.sleep(chance.uniform(0.05, 0.3))
                self._kill(chance.randrange(len(self.workers)))
                if todo and kill >= kills * (len(disturbances) - len(todo)) // len(disturbances):
                    todo.pop(0)()
                if (kill + 1) % PAUSED_FOR == 0 or kill == kills - 1:
                    self._resume(sleeper, paused, study)
                self._look(study, seen)
            while len(seen) < trials:
                time.sleep(0.1)
                self._look(study, seen)
            self._end.touch()
            for worker in (*self.workers, sleeper):
                self._ended(worker, 0)
            recovered = self._finish(study)
        finally:
            for worker in (*self.workers, sleeper):
                worker.kill()
            storage.close()
        return self._checked(seen, recovered, time.monotonic() - begin)

    # ------------------------------------------------------------------------- the processes

    def _started(self, seconds: float) -> Process:
        return preloaded((), *LIBRARIES, *self.libraries).start(
            *(SCRIPT, self.url, str(self._log), str(self._end), str(seconds)),
            directory=self.folder,
            environment=environment(),
        )

    def _kill(self, place: int) -> None:
        worker = self.workers[place]
        worker.kill()
        self._ended(worker, -signal.SIGKILL)
        self.kills += 1
        self.workers[place] = self._started(self.seconds)

    def _ended(self, worker: Process, code: int) -> None:
        """Check how a process has ended, and that it has not complained."""
        out, said = worker.communicate(DEADLINE)
        complaints = [line for line in said.splitlines() if not line.startswith("still waiting")]
        assert (worker.returncode, out, complaints) == (code, "", []), (
            f"{worker.returncode}: {said}"
        )

    def _pause(self, worker: Process) -> list[str]:
        """Stop a process in an evaluation; return the number of the trial and its name."""
        before = len(self._lines())

        def begun() -> list[str] | None:
            own = [line for line in self._lines()[before:] if line[0] == str(worker.pid)]
            return own[-1][2:] if own and own[-1][1] == "began" else None

        paused = _wait("an evaluation in the process to be paused", begun)
        worker.send_signal(signal.SIGSTOP)
        return paused

    def _resume(self, worker: Process, paused: list[str], study: optuna.Study) -> None:
        """Let a process go on when its trial is no longer its own, and wait for the refusal."""
        number, who = int(paused[0]), paused[1]

        def is_taken() -> bool:
            trial = study.get_trials(deepcopy=False)[number]
            return trial.state.is_finished() or trial.user_attrs.get("who") != who

        _wait(
            f"another worker, or the end, of trial {number}, whose process stands still", is_taken
        )
        worker.send_signal(signal.SIGCONT)
        late = [str(worker.pid), "refused", *paused]
        _wait(f"a refusal of the late evaluation of trial {number}", lambda: late in self._lines())

    def _lines(self) -> list[list[str]]:
        return [line.split(" ") for line in self._log.read_text().splitlines()]

    # ----------------------------------------------------------------------------- the trials

    @staticmethod
    def _look(study: optuna.Study, seen: dict[int, FrozenTrial]) -> None:
        """Take the trials that are finished; those seen before are as they were."""
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        for trial in finished:
            assert seen.setdefault(trial.number, trial) == trial
        assert len(finished) == len(seen)

    def _finish(self, study: optuna.Study) -> int:
        """Bring to an end what killed processes have left; return how many were handed back.

        Those that were killed before the first heartbeat of a trial have left one that is never
        stale.
        """

        def running(*, without_heartbeat: bool = False) -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                fail_stale_trials(study)
            where = {"status": "reserved"} | ({} if without_heartbeat else {"optuna.watched": True})
            return bool(store.fetch_trials(config, where=where))

        with SyncStorage(open_storage(self.url, lost_after=0.001)) as store:
            [config] = store.fetch_experiments({"name": STUDY})
            _wait("the end of trials of killed processes", lambda: not running())
            recovered = len(store.recover_lost_trials(config))
        log = EvaluationLog(self._log)
        evaluator = Evaluator(log, 0.0)
        while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.optimize(evaluator.objective, n_trials=1, callbacks=[evaluator.told])
        log.close()
        return recovered

    def _checked(self, seen: dict[int, FrozenTrial], recovered: int, seconds: float) -> Report:
        """Check everything, as one who comes afterwards sees it."""
        storage = opened(self.url)
        trials = optuna.load_study(study_name=STUDY, storage=storage).trials
        storage.close()
        numbers = [trial.number for trial in trials]
        assert numbers == list(range(len(trials))), "consecutive, and each once"
        assert {trial.state for trial in trials} <= {*ENDS}, "every trial is final"
        assert all(trials[number] == trial for number, trial in seen.items()), "final is final"

        lines = self._lines()
        logged = {word: {tuple(line[2:]) for line in lines if line[1] == word} for word in WORDS}
        told, refused = logged["told"], logged["refused"]
        assert not told & refused
        stored = {
            (str(trial.number), str(trial.user_attrs["who"]))
            for trial in trials
            if trial.state != TrialState.FAIL
        }
        assert told <= stored <= logged["began"], "what was told is there, and is an evaluation's"
        assert not refused & stored, "nothing of a late evaluation is there"
        assert Counter(number for number, _ in stored).most_common(1)[0][1] == 1
        for trial in trials:
            if trial.state != TrialState.FAIL:
                value = value_of(trial.user_attrs["who"])
                assert (trial.values, trial.intermediate_values) == ([value], {0: value})
                assert (trial.state == TrialState.PRUNED) == (trial.params["y"] == 9)

        changes = list(self._changes())
        check_chains(changes)
        assert not [change for change in changes if change.before in FINAL]
        ends = Counter(change.trial for change in changes if change.after in FINAL)
        assert (len(ends), ends.total()) == (len(trials), len(trials)), "each has ended once"

        failed = {trial.number for trial in trials if trial.state == TrialState.FAIL}
        histories = [trial.system_attrs.get("retry_history") for trial in trials]
        retried = Counter(history[-1] for history in histories if history)
        assert set(retried) <= failed
        assert retried.total() == len(retried), "none was tried again twice"
        return Report(
            len(trials),
            self.kills,
            len(told),
            len(refused),
            len(failed),
            len(retried),
            recovered,
            seconds,
        )

    def _changes(self) -> Iterator[TrialChange]:
        with SyncStorage(open_storage(self.url)) as store:
            [config] = store.fetch_experiments({"name": STUDY})
            cursor: str | None = "oldest"
            while True:
                changes, cursor = store.changes_since(config, cursor, limit=1000)
                yield from changes
                if len(changes) < 1000:
                    return


ENDS = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

WORDS = ("began", "told", "refused")


def _hand_back(study: optuna.Study, paused: list[str]) -> None:
    """Let a trial wait again that a process evaluates."""
    trial_id = study.get_trials(deepcopy=False)[int(paused[0])]._trial_id
    study._storage.set_trial_user_attr(trial_id, HANDED_BACK, True)
    assert study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _wait(what: str, found: Callable[[], T | None]) -> T:
    end = time.monotonic() + DEADLINE
    while not (result := found()):
        assert time.monotonic() < end, f"{what}: not in {DEADLINE} s"
        time.sleep(0.02)
    return result
