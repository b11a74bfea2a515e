"""The texts of the screen, as pure functions of a `WatchState`, without a terminal or a store."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.text import Text

from aiostorage._core.holders import named_holder
from aiostorage.cli.escapes import printable
from aiostorage.cli.naming import experiment_label
from aiostorage.cli.text import number, plural, span
from aiostorage.cli.watch.braille import braille_steps
from aiostorage.cli.watch.shown_state import WatchState, WorkerRow
from aiostorage.trial import TrialStatus
from aiostorage.trial_change import TrialChange

__all__ = [
    "best_panel",
    "change_cells",
    "counts_line",
    "rate_line",
    "state_line",
    "throughput_panel",
    "worker_cells",
    "workers_title",
]

_HOLDER: Final = re.compile(r"process (\d+) on (\S+) \(fingerprint (\w+)\)")

BARS: Final = " ▁▂▃▄▅▆▇█"

STATUS_STYLES: Final = {
    TrialStatus.COMPLETED.value: "green",
    TrialStatus.RESERVED.value: "cyan",
    TrialStatus.BROKEN.value: "bold red",
    TrialStatus.INTERRUPTED.value: "yellow",
    TrialStatus.SUSPENDED.value: "yellow",
    "lost": "bold red",
}

BAR_SECONDS: Final = (1, 2, 5, 10, 30, 60, 300, 900, 3600)
"""Possible durations of a bar of the throughput, in seconds."""


def state_line(state: WatchState, away: float, *, paused: bool) -> Text:
    """Describe whether the screen is up to date, and if not, why.

    Parameters
    ----------
    away
        Seconds since the store stopped answering.
    """
    if state.phase == "away":
        text = Text.assemble((f"● the store is away since {span(away)}: ", "bold red"))
        return text.append(printable(state.note), "red")
    if state.phase == "missing":
        return Text.assemble(("● waiting: ", "bold yellow"), (printable(state.note), "yellow"))
    if state.phase == "opening":
        return Text("● opening …", "yellow")
    text = Text.assemble(("● paused", "bold yellow") if paused else ("● live", "bold green"))
    summary = state.summary
    if summary is not None:
        label = experiment_label({"name": summary.name, "version": summary.version})
        text.append(f"  {printable(label)}", "bold")
        text.append(f"  {summary.direction}", "dim")
    if state.note:
        text.append(f"  {printable(state.note)}", "yellow")
    return text


def counts_line(state: WatchState) -> Text:
    """Return the number of trials in each status, and the progress of the experiment."""
    summary = state.summary
    if summary is None:
        return Text()
    text = Text()
    always = (TrialStatus.NEW, TrialStatus.RESERVED, TrialStatus.COMPLETED, TrialStatus.BROKEN)
    names = [status.value for status in always]
    names += [name for name in sorted(state.counts) if name not in names and state.counts[name]]
    for name in names:
        count = state.counts[name]
        text.append(f"{printable(name)} ", "dim")
        text.append(f"{count:,}", STATUS_STYLES.get(name, "") if count else "dim")
        if name == TrialStatus.RESERVED and summary.lost:
            text.append(f" ({summary.lost:,} lost)", STATUS_STYLES["lost"])
        text.append("  ")
    text.append("total ", "dim").append(f"{sum(state.counts.values()):,}")
    if summary.max_trials:
        part = min(state.counts[TrialStatus.COMPLETED.value] / summary.max_trials, 1.0)
        filled = round(16 * part)
        text.append(f"  {part:.0%} ", "bold").append("█" * filled, "green")
        text.append("░" * (16 - filled), "dim")
        text.append(f" of {summary.max_trials:,}", "dim")
    return text


def rate_line(state: WatchState, now: datetime) -> Text:
    """Return the throughput, when the experiment will be done, and who holds the lock."""
    summary = state.summary
    if summary is None:
        return Text()
    text = Text.assemble((f"{summary.rate:.3g}", "bold"), (" a minute", "dim"))
    if summary.eta is not None:
        done = summary.remaining == 0
        text.append("  done" if done else f"  done in {span(summary.eta.total_seconds())}")
    text.append(f"  {summary.workers:,} ", "bold")
    text.append("process" if summary.workers == 1 else "processes", "dim")
    text.append("  lock ", "dim")
    lock = summary.lock
    if lock is None or not lock.locked:
        text.append("none" if lock is None else "free")
    else:
        text.append(printable(_short_name(lock.owner or "held by Oríon")), "cyan")
        if lock.since is not None:
            text.append(f" for {span(_seconds(now - lock.since))}")
    if summary.waiting:
        text.append(f", {summary.waiting:,} waiting", "yellow")
    return text


def best_panel(state: WatchState, now: datetime, width: int, height: int) -> Text:
    """Return the best objective so far as a line, with its range on the left."""
    rows = max(height - 1, 1)
    values, ago = state.best_line(now, 2 * max(width, 1))
    text = Text(no_wrap=True)
    if not values:
        return text.append("no completed trial with an objective yet", "dim")
    text.append("best so far ", "dim").append(number(state.best), "bold green")
    labels = (number(max(values)), number(min(values)))
    margin = max(map(len, labels)) + 1
    chart = braille_steps(values, max(width - margin, 1), rows)
    text.append(f"   the last {_short(ago)}\n", "dim")
    for row, line in enumerate(chart):
        label = labels[0] if row == 0 else labels[1] if row == rows - 1 else ""
        text.append(f"{label:>{margin - 1}} ", "dim").append(line, "green")
        text.append("" if row == rows - 1 else "\n")
    return text


def throughput_panel(state: WatchState, now: datetime, width: int, height: int) -> Text:
    """Return the number of trials that were completed in each of the last intervals, as bars."""
    rows, count = max(height - 1, 1), max(width, 1)
    first = state.ends[0] if state.ends else now
    needed = _seconds(now - first) / count
    seconds = next((bucket for bucket in BAR_SECONDS if bucket >= needed), BAR_SECONDS[-1])
    bars = state.throughput(now, count, timedelta(seconds=seconds))
    most = max(bars, default=0)
    text = Text(no_wrap=True)
    bucket = _short(timedelta(seconds=seconds))
    text.append("completed ", "dim").append(f"{sum(bars):,}", "bold")
    text.append(f"  up to {most:,} in {bucket}\n", "dim")
    for row in range(rows):
        low = (rows - 1 - row) * 8
        line = "".join(
            BARS[min(max(round(bar * rows * 8 / most) - low, 0), 8)] if most else " "
            for bar in bars
        )
        text.append(line, "cyan").append("" if row == rows - 1 else "\n")
    return text


def worker_cells(row: WorkerRow, now: datetime, lost_after: float) -> tuple[Text, ...]:
    """Return the cells of a worker: who it is, what it does, since when, and its last heartbeat."""
    beat = None if row.heartbeat is None else _seconds(now - row.heartbeat)
    style = (
        "red" if beat is None or beat > lost_after else "yellow" if beat > lost_after / 2 else ""
    )
    age = "none" if beat is None else span(beat)
    return (
        Text(printable(_short_name(row.worker))),
        Text(printable(row.trial)[:12]),
        Text("-" if row.since is None else span(_seconds(now - row.since)), justify="right"),
        Text(
            f"{age} (lost)" if beat is not None and beat > lost_after else age,
            style,
            justify="right",
        ),
    )


def change_cells(change: TrialChange) -> tuple[Text, ...]:
    """Return the cells of a change: when, which trial, what, who, and why."""
    after = change.after or ""
    what = Text(change.kind if change.before == change.after else "")
    if change.before != change.after:
        what.append(f"{printable(change.before or 'inserted')} → ", "dim")
        what.append(printable(after or "deleted"), STATUS_STYLES.get(after, ""))
    if change.attempt > 1:
        what.append(f" (attempt {change.attempt})", "yellow")
    return (
        Text(change.time.astimezone(UTC).strftime("%H:%M:%S")),
        Text(printable(change.trial)[:12]),
        what,
        Text(printable(change.reason or ""), "red"),
        Text("" if change.worker is None else _short_name(named_holder(change.worker)), "dim"),
    )


def workers_title(state: WatchState, sorting: str, *, descending: bool) -> str:
    """Return the heading of the workers."""
    arrow = "↓" if descending else "↑"
    more = f", the first {len(state.workers):,}" if state.more_workers else ""
    count = len(state.workers) + state.more_workers
    return f"{plural(count, 'trial')} in work{more}, by {sorting} {arrow}"


def _short_name(holder: str) -> str:
    """Return a short form of the result of `named_holder`: host, process and fingerprint."""
    return _HOLDER.sub(r"\2:\1 (\3)", holder)


def _seconds(duration: timedelta) -> float:
    return max(duration.total_seconds(), 0.0)


def _short(duration: timedelta) -> str:
    """Return a duration in its largest unit."""
    seconds = _seconds(duration)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
