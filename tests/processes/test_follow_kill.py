"""A follower that is killed again and again has each change once, and in order."""

from __future__ import annotations

import asyncio
import queue
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostorage import Trial, open_storage
from aiostorage.testing.contract.change_feed_laws import check_chains
from aiostorage.trial_change import TrialChange

from .support import DEADLINE, Events, Starter, Worker
from .worker_follow import as_line, whole_lines

PROCESSES = 3


async def prepare(url: str, trials: int) -> str:
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "follow"})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(trials)]
        )
    return str(experiment.id)


async def all_changes(url: str, experiment: str) -> list[TrialChange]:
    found: list[TrialChange] = []
    cursor = "oldest"
    async with open_storage(url) as storage:
        while True:
            page = await storage.changes_since({"_id": experiment}, cursor, limit=50)
            found += page.changes
            cursor = page.cursor
            if len(page.changes) < 50:
                return found


class FollowedWorkers:
    """Processes that change trials, and the one that follows them."""

    def __init__(self, start: Starter, url: str, experiment: str, seen: Path, trials: int) -> None:
        self._start = start
        self._url, self._experiment, self._seen, self._trials = url, experiment, seen, trials
        self.events: Events = queue.SimpleQueue()
        self._may_end = seen.with_name("may-end")
        self._numbers: Iterator[int] = iter(range(1000))
        self.alive = [self.hire() for _ in range(PROCESSES)]
        self.follower = self.follow()

    def hire(self) -> Worker:
        number, file = next(self._numbers), self._may_end
        arguments = ("work", self._url, self._experiment, file, self._trials, number)
        return self._start("worker_follow.py", *arguments, into=self.events)

    def follow(self) -> Worker:
        arguments = ("follow", self._url, self._experiment, self._seen)
        return self._start("worker_follow.py", *arguments, into=self.events)

    def run(self, kills: int, draw: random.Random) -> Counter[str]:
        """Kill them by turns, each time after some events; return how often each was killed."""
        killed: Counter[str] = Counter()
        left = draw.randrange(3, 9)
        while self.alive:
            worker, line = self.events.get(timeout=DEADLINE)
            if line is None and worker in self.alive:
                worker.succeed()
                self.alive.remove(worker)
            assert line is not None or worker is not self.follower, worker.stderr
            if killed.total() % 2:
                left -= worker is self.follower
            else:
                left -= line == "completed"
            if killed.total() == kills:
                self._may_end.touch()
            if left > 0 or killed.total() == kills:
                continue
            left = draw.randrange(2, 7)
            time.sleep(draw.uniform(0.0, 0.004))  # whatever it is doing then
            if killed.total() % 2:
                self.follower.kill()
                killed["follower"] += 1
                self.follower = self.follow()
            else:
                victim = draw.choice(self.alive)
                victim.kill()
                killed["worker"] += 1
                self.alive[self.alive.index(victim)] = self.hire()
        return killed

    def wait_for_the_follower(self, number: int) -> None:
        """Kill it in the end as well, when it has seen that many changes."""
        end = time.monotonic() + DEADLINE
        while len(whole_lines(self._seen.read_text())) < number and time.monotonic() < end:
            self.events.get(timeout=DEADLINE)
        self.follower.kill()


@pytest.mark.parametrize(("scheme", "trials", "kills"), [("sqlite", 40, 8), ("track", 15, 4)])
def test_follow_kill(start: Starter, tmp_path: Path, scheme: str, trials: int, kills: int) -> None:
    url, seen = f"{scheme}:///{tmp_path / 'store'}.json", tmp_path / "seen"
    experiment = asyncio.run(prepare(url, trials))
    workers = FollowedWorkers(start, url, experiment, seen, trials)
    killed = workers.run(kills, random.Random(20261129))
    changes = asyncio.run(all_changes(url, experiment))
    workers.wait_for_the_follower(len(changes))

    assert killed == {"worker": kills // 2, "follower": kills // 2}
    assert whole_lines(seen.read_text()) == [as_line(change) for change in changes]
    chains = check_chains(changes)
    assert len(chains) == trials
    assert all(chain[-1][2] == "completed" for chain in chains.values())
    assert {change.reason for change in changes} >= {"lost", "bad\nluck"}
