"""`aiostorage watch` on real stores: its feed, its screen, its lines, its page."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner

from aiostorage import (
    BackendError,
    ConfigurationError,
    Experiment,
    Storage,
    Trial,
    open_storage,
)
from aiostorage.cli.app import cli
from aiostorage.cli.existing import open_named
from aiostorage.cli.watch import change_lines
from aiostorage.cli.watch import feed as watch_feed
from aiostorage.cli.watch.change_lines import follow_lines
from aiostorage.cli.watch.feed import WatchFeed
from aiostorage.cli.watch.shown_state import WatchState
from aiostorage.trial_change import TrialChange

from .support import DEADLINE, started

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch_feed, "SUMMARY_INTERVAL", 1.0)
    monkeypatch.setattr(change_lines, "EXPERIMENT_CHECK_INTERVAL", 0.05)


async def experiment_with(storage: Storage, count: int) -> Experiment:
    experiment = await storage.create_experiment({"name": "tune", "max_trials": 10})
    for x in range(count):
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": x}))
    return experiment


async def complete(storage: Storage, experiment: Experiment, value: float) -> None:
    async with storage.reserved_trial(experiment) as trial:
        assert trial is not None
        await storage.complete_trial(trial, {"loss": value})


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.02)


def feed_of(path: Path) -> WatchFeed:
    opening = partial(open_named, f"sqlite:///{path}")
    return WatchFeed(opening, WatchState("tune", "minimize"), interval=0.02)


async def test_a_feed_goes_on_whatever_happens_to_the_store(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    feed = feed_of(path)
    state = feed.state
    async with open_storage(f"sqlite:///{path}") as storage:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            await until(lambda: state.phase == "missing")
            assert "no experiment 'tune'" in state.note
            experiment = await experiment_with(storage, 4)
            await complete(storage, experiment, 3.0)
            await until(lambda: state.counts["completed"] == 1)
            async with storage.reserved_trial(experiment) as held:
                assert held is not None
                await until(lambda: len(state.workers) == 1)
                assert state.workers[0].trial == held.id
                assert str(os.getpid()) in state.workers[0].worker
                await storage.complete_trial(held, {"loss": 2.0})
            await until(lambda: state.best == 2.0)
            await until(lambda: state.counts["completed"] == 2 and not state.workers)
            assert state.phase == "live"
            assert state.changes[-1].after == "completed"

            await storage.delete_experiment(experiment)
            await until(lambda: state.phase == "missing")
            assert not state.changes
            experiment = await experiment_with(storage, 1)
            await until(lambda: state.phase == "live" and state.counts["new"] == 1)
            assert state.best is None
            tasks.cancel_scope.cancel()
    feed = feed_of(path)
    state = feed.state
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await until(lambda: state.phase == "live")
        moved = await anyio.Path(path).rename(tmp_path / "moved.db")
        await until(lambda: state.phase == "away")
        assert "tune.db" in state.note
        await moved.rename(path)
        await until(lambda: state.phase == "live")
        assert state.away_since is None
        tasks.cancel_scope.cancel()


async def test_a_feed_begins_with_the_trials_that_were_completed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_feed, "MAX_EARLIER_TRIALS", 2)
    monkeypatch.setattr(watch_feed, "MAX_WORKERS", 1)
    path = tmp_path / "tune.db"
    async with open_storage(f"sqlite:///{path}", history="off") as storage:
        experiment = await experiment_with(storage, 7)
        for value in (1.0, 3.0, 4.0, 0.5):
            await complete(storage, experiment, value)
        await storage.reserve_trials(experiment, 2)
    feed = feed_of(path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await until(lambda: feed.state.phase == "live")
        tasks.cancel_scope.cancel()
    assert [point.value for point in feed.state.steps] == [1.0, 0.5]
    assert len(feed.state.ends) == 3
    assert len(feed.state.workers) == feed.state.more_workers == 1


async def test_a_store_without_a_history_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    opening = partial(open_named, f"sqlite:///{path}", history="off")
    async with open_storage(f"sqlite:///{path}", history="off") as storage:
        experiment = await experiment_with(storage, 2)
        feed = WatchFeed(opening, WatchState("tune", "minimize"), interval=0.02)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            await until(lambda: feed.state.phase == "live")
            assert feed.state.note
            await complete(storage, experiment, 1.0)
            await until(lambda: feed.state.best == 1.0)
            tasks.cancel_scope.cancel()


async def test_the_first_error_ends_a_feed() -> None:
    feed = WatchFeed(partial(open_named, "sqlite:///no.db"), WatchState("tune", "minimize"))
    with pytest.raises(ConfigurationError, match=r"no\.db"):
        await feed.run()


async def test_lines_go_on_behind_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    shown: list[TrialChange] = []
    said: list[str] = []
    opening = partial(open_named, f"sqlite:///{path}")
    async with open_storage(f"sqlite:///{path}") as storage:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow_lines, opening, "tune", shown.append, said.append)
            await until(lambda: bool(said))
            assert said == ["waiting: there is no experiment 'tune'; there are none at all"]
            experiment = await experiment_with(storage, 2)
            await complete(storage, experiment, 1.0)
            await until(lambda: len(shown) == 4)
            assert said[1] == "tune@1 is there now"
            await storage.delete_experiment(experiment)
            await until(lambda: any("deleted" in line for line in said))
            await experiment_with(storage, 1)
            await until(lambda: shown[-1].kind == "inserted")
            tasks.cancel_scope.cancel()
        kinds = [change.kind for change in shown]
        assert kinds[:4] == ["inserted", "inserted", "reserved", "status"]
    count = len(shown)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            partial(
                follow_lines, opening, "tune", shown.append, said.append, since=shown[-1].cursor
            )
        )
        await anyio.sleep(0.2)
        moved = await anyio.Path(path).rename(tmp_path / "moved.db")
        await until(lambda: "the store is away" in said[-1])
        await moved.rename(path)
        await until(lambda: said[-1] == "the store is back")
        await complete_one(path)
        await until(lambda: len(shown) == count + 2)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tune --web 8000 --json", "--web shows the screen"),
        ("tune --web 8000 --since oldest", "--since and --heartbeats are for"),
        ("tune --web 99999", "99999"),
        ("tune -s sqlite:///no.db", "no.db"),
    ],
)
def test_what_it_refuses(arguments: str, message: str) -> None:
    Path("aiostorage-demo.db").touch()
    result = CliRunner().invoke(cli, ["watch", *arguments.split()], prog_name="aiostorage")
    assert result.exit_code == 2
    assert message in result.stderr


async def complete_one(path: Path) -> None:
    async with open_storage(f"sqlite:///{path}") as storage:
        [config] = await storage.fetch_experiments({"name": "tune"})
        await complete(storage, Experiment.from_config(config), 1.0)


def filled(folder: Path) -> None:
    async def fill() -> None:
        async with open_storage(f"sqlite:///{folder}/aiostorage-demo.db") as storage:
            experiment = await experiment_with(storage, 6)
            for value in (3.0, 2.0, 5.0):
                await complete(storage, experiment, value)

    anyio.run(fill)


def test_elsewhere_than_on_a_terminal_it_prints_lines(tmp_path: Path) -> None:
    filled(tmp_path)
    with started(tmp_path, "watch", "tune", "--json", "--since", "oldest") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(12)]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert [line["kind"] for line in lines] == ["inserted"] * 6 + ["reserved", "status"] * 3
    assert lines[7]["after"] == "completed"
    assert lines[7]["worker"].startswith("process ")
    since = lines[9]["cursor"]
    with started(tmp_path, "watch", "tune", "--since", since) as process:
        assert process.stdout is not None
        head, *rows = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()  # as `head` does: the next line ends it, without a message
        anyio.run(complete_one, tmp_path / "aiostorage-demo.db")
        assert process.wait() == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert head.split("\t")[:3] == ["time", "kind", "trial"]
    assert [row.split("\t")[1] for row in rows] == ["reserved", "status"]


@pytest.mark.parametrize("scheme", ["sqlite", "track"])
@pytest.mark.parametrize("writing", [False, True])
async def test_a_store_that_is_moved_before_it_is_opened_is_not_made_again(
    tmp_path: Path, scheme: str, writing: bool
) -> None:
    path = tmp_path / "tune"
    url = f"{scheme}:///{path}"
    async with open_storage(url) as storage:
        await experiment_with(storage, 1)
    opening = await anyio.to_thread.run_sync(partial(open_named, url, writing=writing))
    moved = await anyio.Path(path).rename(tmp_path / "moved")
    with pytest.raises((BackendError, ConfigurationError)):
        async with opening:
            pass
    assert await moved.exists()
    assert not await anyio.Path(path).exists()
