"""``python -m benchmarks``: all figures of one run, as ratios to a peer."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sqlite3
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks import (
    facade,
    history,
    optuna_storages,
    oriondb,
    outbox,
    sqlite,
    telemetry,
    track,
    trackers,
)

if TYPE_CHECKING:
    from benchmarks import mongodb

PARTS = (
    *("sqlite", "track", "facade", "trackers", "orion", "mongodb", "size", "outbox"),
    *("telemetry", "history", "optuna"),
)


def main() -> None:
    """Run the benchmarks and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, rough figures")
    parser.add_argument("--directory", type=Path, help="where the files go (default: temporary)")
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        help="what to measure (default: all)",
    )
    options = parser.parse_args()
    wanted = options.only or PARTS
    console = Console()
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    )
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        if "sqlite" in wanted:
            _throughput(console, directory, 2000 if options.quick else 20000)
            _depth(console, directory, 700 if options.quick else 2100)
        if "track" in wanted:
            _track(console, directory, 128 if options.quick else 640)
        if "facade" in wanted:
            _facade(console, directory, 500 if options.quick else 5000)
        if "trackers" in wanted:
            _trackers(console, directory, 200 if options.quick else 1000)
        if "orion" in wanted and oriondb.available():
            _orion(console, directory, quick=options.quick)
        elif "orion" in wanted:
            console.print("Oríon is not installed: its part is left out")
        if "mongodb" in wanted:
            _mongodb(console, directory, quick=options.quick)
        if "size" in wanted:
            _size(console, directory, 1280 if options.quick else 10_048)
        if "outbox" in wanted:
            _outbox(console, directory, quick=options.quick)
        if "telemetry" in wanted:
            _telemetry(console, directory, quick=options.quick)
        if "history" in wanted:
            _history(console, directory, quick=options.quick)
        if "optuna" in wanted and optuna_storages.available():
            _optuna(console, directory, quick=options.quick)


def _history(console: Console, directory: Path, *, quick: bool) -> None:
    rounds = 8 if quick else 16
    _shown_history(console, history.in_this_process(directory, 640 if quick else 2560, rounds))
    try:
        from aiostorage.testing import MongodError  # noqa: PLC0415  it imports pytest
    except ModuleNotFoundError as error:
        console.print(f"{error.name} is not installed: MongoDB's part is left out")
        return
    try:
        _shown_history(console, history.on_mongodb(directory, 320 if quick else 640, rounds))
    except MongodError as error:
        console.print(f"MongoDB's part is left out: {error}")


def _shown_history(console: Console, costs: Iterable[history.HistoryCost]) -> None:
    for one in costs:
        shown = []
        for what, ratios in (("time", one.time), ("processor time", one.processor)):
            low, middle, high = statistics.quantiles(ratios, method="inclusive")
            shown.append(f"{middle:.2f} of the {what} ({low:.2f} - {high:.2f})")
        console.print(
            f"{one.engine}, {one.tasks} tasks: {one.rate:,.0f} cycles/s without a history; "
            f"with it {', '.join(shown)}",
            soft_wrap=True,
        )


def _optuna(console: Console, directory: Path, *, quick: bool) -> None:
    count = 400 if quick else 4000
    table = Table(
        title="Optuna: trials per second, and milliseconds of processor time for each",
        caption="a trial: two parameters, and an objective that takes no time",
        box=SIMPLE,
    )
    for heading in ("processes", "sampler", "storage", "trials/s", "x RDB", "processor"):
        table.add_column(heading, justify="right")
    for processes in (1, 8):
        found = list(optuna_storages.rates(directory, count, processes))
        for sampler in ("random", "TPE"):
            rows = [row for row in found if row.sampler == sampler]
            peer = next(row.rate for row in rows if row.kind.startswith("RDB"))
            for row in rows:
                table.add_row(
                    f"{row.processes}",
                    row.sampler,
                    row.kind,
                    f"{row.rate:,.0f}",
                    f"{row.rate / peer:.1f}",
                    f"{row.processor:.2f} ms",
                )
    console.print(table)
    marks = (100, 1000) if quick else (100, 1000, 10_000)
    for grown in optuna_storages.growth(directory, marks):
        shown = ", ".join(f"{cost:.2f} ms at {mark:,}" for mark, cost in grown.at.items())
        console.print(f"{grown.kind}, random sampler, processor time of a trial: {shown}")
    for waited in optuna_storages.waiting(directory, 640 if quick else 3200):
        console.print(
            f"{waited.engine}, {optuna_storages.TASKS} coroutines that wait 50 ms, "
            f"{waited.trials} trials: {waited.ratio:.2f} x the least time; "
            f"{waited.processor:.2f} ms of processor time a trial; "
            f"longest stall {waited.stall * 1000:.0f} ms"
        )


