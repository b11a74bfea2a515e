"""``aiostorage tracker-sync``: sends pending changes to a tracker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from aiostorage import Storage, TrackerTimeout
from aiostorage._core.delivery import Deliverer
from aiostorage._core.holders import named_holder
from aiostorage._core.named_store import named_store
from aiostorage._core.outbox import Outbox
from aiostorage.cli.existing import connecting, open_existing
from aiostorage.cli.options import debug_option, one_url, storage_option
from aiostorage.cli.terminal import Terminal, echo
from aiostorage.cli.text import plural, span
from aiostorage.factory import configured_tracker, storage_of
from aiostorage.trackers.factory import tracker_of

__all__ = ["tracker_sync"]

LOOK_INTERVAL: Final = 0.25
"""Seconds between two checks of how much is left."""

LINE_INTERVAL: Final = 5.0
"""Seconds between two lines, if there is no terminal."""

BATCH: Final = 500
"""Maximum number of trial ids in memory at the same time."""


@click.command("tracker-sync")
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option(
    "--tracker",
    help="The URL of the tracker, such as mlflow+http://127.0.0.1:5000. Default: the one in "
    "AIOSTORAGE_TRACKER, else the one in the storage's configuration.",
)
@click.option("--all", "everything", is_flag=True, help="Send all experiments and trials again.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=90.0,
    show_default=True,
    help="Give up when nothing could be sent for this long.",
)
@debug_option
def tracker_sync(
    *,
    place: str | None,
    url: str | None,
    tracker: str | None,
    everything: bool,
    timeout: float,
) -> None:
    """Send changes to a tracker that it does not have yet.

    Workers with that tracker do this on their own. This command is for the changes that were left
    when they ended, and for a tracker that is new or has lost something: with --all it gets every
    experiment and trial. A run that already exists is found and updated, not created twice.

    Workers may keep running. If one of them is already sending, this command waits for it. The exit
    code is 1 if something could not be sent.

    URL names the storage, for example sqlite:///tune.db. Without URL, the storage that is
    configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    named = named_store(one_url(place, url))
    wanted = tracker or os.environ.get("AIOSTORAGE_TRACKER") or configured_tracker(named)
    if wanted is None:
        raise click.UsageError("which tracker? name it with --tracker, or in AIOSTORAGE_TRACKER")
    patience = connecting(named)
    existing = open_existing(named, **patience)
    made = tracker_of(wanted)
    storage = storage_of(named.without_tracker(), tracker=made, deliver_on_close=0.0, **patience)
    started = time.monotonic()
    console = Terminal()
    anyio.run(_check, existing)
    with _bar(console) if console.is_terminal else _lines() as show:
        sent, left, refused, why = anyio.run(_sync, storage, everything, timeout, show)
    where = f"from {storage.location} to {made.name} at {made.location}" if made else ""
    echo(f"sent {plural(sent, 'change')} {where} in {span(time.monotonic() - started)}")
    if refused:
        echo(f"{refused:,} experiments or trials were refused; see above", err=True)
    if left:
        echo(f"{plural(left, 'change')} could not be sent: {why}", err=True)
    if left or refused:
        sys.exit(1)


async def _check(existing: Storage) -> None:
    """Raise if there is no such database."""
    async with existing:
        pass


async def _sync(
    storage: Storage, everything: bool, timeout: float, show: Callable[[int, int], None]
) -> tuple[int, int, int, str]:
    """Send; return how many changes were sent, are left and were refused, and why some are left."""
    mirror = storage._mirror  # noqa: SLF001  as an adapter of this package
    assert mirror is not None  # noqa: S101  it was opened with a tracker
    async with storage:
        outbox = Outbox(storage._gateway)  # noqa: SLF001  as above
        if everything:
            await _add_all(storage, outbox)
        total = left = await mirror.left()
        show(0, total)
        progress_at, told = time.monotonic(), False
        while left and time.monotonic() - progress_at < timeout:
            try:
                await storage.flush_tracker(LOOK_INTERVAL)
                left = 0
            except TrackerTimeout as error:
                if error.left < left:
                    progress_at, left = time.monotonic(), error.left
            total = max(total, left)
            show(total - left, total)
            if left and not told and time.monotonic() - progress_at > 1:
                told = await _tell_who_sends(outbox, mirror.deliverer)
        holder = await outbox.lease_holder()
        sender = "no process" if holder is None else named_holder(holder)
        why = mirror.deliverer.last_error or f"{sender} sends, and made no progress"
        return total - left, left, mirror.deliverer.refused, why


async def _tell_who_sends(outbox: Outbox, deliverer: Deliverer) -> bool:
    """Report which other process sends, if there is one; return whether there is."""
    holder = await outbox.lease_holder()
    if holder is None or holder == deliverer.owner:
        return False
    echo(f"{named_holder(holder)} sends already; waiting for it", err=True)
    return True


async def _add_all(storage: Storage, outbox: Outbox) -> None:
    for config in await storage.fetch_experiments({}, {"_id": 1, "name": 1, "version": 1}):
        uid, ids = config["_id"], list[Any]()
        await outbox.add(uid, (None,), "anew")
        async for document in storage.iter_trials(config, selection={"id": 1}, batch_size=BATCH):
            ids.append(document["id"])
            if len(ids) == BATCH:
                await outbox.add(uid, ids, "anew")
                ids.clear()
        await outbox.add(uid, ids, "anew")


@contextmanager
def _bar(console: Terminal) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows the progress as a bar."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Bars(*columns, TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task("changes")
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def _lines() -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows the progress as lines, for a log."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if done and time.monotonic() - last >= LINE_INTERVAL:
            last = time.monotonic()
            echo(f"changes: {done:,} of {total:,}")

    yield show
