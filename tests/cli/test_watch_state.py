"""What the screen of `aiostorage watch` shows, made of states without a store or a terminal."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostorage import Trial
from aiostorage.cli.watch.braille import braille_steps
from aiostorage.cli.watch.change_lines import json_line, plain_line
from aiostorage.cli.watch.panels import (
    best_panel,
    change_cells,
    counts_line,
    rate_line,
    state_line,
    throughput_panel,
    worker_cells,
    workers_title,
)
from aiostorage.cli.watch.shown_state import WatchState, WorkerRow, sorted_workers
from aiostorage.summary import ExperimentSummary, LockSummary
from aiostorage.trial_change import TrialChange

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "host-1:77:0123456789abcdef"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def change(seconds: float, before: str | None, after: str | None, **more: Any) -> TrialChange:
    fields: dict[str, Any] = {
        "kind": "inserted" if before is None else "deleted" if after is None else "status",
        "experiment": "e",
        "trial": "0123456789abcdef0123",
        "before": before,
        "after": after,
        "worker": TOKEN,
        "attempt": 1,
        "time": at(seconds),
        "reason": None,
        "cursor": "c",
    }
    return TrialChange(**{**fields, **more})


def summary(**more: Any) -> ExperimentSummary:
    fields: dict[str, Any] = {
        "id": "e",
        "name": "tune\x1b",
        "version": 2,
        "time": NOW,
        "counts": {"completed": 3, "reserved": 2, "paused": 1},
        "lost": 1,
        "best": None,
        "direction": "minimize",
        "recent": 30,
        "window": timedelta(minutes=10),
        "max_trials": 12,
        "workers": 1,
        "oldest_heartbeat": None,
        "lock": None,
        "waiting": 0,
    }
    return ExperimentSummary(**{**fields, **more})


def test_a_line_of_braille() -> None:
    assert braille_steps([], 2, 1) == ["⠀⠀"]
    assert braille_steps([2, 2, 1, 1], 2, 1) == ["⠉⣇"]
    assert braille_steps([5.0], 2, 1) == ["⠤⠤"]
    lines = braille_steps([3, math.inf, 1, -math.inf, 2], 10, 3)
    assert [len(line) for line in lines] == [10, 10, 10]
    assert braille_steps([1e308, -1e308], 1, 1) == ["⢹"]


def test_counts_follow_the_changes_behind_the_summary() -> None:
    state = WatchState("tune", "minimize")
    state.take_summary(summary())
    state.take_changes(
        [
            change(-1, None, "new"),  # counted already
            change(1, "reserved", "completed"),
            change(2, None, "new"),
            change(3, "new", "reserved"),
            change(4, "paused", None),
        ]
    )
    assert +state.counts == {"completed": 4, "reserved": 2}
    assert state.seen == 5
    assert [*state.ends] == [at(1)]
    state.begin()
    assert not state.counts
    assert state.summary is None


def test_the_best_so_far() -> None:
    state = WatchState("tune", "minimize")
    values = [math.nan, 5, True, "bad", None, 7.0, 3.0, 3, 2.5]
    for second, value in enumerate(values):
        state.take_objective(at(second), value)
    assert [point.value for point in state.steps] == [5, 3, 2.5]
    line, ago = state.best_line(at(11), 11)
    assert line == [5, 5, 5, 5, 5, 3, 3, 2.5, 2.5, 2.5, 2.5]
    assert ago == timedelta(seconds=10)
    upwards = WatchState("tune", "maximize")
    best = Trial(experiment="e", params={"x": 1}, results={"loss": 4.0})
    upwards.take_summary(summary(best=best))
    upwards.take_objective(at(1), 3)
    upwards.take_objective(at(2), 5)
    assert [(point.time, point.value) for point in upwards.steps] == [(NOW, 4), (at(2), 5)]


def test_throughput() -> None:
    state = WatchState("tune", "minimize")
    state.ends.extend(map(at, (0, 5, 5, 9.5, 10)))
    assert state.throughput(at(10), 3, timedelta(seconds=2)) == [2, 0, 2]
    assert state.throughput(at(9), 2, timedelta(seconds=1))[-1] == 2  # a clock that differs
    text = throughput_panel(state, at(10), 6, 3).plain
    assert text.splitlines()[0] == "completed 5  up to 2 in 2 s"
    assert [line.count("█") for line in text.splitlines()[1:]] == [2, 3]
    assert throughput_panel(WatchState("t", "minimize"), NOW, 0, 0).plain.startswith("completed 0")


def test_workers_are_sorted() -> None:
    rows = [
        WorkerRow("b", "2", at(0), at(9)),
        WorkerRow("a", "3", None, None),
        WorkerRow("c", "1", at(-5), at(5)),
    ]
    assert [row.worker for row in sorted_workers(rows, "heartbeat")] == ["a", "c", "b"]
    assert [row.worker for row in sorted_workers(rows, "running")] == ["a", "c", "b"]
    assert [row.worker for row in sorted_workers(rows, "trial")] == ["c", "b", "a"]
    assert [row.worker for row in sorted_workers(rows, "worker", descending=True)] == [*"cba"]


def test_the_lines_of_the_head() -> None:
    state = WatchState("tune", "minimize")
    assert state_line(state, 0, paused=False).plain == "● opening …"
    assert counts_line(state).plain == rate_line(state, NOW).plain == ""
    state.take_summary(summary())
    state.phase = "live"
    assert state_line(state, 0, paused=False).plain == r"● live  tune\x1b@2  minimize"
    assert state_line(state, 0, paused=True).plain.startswith("● paused")
    assert counts_line(state).plain == (
        "new 0  reserved 2 (1 lost)  completed 3  broken 0  paused 1  total 6"
        "  25% ████░░░░░░░░░░░░ of 12"
    )
    assert rate_line(state, NOW).plain == "3 a minute  done in 3 min 0 s  1 process  lock none"
    left = {"counts": {"completed": 3, "reserved": 1}, "workers": 0}  # the lost one is reserved
    state.take_summary(summary(**left))
    assert rate_line(state, NOW).plain == "3 a minute  0 processes  lock none"
    assert summary(**left).to_dict()["eta"] is None
    assert summary(**left, waiting=1).eta == timedelta(minutes=3)  # it suggests the next trial
    owner = "process 77 on host-1 (fingerprint 0123abcd)"
    state.take_summary(
        summary(lock=LockSummary(True, owner, at(-2), NOW), waiting=3, workers=2, max_trials=3)
    )
    assert rate_line(state, NOW).plain == (
        "3 a minute  done  2 processes  lock host-1:77 (0123abcd) for 2.0 s, 3 waiting"
    )
    state.take_summary(summary(lock=LockSummary(True, None, None, None), max_trials=None))
    assert rate_line(state, NOW).plain.endswith("lock held by Oríon")
    assert "of" not in counts_line(state).plain
    state.take_summary(summary(lock=LockSummary(False, owner, None, None)))
    assert rate_line(state, NOW).plain.endswith("lock free")
    state.phase, state.note = "away", "no route\x1b"
    assert state_line(state, 61, paused=False).plain == (
        r"● the store is away since 1 min 1 s: no route\x1b"
    )
    state.phase, state.note = "missing", "no 'tune'"
    assert state_line(state, 0, paused=False).plain == "● waiting: no 'tune'"
    state.phase, state.note = "live", "no history"
    assert "no history" in state_line(state, 0, paused=False).plain


def test_the_line_of_the_best_has_its_range() -> None:
    state = WatchState("tune", "minimize")
    assert "no completed trial" in best_panel(state, NOW, 20, 4).plain
    state.take_objective(at(0), 2.5)
    state.take_objective(at(5), 1)
    lines = best_panel(state, at(7200), 30, 4).plain.splitlines()
    assert lines[0] == "best so far 1   the last 2 h"
    assert lines[1].startswith("2.5 ")
    assert lines[3].startswith("  1 ")
    assert {len(line) for line in lines[1:]} == {30}


def test_rows_and_lines_show_no_token() -> None:
    one = change(0, "reserved", "broken", attempt=2, reason="ValueError: \x1b[2J")
    cells = [cell.plain for cell in change_cells(one)]
    assert cells[:4] == [
        *("12:00:00", "0123456789ab", "reserved → broken (attempt 2)", r"ValueError: \x1b[2J"),
    ]
    assert cells[4].startswith("host-1:77 (")
    assert [cell.plain for cell in change_cells(change(0, None, "new", worker=None))][2:] == [
        *("inserted → new", "", ""),
    ]
    assert change_cells(change(0, "new", None))[2].plain == "new → deleted"
    beat = change(0, "reserved", "reserved", kind="heartbeat", attempt=0)
    assert change_cells(beat)[2].plain == "heartbeat"
    row = WorkerRow("process 77 on host-1 (fingerprint 0123abcd)", "ab" * 16, at(-130), at(-125))
    assert [cell.plain for cell in worker_cells(row, NOW, 120)] == [
        *("host-1:77 (0123abcd)", "abababababab", "2 min 10 s", "2 min 5 s (lost)"),
    ]
    none = WorkerRow("an unknown process", "t", None, None)
    assert [cell.plain for cell in worker_cells(none, NOW, 120)][2:] == ["-", "none"]
    assert "0123456789abcdef" not in json_line(one).replace(one.trial, "")
    assert plain_line(one).split("\t")[:6] == [
        *("2026-03-01T12:00:00+00:00", "status", one.trial, "reserved", "broken", "2"),
    ]
    assert plain_line(change(0, None, "new", worker=None)).split("\t")[3] == "-"


@pytest.mark.parametrize(("more", "said"), [(0, "1 trial in"), (4, "5 trials in work, the first")])
def test_the_heading_of_the_workers(more: int, said: str) -> None:
    state = WatchState("tune", "minimize", workers=[WorkerRow("a", "t", None, None)])
    state.more_workers = more
    assert workers_title(state, "running", descending=True).startswith(said)
    assert workers_title(state, "running", descending=True).endswith("by running ↓")
