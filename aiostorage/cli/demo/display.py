"""What is shown while a demo runs: a live table on a terminal, regular lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiostorage.cli.demo.events import EventKind
from aiostorage.cli.demo.problem import Problem
from aiostorage.cli.demo.run_state import ProcessState, RunState, WorkerState
from aiostorage.cli.text import measure, pairs, span
from aiostorage.trial import TrialStatus

__all__ = ["Display", "LineDisplay", "LiveDisplay", "QuietDisplay", "display_on"]

LINE_INTERVAL: Final = 2.0
"""Seconds between two lines, where there is no terminal."""

OTHER_ROWS: Final = 9
"""Rows of the terminal that the table of workers cannot have."""

ACTIVITIES: Final[Mapping[EventKind | None, str]] = {
    EventKind.EVALUATING: "evaluating",
    EventKind.SUGGESTING: "suggesting more trials",
    EventKind.IDLE: "waiting for the others",
    EventKind.ENDED: "done",
    None: "starting",
}
"""What a worker does after which event; after any other, it looks for a trial."""

STATUS_STYLES: Final = {
    TrialStatus.COMPLETED: "green",
    TrialStatus.RESERVED: "yellow",
    TrialStatus.BROKEN: "red",
    TrialStatus.INTERRUPTED: "red",
}


class Display(Protocol):
    """Shows the progress of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def update(self, state: RunState) -> None:
        """Show the state of the run; called several times a second."""
        ...

    def finish(self, state: RunState) -> None:
        """Show the state of the run at its end."""
        ...


def display_on(console: Console, problem: Problem, *, quiet: bool) -> Display:
    """Return the display that suits a console."""
    if quiet:
        return QuietDisplay()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, problem)
    return LineDisplay(console, problem)


class QuietDisplay:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, state: RunState) -> None:
        """See `Display`."""

    def finish(self, state: RunState) -> None:
        """See `Display`."""


class LineDisplay(QuietDisplay):
    """Prints a line at regular intervals."""

    def __init__(self, console: Console, problem: Problem) -> None:
        self._console = console
        self._problem = problem
        self._next = time.monotonic() + LINE_INTERVAL / 2
        self._last_line = ""

    def update(self, state: RunState) -> None:
        """See `Display`."""
        for note in _take_notes(state):
            self._print(state, note)
        if time.monotonic() >= self._next:
            line = self._line(state)
            if line != self._last_line:
                self._print(state, line)
            self._last_line = line
            self._next = time.monotonic() + LINE_INTERVAL

    def finish(self, state: RunState) -> None:
        """See `Display`."""
        self._next = 0
        self.update(state)

    def _print(self, state: RunState, text: str) -> None:
        self._console.print(
            f"{state.elapsed:6.1f} s  {text}", markup=False, soft_wrap=True, highlight=False
        )

    def _line(self, state: RunState) -> str:
        counts = state.statuses
        parts = [f"{counts[TrialStatus.COMPLETED]}/{state.trials} completed"]
        parts += [
            f"{counts[status]} {status}"
            for status in TrialStatus
            if counts[status] and status != TrialStatus.COMPLETED
        ]
        parts.append(f"{state.rate:.2f} trials/s")
        if state.best is not None:
            parts.append(f"best {measure(state.best.objective, self._problem.unit)}")
        return ", ".join(parts)


class LiveDisplay(QuietDisplay):
    """Draws a table that changes in place, below the remarkable events."""

    def __init__(self, console: Console, problem: Problem) -> None:
        self._console = console
        self._problem = problem
        # refreshed by `update` only, so that no other thread draws
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(exc_type, exc, traceback)

    def update(self, state: RunState) -> None:
        """See `Display`."""
        for note in _take_notes(state):
            self._live.console.print(f"{state.elapsed:6.1f} s  {note}", markup=False)
        self._live.update(self._table(state), refresh=True)

    def finish(self, state: RunState) -> None:
        """See `Display`."""
        self.update(state)

    def _table(self, state: RunState) -> RenderableType:
        room = self._console.height - OTHER_ROWS
        rows = sum(len(process.workers) for process in state.processes.values())
        return Group(
            _progress(state),
            _counts(state),
            self._best(state),
            _workers(state) if rows <= room else _processes(state),
        )

    def _best(self, state: RunState) -> Text:
        if state.best is None:
            return Text("best so far: none yet", style="dim")
        text = Text("best so far: ")
        text.append(measure(state.best.objective, self._problem.unit), style="bold green")
        text.append(f"  {pairs(state.best.params)}", style="dim")
        text.truncate(max(self._console.width, 20), overflow="ellipsis")
        return text


def _progress(state: RunState) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    bar = ProgressBar(total=state.trials, completed=state.finished)
    grid.add_row(bar, Text(f"{state.finished}/{state.trials}"))
    return grid


def _counts(state: RunState) -> Text:
    text = Text()
    for status in TrialStatus:
        count = state.statuses[status]
        if status != TrialStatus.SUSPENDED or count:
            text.append(f"{status} ", style="dim")
            text.append(f"{count}  ", style=STATUS_STYLES.get(status, "") if count else "dim")
    if state.recovered:
        text.append(f"recovered {len(state.recovered)}  ", style="magenta")
    text.append(f"{state.rate:.2f} trials/s  {span(state.elapsed)}", style="dim")
    return text


def _workers(state: RunState) -> Table:
    """Return a table with a row for each worker."""
    table = _plain_table("process", "worker", "does", "trial", "for")
    for process in state.processes.values():
        for number, worker in process.workers.items():
            name = _name(process) if number == 1 else ""
            if process.is_alive:
                table.add_row(name, str(number), *_cells(worker))
            else:
                table.add_row(name, str(number), Text(process.state, style=_style(process)), "", "")
    return table


def _processes(state: RunState) -> Table:
    """Return a table with a row for each process, for many workers."""
    table = _plain_table("process", "completed", "does")
    for process in state.processes.values():
        activities = [_activity(worker) for worker in process.workers.values()]
        sums = ", ".join(f"{activities.count(one)} {one}" for one in dict.fromkeys(activities))
        what = sums if process.is_alive else process.state
        table.add_row(_name(process), str(process.completed), Text(what, style=_style(process)))
    return table


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column == "for" else "left")
    return table


def _name(process: ProcessState) -> str:
    return f"{process.number} (pid {process.pid})"


def _style(process: ProcessState) -> str:
    return "" if process.is_alive else "dim" if process.state == "ended" else "bold red"


def _activity(worker: WorkerState) -> str:
    return ACTIVITIES.get(worker.last_event, "between trials")


def _cells(worker: WorkerState) -> tuple[str, str, str]:
    """Describe the activity of a worker: what it does, on which trial, and for how long."""
    if worker.last_event != EventKind.EVALUATING:
        return _activity(worker), "", ""
    return _activity(worker), worker.trial[:8], span(time.monotonic() - worker.since)


def _take_notes(state: RunState) -> list[str]:
    notes, state.notes = state.notes, []
    return notes
