"""``aiostorage release``: opens the algorithm lock of an experiment."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime

import anyio
import click

from aiostorage import LockSummary, Storage
from aiostorage.cli.completion import EXPERIMENT
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import NothingFound, experiment_label, find_experiment
from aiostorage.cli.options import (
    confirmed,
    debug_option,
    storage_option,
    timeout_option,
    yes_option,
)
from aiostorage.cli.terminal import echo
from aiostorage.cli.text import holder_line
from aiostorage.protocols import Uid

__all__ = ["release"]


@click.command
@click.argument("named", metavar="EXPERIMENT", type=EXPERIMENT)
@storage_option
@yes_option
@timeout_option
@debug_option
def release(*, named: str, url: str | None, yes: bool, timeout: float | None) -> None:
    """Free the algorithm lock of an experiment.

    The lock of a dead holder becomes free after one lease; only a lock that Oríon's own storage
    took has no lease. If the holder is alive, the command says so and asks first: the holder gets
    LockLost, and the state that it has computed is not saved.

    EXPERIMENT is a name, NAME@VERSION if it has several versions, an id, or the beginning of an id.
    """
    label, uid, lock, now = anyio.run(_look, open_named(url, timeout), named)
    asked = f"the lock of {label} is {holder_line(lock, now)}; take it away"
    if lock.locked and not confirmed(asked, yes):
        echo("nothing was changed", err=True)
        return
    released = anyio.run(_release, open_named(url, timeout, writing=True), uid)
    echo(f"the lock of {label} {'was released' if released else 'was free already'}")


async def _look(
    opened: AbstractAsyncContextManager[Storage], named: str
) -> tuple[str, Uid, LockSummary, datetime]:
    async with opened as storage:
        config = await find_experiment(storage, named, changing=True)
        summary = await storage.summary(config)
        if summary is None or summary.lock is None:
            raise NothingFound(f"{experiment_label(config)} has no algorithm lock")
        return experiment_label(config), summary.id, summary.lock, summary.time


async def _release(opened: AbstractAsyncContextManager[Storage], uid: Uid) -> int:
    async with opened as storage:
        return await storage.release_algorithm_lock(uid=uid)
