"""``python -m benchmarks``: aiostorage beside its peers and its limits, and the report.

Without ``--only`` everything is measured and the report is written, with pictures beside it. With
``--only`` the figures of some workloads are printed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import plots
from benchmarks.aims import AIMS
from benchmarks.definitions import Need
from benchmarks.details import DETAILS, DetailConditions
from benchmarks.machine import machine
from benchmarks.registry import WORKLOADS
from benchmarks.report import report, workload_table
from benchmarks.runner import Conditions, carry_out
from benchmarks.samples import LeftOut, Run, Sample
from benchmarks.tables import Table

Say = Callable[[str], None]
WIDTH = 160
"""Columns of what is printed into a file or a pipe."""

OUTPUT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write or print what was found; return 1 if a side of aiostorage failed."""
    options = _parser().parse_args(arguments)
    say: Say = _say if options.verbose else lambda _: None
    if options.samples:
        run = Run.from_json(options.samples.read_text(encoding="utf-8"))
    else:
        names = options.only or _everything(quick=options.quick)
        with _conditions(names, options.directory, options.before) as conditions:
            run = _measured(names, conditions, say, quick=options.quick, whole=not options.only)
    if options.json:
        options.json.write_text(run.to_json(), encoding="utf-8")
    if options.output or not options.only:
        _write(run, options.output or OUTPUT)
    else:
        _print(run)
    return int(any(left.failed and left.who.startswith("aiostorage") for left in run.left_out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=[*WORKLOADS, *DETAILS],
        metavar="NAME",
        help=f"a part of it; may be repeated: {', '.join([*WORKLOADS, *DETAILS])}",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, and no details")
    parser.add_argument(
        "--before", type=Path, help="a checkout of earlier code, to be measured beside this one"
    )
    parser.add_argument("--directory", type=Path, help="where the files go (default: temporary)")
    parser.add_argument(
        "--output",
        type=Path,
        help="where the report goes (default: docs/benchmarks.md; with --only it is printed)",
    )
    parser.add_argument("--json", type=Path, help="a file to write the samples to")
    parser.add_argument(
        "--samples", type=Path, help="a file of --json to report, without measuring"
    )
    parser.add_argument("--verbose", action="store_true", help="say what is being measured")
    return parser


# ------------------------------------------------------------------------------ measuring


def _everything(*, quick: bool) -> list[str]:
    """Return the names of what is measured without ``--only``: no details in a hurry."""
    details = [name for name, detail in DETAILS.items() if detail.reported and not quick]
    return [*WORKLOADS, *details]


def _measured(
    names: Sequence[str], conditions: Conditions, say: Say, *, quick: bool, whole: bool
) -> Run:
    """Measure workloads and details; in a whole run, the details in short."""
    begin = time.monotonic()
    found = machine(conditions.directory)
    samples: list[Sample] = []
    left_out: list[LeftOut] = []
    for name in names:
        if name in WORKLOADS:
            workload = WORKLOADS[name].quick() if quick else WORKLOADS[name]
            for one in carry_out(workload, conditions, say):
                samples.append(one) if isinstance(one, Sample) else left_out.append(one)
    details: dict[str, list[Table]] = {}
    given = DetailConditions(conditions.directory, conditions.mongodb or "", quick or whole)
    for name in names:
        if name in DETAILS:
            lacking = [need for need in DETAILS[name].needs if need in conditions.missing]
            if lacking:
                left_out.append(LeftOut(name, "", "", conditions.missing[lacking[0]]))
            else:
                say(name)
                details[name] = list(DETAILS[name].measure(given))
    found["duration"] = f"{max((time.monotonic() - begin) / 60, 1):.0f} min"
    return Run(found, quick, tuple(samples), tuple(left_out), details)


@contextmanager
def _conditions(
    names: Sequence[str], directory: Path | None, before: Path | None
) -> Iterator[Conditions]:
    """Yield what is there to be measured with, and clean up afterwards."""
    prefix = f"aiostorage_bench_{uuid4().hex[:8]}_"
    missing: dict[Need, str] = {}
    if find_spec("optuna") is None:
        missing["optuna"] = "Optuna is not installed"
    if find_spec("orion") is None:
        missing["orion"] = "Oríon is not installed"
    if before is None:
        missing["before"] = "no checkout of earlier code was given (`--before`)"
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        url = None
        if any(_needs_mongodb(name) for name in names):
            try:
                url = stack.enter_context(_server(place, prefix))
            except _NoServer as error:
                missing["mongodb"] = str(error)
        yield Conditions(place, prefix, missing, url, before and before.resolve())


def _needs_mongodb(name: str) -> bool:
    if name in DETAILS:
        return "mongodb" in DETAILS[name].needs or name in {"history", "outbox"}
    return any("mongodb" in side.needs for side in WORKLOADS[name].sides)


class _NoServer(Exception):
    """There is no MongoDB server."""


@contextmanager
def _server(directory: Path, prefix: str) -> Iterator[str]:
    """Yield the URL of a MongoDB server, whose databases of this run are dropped afterwards."""
    try:
        from aiostorage.testing import MongodError  # noqa: PLC0415  it imports pytest
        from benchmarks import mongodb  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _NoServer(f"{error.name} is not installed") from error
    with ExitStack() as stack:
        try:
            url = stack.enter_context(mongodb.mongod(directory))
        except MongodError as error:
            raise _NoServer(str(error)) from error
        try:
            yield url
        finally:
            mongodb.drop_databases(url, prefix)


# ------------------------------------------------------------------------------ reporting


def _write(run: Run, output: Path) -> None:
    """Write the report, and its pictures beside it."""
    pictures = {}
    try:
        for name, workload in WORKLOADS.items():
            picture = Path("pictures", f"benchmarks-{name}.svg")
            if plots.draw(run, workload, output.parent / picture):
                pictures[name] = picture.as_posix()
    except ImportError as error:
        print(f"{error.name} is not installed: the report has no pictures", file=sys.stderr)
    text = report(run, list(WORKLOADS.values()), AIMS, pictures=pictures)
    output.write_text(text, encoding="utf-8")
    print(f"written: {output}")


def _print(run: Run) -> None:
    """Print the figures to the terminal."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(", ".join(f"{name} {value}" for name, value in run.machine.items()))
    measured = {sample.workload for sample in run.samples}
    for name, workload in WORKLOADS.items():
        if name in measured:
            _show(console, workload_table(run, workload))
    for tables in run.details.values():
        for table in tables:
            _show(console, table)
    for left in run.left_out:
        console.print(f"left out: {left.workload}, {left.who}, {left.case}: {left.reason}")


def _show(console: Console, table: Table) -> None:
    shown = RichTable(title=table.title, caption=table.caption or None, box=SIMPLE)
    for number, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if number < table.left else "right")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    sys.exit(main())
