"""Workers are killed at any moment, again and again: no trial and no result is lost."""

from __future__ import annotations

import asyncio
import queue
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aiostorage import Trial, open_storage

from .support import DEADLINE, Events, Starter, Worker, integrity
from .worker_kill import LEASE, LOST_AFTER, RETRY, TASKS

PROCESSES = 8
TRIALS = 25 * PROCESSES
KILLS = 16
SEED = 20261124


@dataclass
class KilledProcesses:
    """Processes that are killed and replaced while they work."""

    start: Starter
    path: Path
    logs: Path
    experiment: str
    draw: random.Random
    alive: list[Worker] = field(default_factory=list)
    killed: list[Worker] = field(default_factory=list)
    holders_killed: int = 0
    sleeper: Worker | None = None
    wake_at: float = 0.0
    stopped: list[Worker] = field(default_factory=list)
    events: Events = field(default_factory=queue.SimpleQueue)

    def hire(self) -> None:
        name = f"p{len(self.alive) + len(self.killed)}"
        arguments = (self.path, self.experiment, self.logs / name, name, TRIALS, SEED)
        self.alive.append(self.start("worker_kill.py", *arguments, into=self.events))

    def kill(self, victim: Worker) -> None:
        self.alive.remove(victim)
        self.killed.append(victim)
        time.sleep(self.draw.uniform(0.0, 0.004))  # whatever it is doing then
        victim.kill()
        self.hire()

    def stop(self) -> None:
        """Stop one for so long that it is declared lost; it will know nothing of that."""
        self.sleeper = self.draw.choice(self.alive)
        self.sleeper.signal(signal.SIGSTOP)
        self.wake_at = time.monotonic() + 1.3 * max(LOST_AFTER, LEASE)
        self.stopped.append(self.sleeper)

    def check_end(self, worker: Worker) -> None:
        """One that slept may have slept in what has a time limit, and says so."""
        assert worker.wait() == 0, worker.stderr
        complaints = worker.stderr.splitlines()
        if worker in self.stopped:
            complaints = [line for line in complaints if "did not end within" not in line]
        assert complaints == []

    def wake(self) -> None:
        if self.sleeper is not None and time.monotonic() >= self.wake_at:
            if self.sleeper in self.alive:
                self.sleeper.signal(signal.SIGCONT)
            self.sleeper = None

    def watch(self) -> None:
        """Kill one after so many completions, and now and then the one that holds the lock."""
        for _ in range(PROCESSES):
            self.hire()
        left = self.draw.randrange(3, 11)
        while self.alive:
            self.wake()
            try:
                worker, line = self.events.get(timeout=DEADLINE if self.sleeper is None else 0.1)
            except queue.Empty:
                assert self.sleeper is not None
                continue
            if worker not in self.alive:
                continue
            if line is None:
                self.check_end(worker)
                self.alive.remove(worker)
                continue
            left -= line == "completed"
            if len(self.killed) == KILLS:
                continue
            if line == "holds" and self.holders_killed < len(self.killed) // 3:
                self.holders_killed += 1
                self.kill(worker)
            elif left <= 0:
                left = self.draw.randrange(3, 11)
                self.kill(self.draw.choice(self.alive))
                if self.sleeper is None and len(self.stopped) < len(self.killed) // 4:
                    self.stop()


async def prepare(path: Path) -> str:
    async with open_storage(f"sqlite:///{path}") as storage:
        experiment = await storage.create_experiment({"name": "kill"}, algo_state={"count": 0})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(TRIALS)]
        )
    return str(experiment.id)


@dataclass
class KillOutcome:
    trials: list[Trial]
    count: int
    waited: float


async def look(path: Path, experiment: str) -> KillOutcome:
    async with open_storage(f"sqlite:///{path}", lock_lease=LEASE) as storage:
        before = time.monotonic()
        async with storage.acquire_algorithm_lock(
            {"_id": experiment}, timeout=DEADLINE, retry_interval=RETRY
        ) as algorithm:
            waited = time.monotonic() - before
            count = algorithm.state["count"]
        trials = await storage.fetch_trials(uid=experiment)
    assert trials is not None
    return KillOutcome(trials, count, waited)


def test_kill(
    start: Starter, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = asyncio.run(prepare(path))
    logs = tmp_path / "logs"
    logs.mkdir()
    processes = KilledProcesses(start, path, logs, experiment, random.Random(SEED))
    begin = time.monotonic()
    processes.watch()
    seconds = time.monotonic() - begin

    outcome = asyncio.run(look(path, experiment))
    lines = [line.split(" ") for log in logs.iterdir() for line in log.read_text().splitlines()]
    words = Counter(line[0] for line in lines)
    logged = {trial: who for word, *rest in lines if word == "completed" for trial, who in [rest]}
    kills = len(processes.killed)
    with capsys.disabled():
        print(
            f"\nkill: {TRIALS} trials in {seconds:.1f} s, {kills} processes killed, "
            f"{processes.holders_killed} of them seen with the lock, "
            f"{len(processes.stopped)} stopped for a while; "
            f"{TRIALS - len(logged)} completions not logged, "
            f"{words['trial-lost']} trials and {words['lock-lost']} locks lost by the living; "
            f"{words['held']} holdings logged, {outcome.count} counted; "
            f"lock free after {outcome.waited:.2f} s"
        )

    assert kills == KILLS
    # exactly once: no worker was told that it had completed what another one had
    assert words["completed"] == len(logged)
    assert [trial.status for trial in outcome.trials] == ["completed"] * TRIALS
    stored = {str(t.id): {r.name: r.value for r in t.results}["who"] for t in outcome.trials}
    assert len(stored) == TRIALS
    assert {trial: stored[trial] for trial in logged} == logged
    assert len(set(stored.values())) == TRIALS
    assert TRIALS - len(logged) <= kills * TASKS
    # a holder may be killed between saving the state and logging that it did
    assert words["held"] <= outcome.count <= words["held"] + kills
    assert outcome.waited < LEASE + RETRY + 1.0
    assert integrity(path) == "ok"
