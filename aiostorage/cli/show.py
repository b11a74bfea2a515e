"""``aiostorage show``: shows one experiment or one trial."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

import anyio
import click

from aiostorage import ExperimentSummary, Storage, Trial
from aiostorage._core.holders import named_holder
from aiostorage.cli.completion import EXPERIMENT_OR_TRIAL
from aiostorage.cli.directions import direction_of
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import experiment_label, find_named
from aiostorage.cli.options import (
    debug_option,
    direction_option,
    json_option,
    lost_after_option,
    storage_option,
    timeout_option,
)
from aiostorage.cli.plain import plain
from aiostorage.cli.terminal import echo, echo_json
from aiostorage.cli.text import ago, holder_line, moment, number, span
from aiostorage.errors import ConfigurationError, FailedUpdate
from aiostorage.summary import Direction
from aiostorage.trial_change import TrialChange
from aiostorage.values import TrialStatus

__all__ = ["show"]

MAX_RESERVED: Final = 1000
"""Reserved trials that are shown, at most."""

Lines = Iterable[tuple[str, str]]


@click.command
@click.argument("named", metavar="EXPERIMENT[:TRIAL]", type=EXPERIMENT_OR_TRIAL)
@storage_option
@direction_option
@lost_after_option
@json_option
@timeout_option
@debug_option
def show(
    *,
    named: str,
    url: str | None,
    direction: Direction | None,
    lost_after: float | None,
    as_json: bool,
    timeout: float | None,
) -> None:
    """Show an experiment or a trial with all its stored fields.

    For an experiment: its config, the counts of its trials, who holds reserved trials, and who
    holds the algorithm lock. For a trial: its params, results and times, who holds it, and its
    history, as far as the storage keeps one.

    EXPERIMENT is a name (its newest version), NAME@VERSION, an id, or the beginning of an id. A
    trial is EXPERIMENT:TRIAL, with the id of the trial or the beginning of it.
    """
    opened = open_named(url, timeout, lost_after=lost_after)
    document, lines = anyio.run(_read, opened, named, direction)
    if as_json:
        echo_json(document)
        return
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        echo(f"{name:<{width}}  {text}".rstrip())


async def _read(
    opened: AbstractAsyncContextManager[Storage], named: str, direction: Direction | None
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    async with opened as storage:
        config, trial = await find_named(storage, named)
        summary = await storage.summary(config, direction=direction_of(config, direction))
        if summary is None:
            raise FailedUpdate(f"{experiment_label(config)} has just been deleted")
        if trial is not None:
            lost = {one.id for one in await storage.fetch_lost_trials(config)}
            history = await _history(storage, trial)
            document = _trial_document(trial, trial.id in lost)
            document["history"] = [_change(one) for one in history]
            lines = _trial_lines(config, trial, summary.time, trial.id in lost)
            lines += [("history", _change_line(one)) for one in history]
            return {"location": storage.location, **document}, lines
        where = {"status": TrialStatus.RESERVED.value}
        reserved = await storage.fetch_trials(config, where=where, limit=MAX_RESERVED) or []
        lost = {one.id for one in await storage.fetch_lost_trials(config)}
        document = {
            "location": storage.location,
            "experiment": plain(config),
            "summary": summary.to_dict(),
            "reserved": [_reserved(one, one.id in lost) for one in reserved],
        }
        return document, [*_experiment_lines(config, summary, reserved, lost)]


# -------------------------------------------------------------------------------- experiments


def _experiment_lines(
    config: dict[str, Any], summary: ExperimentSummary, reserved: list[Trial], lost: set[str]
) -> Lines:
    yield "experiment", experiment_label(config)
    yield "id", str(config["_id"])
    yield from _flat(config, skipped=("_id", "name", "version"))
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts.items())
    yield "trials", f"{summary.total} ({counts})" if counts else "0"
    if summary.rate:
        yield "rate", f"{summary.rate:.3g} completed per minute"
    if summary.eta is not None:
        left = span(summary.eta.total_seconds())
        yield "left", f"{summary.remaining} trials, {left} at this rate"
    if summary.best is not None and summary.best.objective is not None:
        yield "best", f"{number(summary.best.objective.value)} (trial {summary.best.id})"
    lock = summary.lock
    if lock is not None:
        yield "lock", holder_line(lock, summary.time) if lock.locked else "free"
        if summary.waiting:
            yield "", f"{summary.waiting} processes wait for it"
    for trial in reserved:
        sign = _life_of(trial, summary.time)
        state = "LOST, was held" if trial.id in lost else "held"
        yield "reserved", f"{trial.id} {state} by {named_holder(trial.worker)}{sign}"


def _reserved(trial: Trial, lost: bool) -> dict[str, Any]:
    return {
        "id": trial.id,
        "holder": named_holder(trial.worker),
        "start_time": plain(trial.start_time),
        "heartbeat": plain(trial.heartbeat),
        "lost": lost,
    }


def _flat(value: Mapping[str, Any], prefix: str = "", skipped: Iterable[str] = ()) -> Lines:
    """Yield the fields of a document, those of nested ones with dotted names."""
    for key, item in value.items():
        if key in skipped or item is None:
            continue
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(item)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return moment(value)
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


# ------------------------------------------------------------------------------------- trials


def _trial_document(trial: Trial, lost: bool) -> dict[str, Any]:
    stored = trial.to_dict()
    worker = stored.pop("worker", None)
    held = trial.status == TrialStatus.RESERVED
    return {
        "trial": plain(stored) | {"id": trial.id},
        "holder": named_holder(worker) if held else None,
        "lost": lost,
    }


def _trial_lines(
    config: dict[str, Any], trial: Trial, now: datetime, lost: bool
) -> list[tuple[str, str]]:
    lines = [
        ("trial", trial.id),
        ("experiment", experiment_label(config)),
        ("status", f"{trial.status}{', lost' if lost else ''}"),
    ]
    if trial.status == TrialStatus.RESERVED:
        lines.append(("held by", f"{named_holder(trial.worker)}{_life_of(trial, now)}"))
    lines += [(f"params.{param.name}", _text(param.value)) for param in trial.param_list]
    lines += [(f"results.{r.name}", f"{_text(r.value)} ({r.type})") for r in trial.results]
    for name in ("submit_time", "start_time", "end_time"):
        time = getattr(trial, name)
        if time is not None:
            lines.append((name, f"{moment(time)} ({ago(time, now)})"))
    if trial.start_time is not None and trial.end_time is not None:
        lines.append(("took", span((trial.end_time - trial.start_time).total_seconds())))
    if trial.parent is not None:
        lines.append(("parent", str(trial.parent)))
    return lines


async def _history(storage: Storage, trial: Trial) -> list[TrialChange]:
    """Return the changes of a trial that are kept; none if the storage keeps no history."""
    try:
        return await storage.trial_history(trial)
    except ConfigurationError:  # it is off, or the engine has none
        return []


def _change(change: TrialChange) -> dict[str, Any]:
    return {
        "time": plain(change.time),
        "kind": change.kind,
        "before": change.before,
        "after": change.after,
        "holder": None if change.worker is None else named_holder(change.worker),
        "attempt": change.attempt,
        "reason": change.reason,
    }


def _change_line(change: TrialChange) -> str:
    words = [moment(change.time), change.kind]
    if change.after is not None:
        before = "" if change.before is None else f"{change.before} -> "
        words.append(f"{before}{change.after}")
    if change.worker is not None:
        words.append(f"by {named_holder(change.worker)}")
    if change.attempt:
        words.append(f"attempt {change.attempt}")
    if change.reason:
        words.append(f"({change.reason})")
    return " ".join(words)


def _life_of(trial: Trial, now: datetime) -> str:
    """Return when the holder of a trial was last heard of."""
    sign = trial.heartbeat or trial.start_time
    return "" if sign is None else f", last heartbeat {ago(sign, now)}"
