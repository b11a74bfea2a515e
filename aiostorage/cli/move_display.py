"""The output of dumps, loads and copies: their progress on standard error, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from aiostorage.cli.naming import NothingFound
from aiostorage.cli.terminal import Terminal, echo, echo_json
from aiostorage.cli.text import plural
from aiostorage.errors import InvalidArgument
from aiostorage.transfer import DumpReport, MoveProgress, MoveReport, TableReport

__all__ = ["echo_report", "progress_shown"]

_OUTCOMES: Final = {
    "copied": "copied",
    "present": "already there",
    "ignored": "ignored",
    "overwritten": "overwritten",
    "bumped": "bumped",
}


class _Rate(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        """Return the present rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def progress_shown() -> Iterator[Callable[[MoveProgress], None]]:
    """Yield a function that shows the progress if standard error is a terminal.

    Raises
    ------
    NothingFound
        An experiment that was named does not exist.
    """
    try:
        console = Terminal(stderr=True)
        if not console.is_terminal:
            yield lambda _: None
            return
        columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), _Rate())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
            tasks: dict[str, TaskID] = {}

            def show(progress: MoveProgress) -> None:
                if progress.stage not in tasks:
                    tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
                task = tasks[progress.stage]
                bars.update(task, completed=progress.done, total=progress.total)

            yield show
    except InvalidArgument as error:
        if error.argument != "experiments":
            raise
        raise NothingFound(str(error)) from error


def echo_report(
    report: DumpReport | TableReport | MoveReport, *, as_json: bool, err: bool = False
) -> None:
    """Print the report.

    Parameters
    ----------
    as_json
        Print it for scripts.
    err
        Print it to standard error.
    """
    if as_json:
        echo_json(asdict(report), err=err)
        return
    match report:
        case MoveReport():
            for line in _lines(report):
                echo(line, err=err)
        case DumpReport():
            counts = (
                *(plural(report.experiments, "experiment"), plural(report.trials, "trial")),
                *(plural(report.locks, "algorithm lock"), plural(report.benchmarks, "benchmark")),
            )
            orphans = plural(report.orphans, "trial")
            left = f"; left out {orphans} of no experiment" if report.orphans else ""
            echo(f"dumped {', '.join(counts)} of {report.source}{_to(report)}{left}", err=err)
        case TableReport():
            what = f"{plural(report.trials, 'trial')} in {plural(len(report.columns), 'column')}"
            echo(f"wrote {what} of {report.source}{_to(report)}", err=err)


def _to(report: DumpReport | TableReport) -> str:
    return "" if report.destination is None else f" to {report.destination}"


def _lines(report: MoveReport) -> Iterator[str]:
    for one in report.experiments:
        if one.outcome in ("ignored", "overwritten", "bumped"):
            as_version = f" to v{one.new_version}" if one.outcome == "bumped" else ""
            yield f"experiment {one.name} v{one.version}: {one.outcome}{as_version}"
    outcomes = Counter(one.outcome for one in report.experiments)
    parts = [
        f"{_OUTCOMES[outcome]}: {plural(count, 'experiment')}"
        for outcome, count in outcomes.items()
    ]
    benchmarks = plural(report.benchmarks, "benchmark")
    parts.append(f"written: {plural(report.trials, 'trial')}, {benchmarks}")
    if report.present_benchmarks:
        parts.append(f"already there: {plural(report.present_benchmarks, 'benchmark')}")
    if report.interrupted:
        parts.append(f"{plural(report.interrupted, 'reserved trial')} interrupted")
    if report.unlocked:
        parts.append(f"{plural(report.unlocked, 'lock')} freed")
    if report.orphans:
        parts.append(f"left out {plural(report.orphans, 'trial')} of no experiment")
    if report.checksum is not None:
        parts.append("counts and hashes agree")
    start = "dry run, nothing was written: " if report.dry_run else ""
    yield f"{start}{'; '.join(parts)}; from {report.source} to {report.destination}"
