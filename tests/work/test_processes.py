"""Workers whose processes are stopped and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from aiostorage import SyncStorage, Trial, Worker, open_storage
from aiostorage.testing.contract.helpers import make_config, stored
from tests.preloaded import Process, preloaded

from .worker_functions import misbehaving

SCRIPT = Path(__file__).with_name("worker_script.py")
DEADLINE = 60.0

Run: TypeAlias = Callable[..., Process]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Make an experiment with three trials."""
    url = f"sqlite:///{tmp_path / 'work.db'}"
    with SyncStorage(open_storage(url)) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        params = [{"x": x, "where": str(tmp_path)} for x in range(3)]
        storage.register_trials([Trial(experiment=experiment.id, params=each) for each in params])
    return url


@pytest.fixture
def run() -> Iterator[Run]:
    """Start the script, and end it with the test at the latest."""
    started: list[Process] = []

    def run(*arguments: object) -> Process:
        process = preloaded((), "aiostorage.drivers.sqlite").start(
            SCRIPT, *map(str, arguments), directory=Path.cwd(), environment=os.environ
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def evaluating(directory: Path, count: int) -> list[int]:
    """Wait until so many evaluations have begun; return the processes that are at them."""
    began = until(lambda: len(b := sorted(directory.glob("began-*"))) >= count and b)
    pids = [int(file.name.rpartition("-")[2]) for file in began]
    for file in began:
        file.unlink()
    return pids


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # a zombie is waited for by whoever runs as process 1
    try:
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def statuses(url: str) -> list[str]:
    with SyncStorage(open_storage(url)) as storage:
        [experiment] = storage.fetch_experiments({})
        return [trial.status for trial in storage.fetch_trials(experiment) or []]


@pytest.mark.parametrize(
    ("executor", "number"), [("process", signal.SIGTERM), ("thread", signal.SIGINT)]
)
def test_a_signal_hands_trials_back_and_another_run_does_them(
    url: str, tmp_path: Path, run: Run, executor: str, number: signal.Signals
) -> None:
    worker = run(url, executor, 0, 2)
    pids = evaluating(tmp_path, 2)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=DEADLINE)
    assert (out, worker.returncode) == (f"stopped {number.name} 0 2\n", 0), err
    assert statuses(url) == ["interrupted", "interrupted", "new"]
    until(lambda: all(map(gone, pids)))
    (tmp_path / "go").touch()
    out, err = run(url, "thread", 0, 2).communicate(timeout=DEADLINE)
    assert out == "done None 3 0\n", err
    assert statuses(url) == ["completed"] * 3


def test_the_grace_and_a_second_signal(url: str, tmp_path: Path, run: Run) -> None:
    worker = run(url, "thread", 60, 2)
    evaluating(tmp_path, 2)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # that it goes on is what is shown
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(DEADLINE) == -signal.SIGTERM
    assert statuses(url) == ["reserved", "reserved", "new"]
    # within the grace, a worker completes what it has begun
    worker = run(url, "thread", 60, 1)
    evaluating(tmp_path, 1)
    worker.send_signal(signal.SIGINT)
    time.sleep(0.2)
    (tmp_path / "go").touch()
    out, err = worker.communicate(timeout=DEADLINE)
    assert out == "stopped SIGINT 1 0\n", err


def test_a_killed_worker_leaves_no_process(url: str, tmp_path: Path, run: Run) -> None:
    worker = run(url, "process", 0, 1)
    pids = evaluating(tmp_path, 1)
    assert worker.pid not in pids
    worker.kill()
    worker.wait(DEADLINE)
    until(lambda: all(map(gone, pids)))


def test_a_script_without_a_guard(url: str, run: Run) -> None:
    worker = run(url, "process", 0, 1, "unguarded")
    _, err = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 1
    assert "no process could be started for the objective" in err
    assert 'under `if __name__ == "__main__":`' in err
    assert statuses(url) == ["new"] * 3


@pytest.mark.anyio
async def test_what_an_objective_does_to_its_process(tmp_path: Path) -> None:
    deeds = {
        "fork": ("completed", None),
        "fine": ("completed", None),
        "await": ("completed", None),
        "raise": ("broken", "ValueError: bad loss"),
        "picky": ("broken", "Picky: one and two"),
        "mute": ("broken", "Mute"),
        "sys.exit": ("broken", "SystemExit: 3"),
        "unstorable": ("broken", "InvalidResult: "),
        "unpicklable": ("broken", ""),
        "exit code": ("broken", "ProcessDied: the process of the objective ended with exit code 3"),
        "SIGKILL": ("broken", "ProcessDied: the process of the objective was killed by SIGKILL"),
        "SIGTERM": ("completed", "ProcessDied: the process of the objective was killed by SIGTERM"),
    }
    async with open_storage("memory://", lost_after=30) as storage:
        experiment = await storage.create_experiment(make_config())
        trials = {
            x: await storage.register_trial(
                Trial(experiment=experiment.id, params={"x": x, "where": str(tmp_path)})
            )
            for x in deeds
        }
        worker = Worker(storage, experiment, misbehaving, executor="process")
        report = await worker.run()
        for x, (status, reason) in deeds.items():
            assert (await stored(storage, trials[x])).status == status, x
            if reason is not None:
                assert report.reasons[trials[x].id].startswith(reason), x
        assert (report.completed, report.broken, report.interrupted) == (4, 8, 1)
        assert (await stored(storage, trials["fork"])).objective_value == 3.0
        assert (await stored(storage, trials["await"])).objective_value == 5.0
        assert report.ended_by == "done"
        pid = (await stored(storage, trials["fine"])).statistics[0].value
        assert pid != os.getpid()
