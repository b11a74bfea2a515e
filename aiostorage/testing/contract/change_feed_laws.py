"""The contract on changes of trials: logged once, in order, with their reasons; and followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import anyio
import pytest

from aiostorage.errors import ConfigurationError, CursorExpired, DuplicateKeyError, FailedUpdate
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.testing.contract.helpers import (
    Clock,
    Open,
    case,
    gather,
    lose,
    make_config,
    make_trial,
    registered,
)
from aiostorage.trial_change import TrialChange

__all__ = ["ChangeFeedLaws", "all_changes", "check_chains"]

Step = tuple[str, str | None, str | None, int]


def check_chains(changes: Sequence[TrialChange], *, whole: bool = True) -> dict[str, list[Step]]:
    """Check that the changes of each trial follow from each other; return them by trial.

    Each begins where the one before has ended, so that none is missing, none is there twice, and
    all are in order; and the number of attempts grows with each reservation.

    Parameters
    ----------
    whole
        Whether the first change of each trial must be its insertion.
    """
    by_trial: dict[str, list[TrialChange]] = {}
    for change in changes:
        by_trial.setdefault(change.trial, []).append(change)
    for trial, own in by_trial.items():
        with case(trial):
            assert not whole or own[0].kind == "inserted"
            for one, other in pairwise(own):
                assert other.before == one.after, (one, other)
                assert other.attempt == one.attempt + (other.kind == "reserved"), (one, other)
                assert (other.kind == "inserted") == (one.kind == "deleted") or (
                    other.kind != "inserted"
                )
    return {trial: [_step(change) for change in own] for trial, own in by_trial.items()}


def _step(change: TrialChange) -> Step:
    return change.kind, change.before, change.after, change.attempt


async def all_changes(
    storage: AsyncStorageProtocol,
    experiment: ExperimentLike,
    cursor: str = "oldest",
    *,
    limit: int = 3,
) -> list[TrialChange]:
    """Return the changes behind a cursor, which are read page by page."""
    found: list[TrialChange] = []
    while True:
        page = await storage.changes_since(experiment, cursor, limit=limit)
        found += page.changes
        cursor = page.cursor
        if len(page.changes) < limit:
            return found


class ChangeFeedLaws:
    """Every change of a trial is logged once, and whoever follows sees it once."""

    @pytest.mark.usefixtures("needs_log")
    async def test_what_is_logged(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config("logged"))
        none = await storage.create_experiment(make_config("none"))
        before, begin = now() - timedelta(seconds=5), await other.changes_since(experiment)
        assert begin.changes == []
        one, two = await registered(storage, experiment, 2)
        first = await storage.reserve_trial(experiment)
        assert first is not None
        await storage.update_heartbeat(first)  # no change of the history
        await storage.complete_trial(first, 1.0)
        again = await storage.reserve_trial(experiment)
        assert again is not None
        await storage.set_trial_status(again, "suspended", reason="for another time")
        await storage.update_trial(uid=two.id, experiment_uid=experiment.id, results=[])
        await storage.update_trials(experiment, where={"status": "suspended"}, status="broken")
        await storage.update_trials(experiment, where={"status": "broken"}, status="broken")
        await storage.delete_trials(experiment, where={"status": "completed"})
        found = await all_changes(other, experiment, begin.cursor)
        assert check_chains(found) == {
            one.id: [
                ("inserted", None, "new", 0),
                ("reserved", "new", "reserved", 1),
                ("status", "reserved", "completed", 1),
                ("deleted", "completed", None, 1),
            ],
            two.id: [
                ("inserted", None, "new", 0),
                ("reserved", "new", "reserved", 1),
                ("status", "reserved", "suspended", 1),
                ("results", "suspended", "suspended", 1),
                ("status", "suspended", "broken", 1),
            ],
        }
        tokens = {one.id: first.worker, two.id: again.worker}
        for change in found:
            with case(change):
                assert change.worker == (
                    None if change.kind == "inserted" else tokens[change.trial]
                )
                assert change.experiment == experiment.id
                assert before <= change.time <= now() + timedelta(seconds=5)
        assert [change.reason for change in found].count("for another time") == 1
        assert await all_changes(storage, experiment) == found
        assert (await storage.changes_since(none, "oldest")).changes == []
        history = await other.trial_history(two)
        assert [_step(change) for change in history] == check_chains(found)[two.id]
        assert await storage.delete_experiment(experiment) == 1
        assert _step((await all_changes(other, experiment))[-1]) == ("deleted", "broken", None, 1)

    @pytest.mark.usefixtures("needs_log")
    async def test_a_cursor_goes_on_where_it_stands(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config("cursors"))
        rival = await storage.create_experiment(make_config("rival"))
        for _ in range(2):
            await registered(storage, experiment, 2)
            await registered(storage, rival, 1)
            await storage.delete_trials(rival)
            assert await storage.reserve_trials(experiment, 2)
            await storage.delete_trials(experiment)
        found = await all_changes(storage, experiment)
        assert len(found) == 12
        assert all(len(change.cursor) < 400 for change in found)
        for number, change in enumerate(found, 1):
            assert await all_changes(other, experiment, change.cursor) == found[number:]
        end = await other.changes_since(experiment)
        assert (await storage.changes_since(experiment, end.cursor)).changes == []
        for wrong in ("", "x", "1-2-3", found[0].cursor[:-1] + "~", "99999999-abcdefgh"):
            with case(wrong), pytest.raises(CursorExpired):
                await storage.changes_since(experiment, wrong)

    @pytest.mark.usefixtures("needs_log")
    async def test_what_fails_is_not_logged(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config("failing"))
        (trial,) = await registered(storage, experiment, 1)
        with pytest.raises(DuplicateKeyError):
            await storage.register_trials([make_trial(experiment, 7), make_trial(experiment, 0)])
        with pytest.raises(FailedUpdate):
            await storage.set_trial_status(trial, "completed", was="reserved")
        with pytest.raises(DuplicateKeyError):
            await storage.register_trial(make_trial(experiment, 0))
        assert (
            await storage.update_trials(experiment, where={"status": "broken"}, status="new") == 0
        )
        assert await storage.delete_trials(experiment, where={"status": "broken"}) == 0
        assert check_chains(await all_changes(storage, experiment)) == {
            trial.id: [("inserted", None, "new", 0)]
        }

    @pytest.mark.usefixtures("needs_log")
    async def test_reasons(self, opening: Open) -> None:
        storage = await opening(nan="broken", lost_after=120.0)
        experiment = await storage.create_experiment(make_config("reasons"))
        (trial,) = await registered(storage, experiment, 1)

        async def fail() -> None:
            async with storage.reserved_trial(experiment):
                raise ExceptionGroup("two", [ValueError("bad loss\nat step 3"), KeyError("x")])

        async def leave() -> None:
            async with storage.reserved_trial(experiment):
                pass

        with pytest.raises(ExceptionGroup):
            await fail()
        await storage.update_trials(experiment, status="new")
        await leave()
        lost = await storage.reserve_trial(experiment)
        assert lost is not None
        await lose(storage, lost)
        await storage.recover_lost_trials(experiment)
        lost = await storage.reserve_trial(experiment)
        assert lost is not None
        await lose(storage, lost)
        async with storage.reserved_trial(experiment) as taken:
            assert taken is not None
            await storage.complete_trial(taken, float("nan"))
        history = await storage.trial_history(trial)
        check_chains(history)
        assert [(c.kind, c.after, c.attempt, c.reason) for c in history] == [
            ("inserted", "new", 0, None),
            ("reserved", "reserved", 1, None),
            ("status", "broken", 1, "ValueError: bad loss"),
            ("status", "new", 1, None),
            ("reserved", "reserved", 2, None),
            ("status", "interrupted", 2, "it was not completed"),
            ("reserved", "reserved", 3, None),
            ("status", "interrupted", 3, "lost"),
            ("reserved", "reserved", 4, None),
            ("reserved", "reserved", 5, "lost"),
            ("status", "broken", 5, "the objective is NaN"),
        ]
        assert history[7].worker == history[6].worker != history[8].worker

    @pytest.mark.usefixtures("needs_log")
    async def test_a_cancelled_worker_says_so(
        self, storage: AsyncStorageProtocol, cancels: bool
    ) -> None:
        if not cancels:
            pytest.skip("a body in a thread cannot be cancelled")
        experiment = await storage.create_experiment(make_config("cancelled"))
        (trial,) = await registered(storage, experiment, 1)
        async with anyio.create_task_group() as group:

            async def work() -> None:
                async with storage.reserved_trial(experiment):
                    group.cancel_scope.cancel()
                    await anyio.sleep_forever()

            group.start_soon(work)
        last = (await storage.trial_history(trial))[-1]
        assert (last.after, last.reason) == ("interrupted", "cancelled")

    @pytest.mark.usefixtures("needs_log")
    async def test_followers_see_each_change_once(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config("followed"))
        _, begin = await other.changes_since(experiment)
        seen: list[list[TrialChange]] = [[], []]

        async def follow(place: int) -> None:
            async for change in other.watch_trials(experiment, since=begin):
                seen[place].append(change)
                if sum(c.after == "completed" for c in seen[place]) == 12:
                    return

        async def work() -> None:
            while (trial := await storage.reserve_trial(experiment)) is not None:
                await storage.complete_trial(trial, 1.0)

        async def begin_work() -> None:
            await registered(storage, experiment, 12)
            await gather(work() for _ in range(4))

        with anyio.fail_after(30):
            await gather([follow(0), follow(1), begin_work()])
        assert seen[0] == seen[1]
        # an engine may have another order between changes of different trials afterwards
        assert check_chains(seen[0]) == check_chains(await all_changes(storage, experiment))
        chains = check_chains(seen[0])
        assert len(chains) == 12
        assert all(len(chain) == 3 for chain in chains.values())

    @pytest.mark.usefixtures("needs_log")
    async def test_heartbeats_on_request(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config("beats"))
        await registered(storage, experiment, 1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        done = asyncio.Event()

        async def follow() -> TrialChange:
            async for change in other.watch_trials(experiment, heartbeats=True):
                done.set()
                return change
            raise AssertionError

        async def beat() -> None:
            step = 1
            while not done.is_set():  # by other times than the store's, which may stand still
                await storage.update_trial(
                    uid=trial.id, experiment_uid=experiment.id, heartbeat=now() + timedelta(0, step)
                )
                step += 1
                await anyio.sleep(0.05)

        with anyio.fail_after(30):
            change, _ = await gather([follow(), beat()])
        assert (change.kind, change.trial, change.worker) == ("heartbeat", trial.id, trial.worker)
        assert (change.before, change.after, change.attempt) == ("reserved", "reserved", 0)
        assert (await other.changes_since(experiment, change.cursor)).changes == []

    async def test_waiting_for_a_trial(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config("awaited"))
        (trial,) = await registered(storage, experiment, 1)

        async def work() -> None:
            reserved = await storage.reserve_trial(experiment)
            assert reserved is not None
            await storage.complete_trial(reserved, 2.0)

        found, _ = await gather([other.wait_for(trial, timeout=30), work()])
        assert (found.status, found.objective.value) == ("completed", 2.0)
        assert (await other.wait_for(trial, "completed")).id == trial.id
        assert (await other.wait_for(trial, "completed", timeout=0)).id == trial.id
        with pytest.raises(TimeoutError, match=r"'completed' after 0 s"):
            await other.wait_for(trial, "broken", timeout=0)
        with pytest.raises(TimeoutError, match=r"('completed'|None) after 0\.01 s"):
            await other.wait_for(trial, {"new", "broken"}, timeout=0.01)
        await storage.delete_trials(experiment)
        with pytest.raises(FailedUpdate, match="deleted"):
            await other.wait_for(trial, "new")

    @pytest.mark.usefixtures("needs_log")
    async def test_trials_that_have_changed(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config("since"))
        trials = await registered(storage, experiment, 4)
        _, cursor = await other.changes_since(experiment)
        assert await other.fetch_trials(experiment, since=cursor) == []
        for trial in await storage.reserve_trials(experiment, 2):
            await storage.complete_trial(trial, 1.0)
        found = await other.fetch_trials(experiment, since=cursor)
        assert found is not None
        assert [trial.id for trial in found] == [trial.id for trial in trials[:2]]
        last = await other.fetch_trials(experiment, where={"status": "new"}, since="oldest")
        assert last is not None
        assert [trial.id for trial in last] == [trial.id for trial in trials[2:]]

    @pytest.mark.usefixtures("needs_log")
    async def test_without_a_history(self, opening: Open, shared: bool) -> None:
        storage = await opening()
        experiment = await storage.create_experiment(make_config("off"))
        none = (await storage.changes_since(experiment)).cursor
        (trial,) = await registered(storage, experiment, 1)
        begin = await storage.changes_since(experiment, "oldest")
        await storage.aclose()
        if not shared:
            return
        storage = await opening(history="off")
        reserved = await storage.reserve_trial(experiment)
        assert reserved is not None
        await storage.complete_trial(reserved, 1.0)
        for call in (
            storage.changes_since(experiment),
            storage.trial_history(trial),
            storage.fetch_trials(experiment, since="oldest"),
        ):
            with pytest.raises(ConfigurationError, match=r"the history of .* is off"):
                await call
        assert (await storage.wait_for(trial)).status == "completed"
        await storage.aclose()
        storage = await opening()  # it stays off until that is changed
        with pytest.raises(ConfigurationError, match="is off"):
            await storage.changes_since(experiment)
        await storage.aclose()
        storage = await opening(history=100)
        assert await storage.trial_history(trial) == []
        for cursor in (none, begin.cursor, begin.changes[0].cursor):
            with case(cursor), pytest.raises(CursorExpired):
                await storage.changes_since(experiment, cursor)
        fresh = await storage.changes_since(experiment)
        assert fresh.changes == []
        await storage.update_trials(experiment, status="broken")
        assert len(await all_changes(storage, experiment, fresh.cursor)) == 1
        (change,) = await all_changes(storage, experiment)
        assert (change.before, change.after, change.attempt) == ("completed", "broken", 0)
