"""``aiostorage import-orion`` and ``export-orion``: copies from Oríon's databases and to them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import anyio
import click
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import check_lasts, connecting, open_existing
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.cli.terminal import Terminal, echo
from aiostorage.cli.text import plural, span
from aiostorage.errors import EncodingError
from aiostorage.factory import storage_of
from aiostorage.orion import (
    Progress,
    TransferCounts,
    export_orion,
    import_orion,
    is_url,
    location_of,
)

__all__ = ["export_command", "import_command"]

LINE_INTERVAL: Final = 5.0
"""Seconds between two lines about one collection, where there is no terminal."""

_NOUNS: Final = {
    "experiments": "experiment",
    "trials": "trial",
    "benchmarks": "benchmark",
    "algorithms": "algorithm state",
}


_FILE: Final = click.Path(dir_okay=False, path_type=Path)


class _Source(click.Path):
    """A file, or the URL of a database."""

    name = "source"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a URL unchanged, and a path if there is such a file."""
        return value if is_url(value) else super().convert(value, param, ctx)


@click.command("import-orion")
@click.argument("source", type=_Source())
@click.argument("place", metavar="[DEST]", required=False)
@storage_option
@click.option(
    "--overwrite", is_flag=True, help="Replace experiments that exist but differ, as a whole."
)
@click.option(
    "--state-codec",
    type=click.Choice(["pickle", "msgpack"]),
    default="pickle",
    show_default=True,
    help="How algorithm state is written; Oríon on aiostorage expects pickle.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out records that cannot be stored, list them at the end, and exit with 1.",
)
@json_option
@debug_option
def import_command(
    *,
    source: Path | str,
    place: str | None,
    url: str | None,
    overwrite: bool,
    state_codec: str,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Copy a PickledDB file or a MongoDB database of Oríon into a storage.

    SOURCE is the file, or the URL of the database with its name: mongodb://localhost/orion. It is
    not changed. Trials that workers have reserved there are interrupted in the copy, so stop the
    workers first. The file, or the algorithm states in the database, are unpickled, which runs code
    that they contain: import only from sources that you trust. DEST is for example
    sqlite:///tune.db; without DEST, it is the storage that is configured, as for `aiostorage
    status`. Run the command again after an interruption, and it continues. Nothing that
    is in DEST is changed: the command refuses to import what exists there and differs.
    """
    there = named_store(one_url(place, url))
    check_lasts(there)
    source = _limited(source)
    # The first call opens it. By then the source has been read and checked.
    storage = storage_of(there, state_codec=state_codec, **connecting(there))

    async def copy(report: Callable[[Progress], None]) -> TransferCounts:
        async with aclosing(storage):
            return await import_orion(
                source, storage, overwrite=overwrite, skip_bad=skip_bad, progress=report
            )

    counts = _run(copy, location_of(source), storage.location, as_json=as_json)
    if counts.skipped:
        sys.exit(1)


def _limited(source: Path | str) -> Path | str:
    """Return a source whose server has to answer as soon as that of any other command."""
    if not isinstance(source, str):
        return source
    limit = connecting(named_store(source))
    if not limit:
        return source
    return f"{source}{'&' if '?' in source else '?'}{urlencode(limit)}"


@click.command("export-orion")
@click.argument("places", nargs=-1, required=True, metavar="[SOURCE] DEST")
@storage_option
@click.option("--overwrite", is_flag=True, help="Replace DEST if it exists.")
@click.option(
    "--state-codec",
    type=click.Choice(["pickle", "msgpack"]),
    default="msgpack",
    show_default=True,
    help="With pickle, pickled algorithm states are read: this runs code that they contain.",
)
@debug_option
@click.pass_context
def export_command(
    ctx: click.Context,
    *,
    places: tuple[str, ...],
    url: str | None,
    overwrite: bool,
    state_codec: str,
) -> None:
    """Copy a storage into a PickledDB file, with which Oríon can continue.

    SOURCE is for example sqlite:///tune.db or mongodb://localhost/tune; without SOURCE, it is the
    storage that is configured, as for `aiostorage status`. If algorithm states in it are pickled,
    as Oríon's are, it is refused without --state-codec pickle: to unpickle them runs code that
    they contain, so do that only if you trust everyone who can write to SOURCE. DEST gets its name
    when it is complete.
    """
    *source, file = places
    if len(source) > 1 or (not source and "://" in file):
        raise click.UsageError("name the storage, or leave it out, and then the file", ctx)
    dest = _FILE.convert(file, None, ctx)
    named = named_store(one_url(source[0] if source else None, url))
    storage = open_existing(named, state_codec=state_codec, **connecting(named))

    async def copy(report: Callable[[Progress], None]) -> TransferCounts:
        async with aclosing(storage):
            try:
                return await export_orion(storage, dest, overwrite=overwrite, progress=report)
            except EncodingError as error:
                advice = str(error).replace('state_codec="pickle"', "--state-codec pickle")
                raise EncodingError(advice) from error

    _run(copy, storage.location, str(dest))


def _run(
    copy: Callable[[Callable[[Progress], None]], Awaitable[TransferCounts]],
    source: str,
    dest: str,
    *,
    as_json: bool = False,
) -> TransferCounts:
    if as_json:
        counts = anyio.run(copy, lambda _: None)
        result = {"source": source, "destination": dest, **asdict(counts)}
        click.echo(json.dumps(result, indent=2))
        return counts
    console = Terminal()
    started = time.monotonic()
    with _ProgressBars(console) if console.is_terminal else _ProgressLines() as display:
        counts = anyio.run(copy, display.update)
    seconds = span(time.monotonic() - started)
    echo(f"{_summary_line(counts)}; from {source} to {dest} in {seconds}")
    for one in counts.skipped:
        more = f" (with its {plural(one.trials, 'trial')})" if one.trials else ""
        echo(f"skipped {one.reason}{more}")
    return counts


def _summary_line(counts: TransferCounts) -> str:
    """Return all counts in one line. What was copied is always named, other counts unless zero."""
    parts = []
    for outcome, words in (
        ("copied", "copied"),
        ("replaced", "replaced"),
        ("present", "already there:"),
    ):
        numbers = {name: getattr(getattr(counts, name), outcome) for name in _NOUNS}
        if outcome == "copied" or any(numbers.values()):
            phrases = [plural(number, _NOUNS[name]) for name, number in numbers.items()]
            parts.append(f"{words} {', '.join(phrases)}")
    if counts.interrupted:
        parts.append(f"{plural(counts.interrupted, 'reserved trial')} interrupted")
    if counts.orphans:
        parts.append(f"left out {plural(counts.orphans, 'trial')} of no experiment")
    if counts.skipped:
        parts.append(f"skipped {plural(len(counts.skipped), 'record')} that cannot be stored")
    return "; ".join(parts)


class _ProgressLines:
    """The progress of a transfer as lines, for a log."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Print a line when a collection is done, and at intervals before that."""
        now = time.monotonic()
        if progress.done == progress.total or now - self._last >= LINE_INTERVAL:
            self._last = now
            echo(f"{progress.collection}: {progress.done:,} of {progress.total:,}")


class _ProgressBars:
    """The progress of a transfer as bars, for a terminal."""

    def __init__(self, console: Terminal) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Move the bar of a collection."""
        name = progress.collection
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name)
        self._bars.update(self._tasks[name], completed=progress.done, total=progress.total)
