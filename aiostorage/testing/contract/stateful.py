"""A state machine that compares storages with a plain model; needs hypothesis.

Write ``TestMine = machine_for({"mine": make}).TestCase``, where ``make`` makes a fresh storage
that uses the clock it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiostorage.errors import DuplicateKeyError, FailedUpdate, LockAcquisitionTimeout, TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.faults import FakeClock
from aiostorage.trial import Trial

__all__ = ["Model", "StorageMachine", "machine_for"]

T = TypeVar("T")

MakeStorage = Callable[[FakeClock], AsyncStorageProtocol]
"""Makes a storage without data, on that clock, with `lost_after` 120; its first use opens it."""

LOST_AFTER = 120.0
PENDING = ("new", "suspended", "interrupted")
QUERIES: dict[str, tuple[dict[str, Any], Callable[[Model], bool]]]


@dataclass
class Model:
    """The expected state of a trial."""

    number: int
    submit_time: datetime
    status: str = "new"
    heartbeat: datetime | None = None
    owner: int | None = None
    objective: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


QUERIES = {
    "all": ({}, lambda _: True),
    "pending": ({"status": {"$in": list(PENDING)}}, lambda m: m.status in PENDING),
    "not completed": ({"status": {"$ne": "completed"}}, lambda m: m.status != "completed"),
    "owned": ({"worker": {"$ne": None}}, lambda m: m.owner is not None),
    "small": ({"params.value": {"$lt": 3}}, lambda m: m.number < 3),
    "marked": ({"mark.at": {"$gte": 2}}, lambda m: m.extra.get("mark", -1) >= 2),
    "unmarked": ({"mark": {"$exists": False}}, lambda m: "mark" not in m.extra),
    "not marked 2": ({"mark.at": {"$ne": 2}}, lambda m: m.extra.get("mark") != 2),
    "good": ({"results.value": {"$gt": 5}}, lambda m: (m.objective or 0) > 5),
    "either": (
        {"$or": [{"status": "broken"}, {"params.value": 0}]},
        lambda m: m.status == "broken" or m.number == 0,
    ),
}

numbers: st.SearchStrategy[int] = st.integers(0, 6)
picks: st.SearchStrategy[int] = st.integers(0, 50)


class StorageMachine(RuleBasedStateMachine):
    """Does the same to every storage and to a model, and compares them.

    Attributes
    ----------
    makers : mapping
        Functions that make the storages, by names for the messages.
    """

    makers: ClassVar[Mapping[str, MakeStorage]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.runner: asyncio.Runner = asyncio.Runner()
        self.clock: FakeClock = FakeClock()
        self.storages: dict[str, AsyncStorageProtocol] = {
            name: make(self.clock) for name, make in self.makers.items()
        }
        self.trials: dict[int, Model] = {}
        self.held: list[tuple[int, int, dict[str, Trial]]] = []
        self.reservations: int = 0
        self.state: Any = None

    def teardown(self) -> None:
        """Close the storages and the event loop."""
        for storage in self.storages.values():
            self.run(storage.aclose())
        self.runner.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call in the machine's own event loop."""
        return self.runner.run(call)

    def each(
        self, call: Callable[[AsyncStorageProtocol, str], Awaitable[T]]
    ) -> dict[str, T | Exception]:
        """Call every storage; return the results, or the errors that are allowed."""

        async def outcome(name: str) -> T | Exception:
            try:
                return await call(self.storages[name], name)
            except (DuplicateKeyError, FailedUpdate, LockAcquisitionTimeout) as error:
                return error

        return {name: self.run(outcome(name)) for name in self.storages}

    def expect(
        self, call: Callable[[AsyncStorageProtocol, str], Awaitable[Any]], expected: Any
    ) -> None:
        """Call every storage and compare its result, or the type of its error."""
        for name, result in self.each(call).items():
            found = type(result) if isinstance(result, Exception) else result
            assert found == expected, f"{name}: {result!r}, not {expected!r}"

    def ordered(self, keep: Callable[[Model], bool]) -> list[Model]:
        """Return trials of the model by submit time."""
        return sorted(filter(keep, self.trials.values()), key=lambda m: m.submit_time)

    # --------------------------------------------------------------------------- writing

    @initialize()
    def create(self) -> None:
        """Make the one experiment."""
        config = {"_id": "e", "name": "e"}
        for result in self.each(lambda s, _: s.create_experiment(dict(config))).values():
            assert not isinstance(result, Exception)
        self.expect(lambda s, _: s.create_experiment(dict(config)), DuplicateKeyError)

    @rule(seconds=st.sampled_from((0.001, 1, 50, 119, 121)))
    def time_passes(self, seconds: float) -> None:
        """Advance the clock."""
        self.clock.advance(seconds)

    @rule(first=numbers, count=st.integers(1, 3))
    def register(self, first: int, count: int) -> None:
        """Register trials, all or none."""
        new: list[Model] = []
        for number in range(first, first + count):
            self.clock.advance(0.001)
            new.append(Model(number, self.clock()))
        trials = [_trial(m.number, submit_time=m.submit_time) for m in new]
        taken = any(m.number in self.trials for m in new)

        async def register(storage: AsyncStorageProtocol, _: str) -> int:
            return len(await storage.register_trials([trial.copy() for trial in trials]))

        self.expect(register, DuplicateKeyError if taken else count)
        if not taken:
            self.trials.update({m.number: m for m in new})

    @rule(count=st.integers(1, 3))
    def reserve(self, count: int) -> None:
        """Reserve the oldest pending trials, and lost ones where these are too few."""
        expected = self.ordered(lambda m: m.status in PENDING)[:count]
        expected += self.ordered(self.is_lost)[: count - len(expected)]
        copies: dict[str, list[Trial]] = {}

        async def reserve(storage: AsyncStorageProtocol, name: str) -> list[int]:
            copies[name] = await storage.reserve_trials({"_id": "e"}, count)
            return [trial.params["x"] for trial in copies[name]]

        self.expect(reserve, [m.number for m in expected])
        if expected:
            self.reservations += 1
        for position, model in enumerate(expected):
            model.status, model.owner = "reserved", self.reservations
            model.heartbeat, model.objective = self.clock(), None
            held = {name: trials[position] for name, trials in copies.items()}
            self.held.append((model.number, self.reservations, held))

    @precondition(lambda self: self.held)
    @rule(pick=picks, value=st.integers(0, 9))
    def complete(self, pick: int, value: int) -> None:
        """Complete a trial that is, or was, ours."""
        number, owner, held = self.held[pick % len(self.held)]
        model = self.trials.get(number)
        ours = model is not None and (model.status, model.owner) == ("reserved", owner)
        self.expect(
            lambda s, name: s.complete_trial(held[name], value),
            None if ours else self.refusal(number, owner, "reserved"),
        )
        if model is not None and ours:
            model.status, model.objective, model.heartbeat = "completed", value, self.clock()

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        """Update the heartbeat of a trial that is, or was, ours."""
        number, owner, held = self.held[pick % len(self.held)]
        model = self.trials.get(number)
        ours = model is not None and (model.status, model.owner) == ("reserved", owner)
        self.expect(
            lambda s, name: s.update_heartbeat(held[name]),
            1 if ours else self.refusal(number, owner, "reserved"),
        )
        if model is not None and ours:
            model.heartbeat = self.clock()

    @precondition(lambda self: self.held)
    @rule(pick=picks, status=st.sampled_from(("suspended", "interrupted", "broken")))
    def set_status(self, pick: int, status: str) -> None:
        """Set the status of a trial that is, or was, ours."""
        number, owner, held = self.held[pick % len(self.held)]
        model = self.trials.get(number)
        was = next(iter(held.values())).status
        ours = model is not None and (model.status, model.owner) == (was, owner)
        self.expect(
            lambda s, name: s.set_trial_status(held[name], status),
            None if ours else self.refusal(number, owner, was),
        )
        if model is not None and ours:
            model.status, model.heartbeat = status, self.clock()

    def refusal(self, number: int, owner: int, was: str) -> type[FailedUpdate]:
        """Return the error for a caller who does not have the trial, or has lost it."""
        model = self.trials.get(number)
        if model is None:
            return TrialLost
        taken = model.owner != owner or (was == "reserved" and model.status in PENDING)
        return TrialLost if taken else FailedUpdate

    @rule(after=st.sampled_from((0, 1, 60, LOST_AFTER - 0.001, LOST_AFTER)))
    def recover(self, after: float) -> None:
        """Put lost trials back, some time later."""
        self.clock.advance(after)
        lost = self.ordered(self.is_lost)

        async def recover(storage: AsyncStorageProtocol, _: str) -> tuple[list[int], list[int]]:
            found = await storage.fetch_lost_trials({"_id": "e"})
            recovered = await storage.recover_lost_trials({"_id": "e"})
            return _numbers(found), _numbers(recovered)

        expected = [m.number for m in lost]
        self.expect(recover, (expected, expected))
        for model in lost:
            model.status, model.owner = "interrupted", None

    @rule(after=st.sampled_from((LOST_AFTER - 0.001, LOST_AFTER)))
    def abandon(self, after: float) -> None:
        """Reserve a trial and send no heartbeat for about as long as is allowed."""
        self.reserve(1)
        self.recover(after)

    def is_lost(self, model: Model) -> bool:
        """Return whether the worker of a trial counts as lost."""
        if model.status != "reserved" or model.heartbeat is None:
            return False
        return model.heartbeat <= self.clock() - timedelta(seconds=LOST_AFTER)

    @rule(query=st.sampled_from(sorted(QUERIES)), mark=st.integers(0, 3))
    def mark(self, query: str, mark: int) -> None:
        """Set a field of all trials that match."""
        where, matches = QUERIES[query]
        changes: dict[str, Any] = {"mark.at": mark}
        models = list(filter(matches, self.trials.values()))
        self.expect(lambda s, _: s.update_trials(uid="e", where=where, **changes), len(models))
        for model in models:
            model.extra["mark"] = mark

    @rule(query=st.sampled_from([name for name in sorted(QUERIES) if name != "all"]))
    def delete(self, query: str) -> None:
        """Delete the trials that match."""
        where, matches = QUERIES[query]
        doomed = [m.number for m in self.trials.values() if matches(m)]
        self.expect(lambda s, _: s.delete_trials(uid="e", where=where), len(doomed))
        for number in doomed:
            del self.trials[number]

    # ------------------------------------------------------------------------------ lock

    @rule(value=st.one_of(st.integers(), st.lists(st.integers(), max_size=3)), fail=st.booleans())
    def lock(self, value: Any, fail: bool) -> None:
        """Change the algorithm's state under its lock, or fail to."""

        async def hold(storage: AsyncStorageProtocol, _: str) -> Any:
            before = None
            try:
                async with storage.acquire_algorithm_lock({"_id": "e"}, timeout=0) as algorithm:
                    before = algorithm.state
                    algorithm.set_state(value)
                    if fail:
                        raise LookupError
            except LookupError:
                assert fail
            return before

        self.expect(hold, self.state)
        if not fail:
            self.state = value

    # --------------------------------------------------------------------------- reading

    @rule(query=st.sampled_from(sorted(QUERIES)))
    def fetch(self, query: str) -> None:
        """Fetch what matches, all at once and page by page."""
        where, matches = QUERIES[query]
        expected = [m.number for m in self.ordered(matches)]

        async def fetch(storage: AsyncStorageProtocol, _: str) -> tuple[list[int], list[int]]:
            found = await storage.fetch_trials(uid="e", where=where)
            pages = storage.iter_trials({"_id": "e"}, where=where, batch_size=2)
            return _numbers(found or []), _numbers([trial async for trial in pages])

        self.expect(fetch, (expected, expected))

    @invariant()
    def storages_agree_with_the_model(self) -> None:
        """Compare everything."""
        models = self.ordered(lambda _: True)
        expected = [
            (m.number, m.status, m.owner is not None, m.heartbeat, m.objective) for m in models
        ]

        async def everything(storage: AsyncStorageProtocol, _: str) -> tuple[Any, ...]:
            trials = await storage.fetch_trials(uid="e") or []
            found = [
                (
                    trial.params["x"],
                    trial.status,
                    trial.worker is not None,
                    trial.heartbeat,
                    trial.objective.value if trial.objective else None,
                )
                for trial in trials
            ]
            info = await storage.get_algorithm_lock_info(uid="e")
            state = None if info is None else (info.state, bool(info.locked))
            completed = await storage.count_completed_trials({"_id": "e"})
            return found, state, completed

        completed = sum(m.status == "completed" for m in models)
        # before the experiment is made there is no record of the lock either
        made = any(self.run(s.fetch_experiments({})) for s in self.storages.values())
        state = (self.state, False) if made else None
        self.expect(everything, (expected, state, completed))


def machine_for(makers: Mapping[str, MakeStorage]) -> type[StorageMachine]:
    """Make the machine that drives these storages side by side.

    Parameters
    ----------
    makers
        Functions that make a fresh storage each, by name.
    """
    return type("Machine", (StorageMachine,), {"makers": dict(makers)})


def _trial(number: int, **more: Any) -> Trial:
    return Trial(experiment="e", params={"x": number}, **more)


def _numbers(trials: list[Trial]) -> list[int]:
    return [trial.params["x"] for trial in trials]
