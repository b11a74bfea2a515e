"""The loops that readers copy go on when a trial is lost."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from aiostorage import Storage, SyncStorage, Trial, TrialLost
from aiostorage.drivers.memory import MemoryDriver
from tests.docs.test_examples import PYTHON
from tools.docs_code import Block

LOOPS = [
    block
    for block in PYTHON
    if any(
        isinstance(node, ast.While) and "reserved_trial(" in ast.unparse(node)
        for node in ast.walk(ast.parse(block.text))
    )
]
COUNT = 12


def worker_of(block: Block) -> Callable[[Any, Any], Any] | None:
    """Return the function of a block that has the loop, if it takes storage and experiment."""
    tree = ast.parse(block.text)
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    names: dict[str, Any] = {}
    exec(compile(tree, block.where, "exec"), names)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "while" in ast.unparse(
            node
        ):
            arguments = [argument.arg for argument in node.args.args]
            return names[node.name] if arguments == ["storage", "experiment"] else None
    return None


WORKERS = [(block, worker) for block in LOOPS if (worker := worker_of(block)) is not None]


def test_the_loops_are_found() -> None:
    pages = {block.page.name for block in LOOPS}
    assert pages >= {"README.md", "first-experiment.md", "worker-loop.md", "many-processes.md"}
    assert len(WORKERS) >= 4


@pytest.mark.parametrize("block", LOOPS, ids=lambda block: block.where)
def test_no_loop_has_to_catch_an_error(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.While):
            assert "TrialLost" not in ast.unparse(node)


class Unlucky(Storage):
    """A storage that takes every third trial from its worker just before it is completed."""

    lost = 0

    async def complete_trial(self, trial: Trial, results: Any) -> None:
        if self.lost < COUNT // 3 and trial.params["x"] % 3 == 0:
            self.lost += 1
            long_ago = datetime(2020, 1, 1, tzinfo=UTC)
            await self.update_trial(trial, heartbeat=long_ago)
            await self.recover_lost_trials({"_id": trial.experiment})
        await super().complete_trial(trial, results)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "worker",
    [
        pytest.param(worker, id=block.where)
        for block, worker in WORKERS
        if asyncio.iscoroutinefunction(worker)
    ],
)
async def test_workers_finish_although_trials_are_lost(worker: Callable[[Any, Any], Any]) -> None:
    async with Unlucky(MemoryDriver()) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(COUNT)]
        await storage.register_trials(trials)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(worker(storage, experiment))
        assert storage.lost == COUNT // 3
        assert await storage.count_completed_trials(experiment) == COUNT


@pytest.mark.parametrize(
    "worker",
    [
        pytest.param(worker, id=block.where)
        for block, worker in WORKERS
        if not asyncio.iscoroutinefunction(worker)
    ],
)
def test_a_thread_finishes_although_trials_are_lost(worker: Callable[[Any, Any], Any]) -> None:
    unlucky = Unlucky(MemoryDriver())
    with SyncStorage(unlucky) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(COUNT)]
        storage.register_trials(trials)
        assert worker(storage, experiment) == COUNT
        assert unlucky.lost == COUNT // 3
        assert storage.count_completed_trials(experiment) == COUNT


@pytest.mark.anyio
async def test_the_error_is_raised_on_demand() -> None:
    async with Unlucky(MemoryDriver()) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 0}))
        with pytest.raises(TrialLost):
            async with storage.reserved_trial(experiment, on_lost="raise") as trial:
                assert trial is not None
                await storage.complete_trial(trial, 1)
