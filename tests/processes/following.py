"""Processes that change trials and one that follows them, all of which are killed by turns."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aiostorage import Trial, open_storage
from aiostorage.testing.contract.change_feed_laws import all_changes, check_chains
from aiostorage.trial_change import TrialChange

from .support import DEADLINE, HERE, Events, Starter, Worker
from .worker_follow import as_line, whole_lines

__all__ = ["FollowedWorkers", "follow_to_the_end"]

PROCESSES = 3

SCRIPT = str(HERE / "worker_follow.py")


async def prepare(url: str, trials: int) -> str:
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "follow"})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(trials)]
        )
        broken, _ = await storage.reserve_trials(experiment, 2)  # the other one is left to be lost
        await storage.set_trial_status(broken, "broken", reason="bad\nluck")
    return str(experiment.id)


async def changed_once_more(url: str, experiment: str) -> list[TrialChange]:
    """Change every trial once more, and return all changes."""
    there = {"_id": experiment}
    async with open_storage(url) as storage:
        await storage.update_trials(there, where={"status": "completed"}, status="suspended")
        return await all_changes(storage, there, limit=50)


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
        return self._start(SCRIPT, *arguments, into=self.events)

    def follow(self) -> Worker:
        arguments = ("follow", self._url, self._experiment, self._seen)
        return self._start(SCRIPT, *arguments, into=self.events)

    def run(
        self, kills: int, draw: random.Random, half_way: Callable[[], object] | None = None
    ) -> Counter[str]:
        """Kill them by turns, each time after some events; return how often each was killed.

        Parameters
        ----------
        half_way
            Called when half of them are killed.
        """
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
            if half_way is not None and killed.total() == kills // 2:
                half_way()
        return killed

    def wait_for_the_follower(self, number: int) -> None:
        """Kill it in the end as well, when it has seen that many changes."""
        end = time.monotonic() + DEADLINE
        while len(whole_lines(self._seen.read_text())) < number and time.monotonic() < end:
            self.events.get(timeout=DEADLINE)
        self.follower.kill()


def follow_to_the_end(
    start: Starter,
    url: str,
    seen: Path,
    *,
    trials: int,
    kills: int,
    half_way: Callable[[], object] | None = None,
    one_order: bool = True,
) -> list[TrialChange]:
    """Kill workers and their follower; return the changes, which it has once each, in order.

    Parameters
    ----------
    half_way
        As for `FollowedWorkers.run`.
    one_order
        Whether all readers see the changes of different trials in the same order.
    """
    experiment = asyncio.run(prepare(url, trials))
    workers = FollowedWorkers(start, url, experiment, seen, trials)
    killed = workers.run(kills, random.Random(20261129), half_way)
    changes = asyncio.run(changed_once_more(url, experiment))
    workers.wait_for_the_follower(len(changes))

    assert killed == {"worker": kills // 2, "follower": kills // 2}
    lines = whole_lines(seen.read_text())
    stored = [as_line(change) for change in changes]
    if one_order:
        assert lines == stored
    else:
        assert by_trial(lines) == by_trial(stored)
    chains = check_chains(changes)
    assert len(chains) == trials
    ends = {uid: [step[2] for step in chain[-2:]] for uid, chain in chains.items()}
    odd = {uid for uid, end in ends.items() if end != ["completed", "suspended"]}
    assert not odd, [change for change in changes if change.trial in odd]
    return changes


def by_trial(lines: Sequence[str]) -> dict[str, list[list[object]]]:
    """Return the changes of each trial in their order, without their cursors."""
    found: dict[str, list[list[object]]] = {}
    for line in lines:
        *change, _ = json.loads(line)
        found.setdefault(change[1], []).append(change)
    return found
