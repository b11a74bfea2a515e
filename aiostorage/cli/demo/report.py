"""The report at the end of a demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiostorage.cli.demo.problem import Problem
from aiostorage.cli.demo.run_state import Recovery, RunState
from aiostorage.cli.results import BestTrial
from aiostorage.cli.text import measure, pairs, plural, span
from aiostorage.trial import TrialStatus

__all__ = ["DemoReport"]

LABEL_WIDTH = 12
"""Columns of the labels on the left."""

MAX_BROKEN_SHOWN = 5
"""Broken trials whose errors are printed."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Prints the outcome of a run.

    Parameters
    ----------
    state
        What the workers reported.
    best
        The best trial.
    references
        Objectives to compare the best one with, by name.
    name
        The name and version of the experiment.
    location
        Where the experiment is stored; None if nothing is left.
    status_command
        The command that shows it.
    kill
        Whether a process was to be killed.
    """

    problem: Problem
    state: RunState
    best: BestTrial | None
    references: Mapping[str, float]
    name: str
    location: str | None
    status_command: str
    kill: bool = False

    def print(self, console: Console) -> None:
        """Print the report."""
        if not console.is_terminal:
            for label, text in self._rows():
                console.print(f"{label:<{LABEL_WIDTH}}", text, sep="", soft_wrap=True, markup=False)
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="bold", min_width=LABEL_WIDTH - 2, no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in self._rows():
            grid.add_row(label, text)
        console.print(grid)

    def _rows(self) -> Iterator[tuple[str, Text]]:
        yield "done", Text(self._done())
        yield from self._outcome()
        yield "storage", Text(self._storage_share())
        yield from (("", Text(line)) for line in self._times())
        yield from self._incidents()
        if self.location is None:
            yield "left", Text("nothing: the storage was in memory")
        else:
            yield "left", Text(f"{self.location}, experiment {self.name}; look at it with")
            yield "", Text(self.status_command, style="cyan")

    def _done(self) -> str:
        state = self.state
        workers = sum(len(process.workers) for process in state.processes.values())
        return (
            f"{plural(state.statuses[TrialStatus.COMPLETED], 'trial')} completed in "
            f"{span(state.last - state.started)}, {state.rate:.2f} trials/s, by "
            f"{plural(workers, 'worker')} in {plural(len(state.processes), 'process')}"
        )

    def _outcome(self) -> Iterator[tuple[str, Text]]:
        if self.best is None:
            yield "best", Text("none: no trial was completed with a number")
            return
        best, unit = self.best.objective, self.problem.unit
        text = Text(measure(best, unit), style="green")
        yield "best", text.append(f"  {pairs(self.best.params)}", style="default")
        for name, value in self.references.items():
            change = (best - value) / value
            which = "smaller" if change < 0 else "larger"
            yield (
                "",
                Text(f"{measure(value, unit)} by {name}: the best is {abs(change):.2%} {which}"),
            )

    def _storage_share(self) -> str:
        spent = self.state.spent
        if not spent.total:
            return "no worker has reported its times"
        return f"{(spent.storage + spent.lock) / spent.total:.1%} of the workers' time"

    def _times(self) -> Iterator[str]:
        spent = self.state.spent
        if spent.total:
            rest = max(spent.total - spent.storage - spent.lock - spent.evaluating, 0.0)
            yield (
                f"{spent.storage / spent.total:.1%} waiting for its answers, "
                f"{spent.lock / spent.total:.1%} for the algorithm lock; "
                f"{spent.evaluating / spent.total:.1%} went into the objective, "
                f"{rest / spent.total:.1%} into waiting for each other"
            )

    def _incidents(self) -> Iterator[tuple[str, Text]]:
        state = self.state
        if killed := state.killed:
            yield (
                "killed",
                Text(
                    f"process {killed.process} (pid {killed.pid}) by SIGKILL in the middle of "
                    f"{plural(len(killed.trials), 'trial')}"
                ),
            )
            for trial in killed.trials:
                recovery = state.recovered.get(trial)
                yield "", Text(f"{trial[:8]} {self._recovery(trial, recovery, killed.at)}")
        elif self.kill:
            yield (
                "killed",
                Text("none: the run ended before a process was in the middle of a trial"),
            )
        others = [trial for trial in state.recovered if not killed or trial not in killed.trials]
        if others:
            ids = ", ".join(trial[:8] for trial in others)
            yield "recovered", Text(f"{plural(len(others), 'lost trial')}: {ids}")
        if state.lost:
            yield "lost", Text(f"{plural(state.lost, 'reservation')} given to another worker")
        for trial, error in list(state.broken.items())[:MAX_BROKEN_SHOWN]:
            yield "broken", Text(f"trial {trial[:8]}: {error}", style="red")
        if len(state.broken) > MAX_BROKEN_SHOWN:
            yield "", Text(f"and {len(state.broken) - MAX_BROKEN_SHOWN} more")
        for failure in state.failures():
            yield "failed", Text(failure, style="red")

    def _recovery(self, trial: str, recovery: Recovery | None, killed_at: float) -> str:
        if recovery is None:
            return "was not recovered"
        text = f"recovered by process {recovery.process} after {span(recovery.at - killed_at)}"
        done = self.state.completed_by.get(trial)
        if done is None:
            return f"{text}, not completed"
        return f"{text}, completed by process {done[0]}, worker {done[1]}"