def _telemetry(console: Console, directory: Path, *, quick: bool) -> None:
    for one in telemetry.costs(directory, 640 if quick else 3200, 4 if quick else 12):
        console.print(
            f"{one.engine}, {telemetry.TASKS} tasks, reserve and complete: {one.rate:,.0f}/s "
            "without telemetry's calls"
        )
        for what, ratios in (("rate", one.ratios), ("processor time", one.processor)):
            shown = []
            for kind in telemetry.KINDS[1:]:
                low, middle, high = statistics.quantiles(ratios[kind], method="inclusive")
                shown.append(f"{kind} {middle:.3f} ({low:.3f} - {high:.3f})")
            console.print(f"    ratio of the {what}: {', '.join(shown)}")


def _trackers(console: Console, directory: Path, count: int) -> None:
    table = Table(
        title=f"Trials per second of {trackers.TASKS} tasks, and their ratio with a tracker",
        caption="up: 5 ms a call; down: no answer; slow: 500 ms a call",
    )
    for heading in ("engine", "objective", "none", *trackers.DELAYS):
        table.add_column(heading, justify="right")
    for row in trackers.costs(directory, count):
        ratios = (f"{row.ratios[kind]:.2f}" for kind in trackers.DELAYS)
        table.add_row(row.engine, row.objective, f"{row.rate:,.0f}/s", *ratios)
    console.print(table)


def _track(console: Console, directory: Path, count: int) -> None:
    table = Table(title="Track: reserve and complete, per second, beside SQLite", box=SIMPLE)
    for heading in ("trials", "tasks", "Track", "SQLite", "ratio"):
        table.add_column(heading, justify="right")
    for row in track.beside_sqlite(directory, count):
        table.add_row(
            f"{row.trials}",
            f"{row.tasks}",
            f"{row.track.rate:,.0f}",
            f"{row.sqlite.rate:,.0f}",
            f"{row.track.rate / row.sqlite.rate:.3f}",
        )
    console.print(table)


def _throughput(console: Console, directory: Path, count: int) -> None:
    table = Table(
        title="SQLite: operations per second, and their ratio to plain sqlite3",
        caption="plain sqlite3: one thread, the same statements, one commit each",
    )
    for heading in ("tasks", "synchronous", "reserve/s", "ratio", "cycles/s", "ratio", "stall"):
        table.add_column(heading, justify="right" if heading != "tasks" else "left")
    plain = None
    for row in sqlite.throughput(directory, count):
        if row.who.startswith("plain"):
            plain = row
        if plain is None:
            raise AssertionError("the peer must be measured first")
        stall = max(row.reservations.stall, row.cycles.stall)
        table.add_row(
            row.who,
            row.synchronous,
            f"{row.reservations.rate:,.0f}",
            f"{row.reservations.rate / plain.reservations.rate:.1f}",
            f"{row.cycles.rate:,.0f}",
            f"{row.cycles.rate / plain.cycles.rate:.1f}",
            f"{stall * 1000:.1f} ms" if row is not plain else "",
        )
    console.print(table)


def _depth(console: Console, directory: Path, count: int) -> None:
    sizes = (1000 + count, 100_000)
    seconds = asyncio.run(sqlite.depth(directory, sizes, count))
    few, many = (seconds[size] for size in sizes)
    console.print(
        f"one reservation, one task, NORMAL: {few * 1e6:.0f} µs with {sizes[0]:,} trials in the "
        f"file, {many * 1e6:.0f} µs with {sizes[1]:,}: ratio {many / few:.2f}"
    )


def _facade(console: Console, directory: Path, count: int) -> None:
    for one in facade.overhead(directory, count):
        console.print(
            f"facade on {one.engine}: {one.called * 1e6:.0f} µs a call, awaited "
            f"{one.awaited * 1e6:.0f} µs: {(one.called - one.awaited) * 1e6:.0f} µs more (medians)"
        )


def _orion(console: Console, directory: Path, *, quick: bool) -> None:
    figures = oriondb.operations(directory, (1000, 10_000), 2 if quick else 10)
    for one in figures:
        console.print(
            f"Oríon's {one.what}: {one.aiostorage:,.0f} on aiostorage, {one.pickleddb:,.1f} on "
            f"PickledDB: ratio {one.aiostorage / one.pickleddb:.0f}"
        )
    for one in oriondb.hunts(directory, 20 if quick else 200, 4):
        console.print(
            f"Oríon, {one.what}: {one.aiostorage:.1f} on aiostorage, {one.pickleddb:.1f} on "
            f"PickledDB: ratio {one.pickleddb / one.aiostorage:.2f}"
        )


def _mongodb(console: Console, directory: Path, *, quick: bool) -> None:
    try:
        from aiostorage.testing import MongodError  # noqa: PLC0415  it imports pytest
        from benchmarks import mongodb  # noqa: PLC0415
    except ModuleNotFoundError as error:
        console.print(f"{error.name} is not installed: MongoDB's part is left out")
        return
    try:
        with mongodb.mongod(directory) as url:
            _beside(
                console,
                "MongoDB: operations per second beside the bare client with the same commands",
                mongodb.throughput(url, 160 if quick else 1600, 4 if quick else 10),
            )
            if oriondb.available():
                _beside(
                    console,
                    "MongoDB: operations per second beside Oríon's own storage in threads",
                    mongodb.beside_orion(url, 160 if quick else 1600, 2 if quick else 6),
                )
            else:
                console.print("Oríon is not installed: its part is left out")
            _large(console, url, 10_000 if quick else 100_000, 50 if quick else 400)
            _contention(console, url, 1.0 if quick else 5.0)
    except MongodError as error:
        console.print(f"MongoDB's part is left out: {error}")


