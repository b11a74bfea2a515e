"""``python -m benchmarks``: all figures of one run, as ratios beside a peer."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sqlite3
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import facade, oriondb, sqlite


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, rough figures")
    parser.add_argument("--directory", type=Path, help="where the files go (default: temporary)")
    parser.add_argument(
        "--only",
        action="append",
        choices=("sqlite", "facade", "orion"),
        help="what to measure (default: all)",
    )
    options = parser.parse_args()
    wanted = options.only or ("sqlite", "facade", "orion")
    console = Console()
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    )
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        if "sqlite" in wanted:
            _throughput(console, directory, 2000 if options.quick else 20000)
            _depth(console, directory, 700 if options.quick else 2100)
        if "facade" in wanted:
            _facade(console, directory, 500 if options.quick else 5000)
        if "orion" in wanted and oriondb.available():
            _orion(console, directory, quick=options.quick)
        elif "orion" in wanted:
            console.print("Oríon is not installed here: its part is left out")


def _throughput(console: Console, directory: Path, count: int) -> None:
    table = Table(
        title="SQLite: operations a second, and their ratio to plain sqlite3",
        caption="plain sqlite3: one thread, the same statements, one commit each",
    )
    for heading in ("tasks", "synchronous", "reserve/s", "ratio", "cycles/s", "ratio", "stall"):
        table.add_column(heading, justify="right" if heading != "tasks" else "left")
    plain = None
    for row in sqlite.throughput(directory, count):
        if row.who.startswith("plain"):
            plain = row
        if plain is None:
            raise AssertionError("the peer comes first")
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


if __name__ == "__main__":
    main()
