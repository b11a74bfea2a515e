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

from benchmarks import sqlite


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, rough figures")
    parser.add_argument("--directory", type=Path, help="where the files go (default: a temporary one)")
    options = parser.parse_args()
    console = Console()
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    )
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        count = 2000 if options.quick else 20000
        _throughput(console, Path(name), count)
        _depth(console, Path(name), 700 if options.quick else 2100)


def _throughput(console: Console, directory: Path, count: int) -> None:
    table = Table(title="SQLite: operations a second, and ratio to plain sqlite3 of the same run")
    for heading in ("", "synchronous", "reserve/s", "×", "cycles/s", "×", "longest stall"):
        table.add_column(heading, justify="left" if heading in ("", "synchronous") else "right")
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


if __name__ == "__main__":
    main()
