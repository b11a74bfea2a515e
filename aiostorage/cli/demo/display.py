"""What is shown while a demo runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiostorage.cli.demo.problem import Problem
from aiostorage.cli.demo.run_state import Board, Doing, ProcessView
from aiostorage.cli.text import measure, pairs, span
from aiostorage.trial import TrialStatus

__all__ = ["LiveScreen", "PlainScreen", "QuietScreen", "Screen", "screen_on"]

EVERY: Final = 2.0
"""Seconds between two lines, where there is no terminal."""

WORDS: Final = {
    "evaluating": "evaluating",
    "suggesting": "suggesting more trials",
    "idle": "waiting for the others",
    "ended": "done",
    "starting": "starting",
}
"""What a worker does, by what it reported last; anything else means it looks for a trial."""

STYLES: Final = {"completed": "green", "reserved": "yellow", "broken": "red", "interrupted": "red"}


class Screen(Protocol):
    """Somewhere to show how a run goes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def update(self, board: Board) -> None:
        """Show how it stands; called several times a second."""
        ...

    def finish(self, board: Board) -> None:
        """Show how it stands at the end."""
        ...


def screen_on(console: Console, problem: Problem, *, quiet: bool) -> Screen:
    """Choose what suits a console."""
    if quiet:
        return QuietScreen()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console, problem)
    return PlainScreen(console, problem)


class QuietScreen:
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

    def update(self, board: Board) -> None:
        """See `Screen`."""

    def finish(self, board: Board) -> None:
        """See `Screen`."""


class PlainScreen(QuietScreen):
    """Prints a line now and then."""

    def __init__(self, console: Console, problem: Problem) -> None:
        self._console = console
        self._problem = problem
        self._next = time.monotonic() + EVERY / 2
        self._said = ""

    def update(self, board: Board) -> None:
        """See `Screen`."""
        for note in _new_notes(board):
            self._print(board, note)
        if time.monotonic() >= self._next:
            line = self._line(board)
            if line != self._said:
                self._print(board, line)
            self._said = line
            self._next = time.monotonic() + EVERY

    def finish(self, board: Board) -> None:
        """See `Screen`."""
        self._next = 0
        self.update(board)

    def _print(self, board: Board, text: str) -> None:
        self._console.print(
            f"{board.elapsed:6.1f} s  {text}", markup=False, soft_wrap=True, highlight=False
        )

    def _line(self, board: Board) -> str:
        counts = board.statuses
        parts = [f"{counts['completed']}/{board.trials} completed"]
        parts += [
            f"{counts[status]} {status}"
            for status in TrialStatus
            if counts[status] and status != "completed"
        ]
        parts.append(f"{board.rate:.2f} trials/s")
        if board.best is not None:
            parts.append(f"best {measure(board.best.objective, self._problem.unit)}")
        return ", ".join(parts)


class LiveScreen(QuietScreen):
    """Draws a table that changes in place; remarkable events scroll by above it."""

    def __init__(self, console: Console, problem: Problem) -> None:
        self._console = console
        self._problem = problem
        # refreshed by `update` only, so that no thread draws beside the event loop
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

    def update(self, board: Board) -> None:
        """See `Screen`."""
        for note in _new_notes(board):
            self._live.console.print(f"{board.elapsed:6.1f} s  {note}", markup=False)
        self._live.update(self._table(board), refresh=True)

    def finish(self, board: Board) -> None:
        """See `Screen`."""
        self.update(board)

    def _table(self, board: Board) -> RenderableType:
        room = self._console.height - 9
        rows = sum(len(process.workers) for process in board.processes.values())
        return Group(
            _progress(board),
            _counts(board),
            self._best(board),
            _workers(board) if rows <= room else _processes(board),
        )

    def _best(self, board: Board) -> Text:
        if board.best is None:
            return Text("best so far: none yet", style="dim")
        text = Text("best so far: ")
        text.append(measure(board.best.objective, self._problem.unit), style="bold green")
        text.append(f"  {pairs(board.best.params)}", style="dim")
        text.truncate(max(self._console.width, 20), overflow="ellipsis")
        return text


def _progress(board: Board) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    bar = ProgressBar(total=board.trials, completed=board.finished)
    grid.add_row(bar, Text(f"{board.finished}/{board.trials}"))
    return grid


def _counts(board: Board) -> Text:
    text = Text()
    for status in TrialStatus:
        count = board.statuses[status]
        if status != "suspended" or count:
            text.append(f"{status} ", style="dim")
            text.append(f"{count}  ", style=STYLES.get(status, "") if count else "dim")
    if board.recovered:
        text.append(f"recovered {len(board.recovered)}  ", style="magenta")
    text.append(f"{board.rate:.2f} trials/s  {span(board.elapsed)}", style="dim")
    return text


def _workers(board: Board) -> Table:
    """Show each worker."""
    table = _plain_table("process", "worker", "does", "trial", "for")
    for process in board.processes.values():
        for worker, doing in process.workers.items():
            name = _name(process) if worker == 1 else ""
            if process.lives:
                what, trial, age = _doing(doing)
                table.add_row(name, str(worker), what, trial, age)
            else:
                table.add_row(name, str(worker), Text(process.state, style=_style(process)), "", "")
    return table


def _processes(board: Board) -> Table:
    """Show each process, when there are too many workers."""
    table = _plain_table("process", "completed", "does")
    for process in board.processes.values():
        kinds = [WORDS.get(doing.what, "between trials") for doing in process.workers.values()]
        sums = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        what = sums if process.lives else process.state
        table.add_row(_name(process), str(process.completed), Text(what, style=_style(process)))
    return table


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column == "for" else "left")
    return table


def _name(process: ProcessView) -> str:
    return f"{process.number} (pid {process.pid})"


def _style(process: ProcessView) -> str:
    return "" if process.lives else "dim" if process.state == "ended" else "bold red"


def _doing(doing: Doing) -> tuple[str, str, str]:
    what = WORDS.get(doing.what, "between trials")
    if doing.what != "evaluating":
        return what, "", ""
    return what, doing.trial[:8], span(time.monotonic() - doing.since)


def _new_notes(board: Board) -> list[str]:
    notes, board.notes = board.notes, []
    return notes