def _size(console: Console, directory: Path, trials: int) -> None:
    try:
        from aiostorage.testing import MongodError  # noqa: PLC0415  it imports pytest
        from benchmarks import mongodb, size  # noqa: PLC0415
    except ModuleNotFoundError as error:
        console.print(f"{error.name} is not installed: the sizes are left out")
        return
    try:
        with mongodb.mongod(directory) as url:
            study = size.study(url, trials)
            table = Table(
                title=f"MongoDB: a study of {study.trials:,} trials with {study.params} params, "
                "in bytes",
                caption=f"oplog: {study.registered / trials:,.0f} bytes a trial for registration, "
                f"{study.worked / trials:,.0f} for reservation, heartbeat and completion",
                box=SIMPLE,
            )
            for heading in ("collection", "documents", "data", "on disk", "indexes"):
                table.add_column(heading, justify="left" if heading == "collection" else "right")
            for one in study.collections:
                sizes = (one.documents, one.data, one.stored, one.indexes)
                table.add_row(one.name, *(f"{value:,}" for value in sizes))
            console.print(table)
            for library, tasks, count in size.connections(url):
                console.print(f"{library}: a process with {tasks} tasks: {count} connections")
    except MongodError as error:
        console.print(f"the sizes are left out: {error}")


def _outbox(console: Console, directory: Path, *, quick: bool) -> None:
    rounds = 4 if quick else 10
    _costs(console, outbox.on_sqlite(directory, 1000 if quick else 4000, rounds))
    try:
        from aiostorage.testing import MongodError  # noqa: PLC0415  it imports pytest
        from benchmarks import mongodb  # noqa: PLC0415
    except ModuleNotFoundError as error:
        console.print(f"{error.name} is not installed: MongoDB's part is left out")
        return
    try:
        with mongodb.mongod(directory) as url:
            _costs(console, outbox.on_mongodb(url, 160 if quick else 640, rounds))
    except MongodError as error:
        console.print(f"MongoDB's part is left out: {error}")


def _costs(console: Console, costs: Iterable[outbox.OutboxCost]) -> None:
    for one in costs:
        low, middle, high = one.quartiles
        console.print(
            f"{one.engine}, {one.tasks} tasks, {one.what}: {one.with_outbox:,.0f}/s with an "
            f"outbox, {one.without:,.0f}/s without: ratio {middle:.2f} ({low:.2f} - {high:.2f})"
        )


def _beside(console: Console, title: str, rows: Iterable[mongodb.PairedResult]) -> None:
    table = Table(
        title=title,
        caption="the median of the ratios of alternating blocks, and their quartiles",
        box=SIMPLE,
    )
    for heading in ("client", "tasks", "what", "ours/s", "theirs/s", "ours/theirs", "stall"):
        table.add_column(heading, justify="left" if heading in ("client", "what") else "right")
    for row in rows:
        low, middle, high = row.quartiles
        table.add_row(
            row.library,
            str(row.tasks),
            row.what,
            f"{row.ours:,.0f}",
            f"{row.theirs:,.0f}",
            f"{middle:.2f} ({low:.2f} - {high:.2f})",
            f"{row.stall * 1000:.1f} ms",
        )
    console.print(table)


def _large(console: Console, url: str, many: int, count: int) -> None:
    from benchmarks import mongodb  # noqa: PLC0415

    for library in mongodb.LIBRARIES:
        paired, fetched = asyncio.run(
            mongodb.depth(url, library, many=many, few=1000, count=count, rounds=8)
        )
        low, middle, high = (1 / ratio for ratio in reversed(paired.quartiles))
        console.print(
            f"{library}: one reservation, one task, {1e6 / paired.theirs:.0f} µs with 1,000 trials "
            f"in the database, {1e6 / paired.ours:.0f} µs with {many:,}: ratio {middle:.2f} "
            f"({low:.2f} - {high:.2f}); all {fetched.trials:,} fetched in {fetched.seconds:.1f} s, "
            f"longest stall {fetched.stall * 1000:.0f} ms (with Python's garbage collector off)"
        )


def _contention(console: Console, url: str, seconds: float) -> None:
    from benchmarks import mongodb  # noqa: PLC0415

    table = Table(title="MongoDB: workers that reserve trials of one experiment, PyMongo async")
    for heading in ("processes", "tasks each", "who", "reserve/s", "write conflicts each"):
        table.add_column(heading, justify="left" if heading == "who" else "right")
    for processes, tasks in ((1, 64), (8, 8), (24, 1)):
        for way in mongodb.WAYS:
            one = mongodb.contention(url, way, processes, tasks, seconds)
            table.add_row(
                str(processes), str(tasks), way, f"{one.rate:,.0f}", f"{one.conflicts:.1f}"
            )
    console.print(table)


if __name__ == "__main__":
    main()
