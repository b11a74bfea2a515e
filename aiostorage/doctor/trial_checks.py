"""Checks of trials."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from aiostorage._core.holders import named_holder
from aiostorage._core.layout import TRIALS
from aiostorage._core.record_checks import fault_in
from aiostorage._core.record_reader import READING_ERRORS
from aiostorage.doctor.stored_records import PAGE_SIZE, StoredRecords
from aiostorage.findings import REPAIR_COMMAND, Finding
from aiostorage.operations import (
    EVERYTHING,
    And,
    Compare,
    Document,
    Find,
    StoreTime,
    UnreadableDocument,
)
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["LOST", "NO_HEARTBEAT", "ORPHAN_TRIAL", "trial_findings"]

LOST: Final = "lost-trial"
NO_HEARTBEAT: Final = "reserved-without-heartbeat"
ORPHAN_TRIAL: Final = "orphan-trial"

MAX_NAMED: Final = 20
"""Maximum number of trials of one kind with a finding each; further ones are counted."""

MAX_HEARTBEAT_LEAD: Final = 60.0
"""Seconds that a heartbeat may be in the future."""


async def trial_findings(records: StoredRecords) -> tuple[list[Finding], int]:
    """Return the findings about the trials of a store, and the number of its trials."""
    findings: list[Finding] = []
    orphans: Counter[Any] = Counter()
    count = unnamed = 0
    async for documents in records.gateway.pages(Find(TRIALS, EVERYTHING), PAGE_SIZE):
        for document in documents:
            count += 1
            experiment = dict.get(document, "experiment")
            if experiment not in records.labels:
                orphans[experiment] += 1
            if (reason := _fault(document)) is not None:
                if len(findings) < MAX_NAMED:
                    findings.append(_unreadable(records, document, reason))
                else:
                    unnamed += 1
    if unnamed:
        what = f"{unnamed} more trials cannot be read"
        findings.append(
            Finding("unreadable-trial", "error", what, TRIALS, "aiostorage list{storage}")
        )
    for uid, number in orphans.items():
        what = f"{number} trials are of the experiment {uid}, which does not exist"
        command = f"{REPAIR_COMMAND} --delete-orphans"
        findings.append(Finding(ORPHAN_TRIAL, "warning", what, str(uid), command))
    findings += await _lost(records)
    findings += await _ahead(records)
    return findings, count


def _fault(document: Document) -> str | None:
    """Return why a stored trial cannot be read; None if it can."""
    if isinstance(document, UnreadableDocument):
        return document.reason
    try:
        Trial.from_dict(document)
    except READING_ERRORS as error:
        return str(fault_in(document, error))
    return None


def _unreadable(records: StoredRecords, document: Document, reason: str) -> Finding:
    uid = dict.get(document, "id") or dict.get(document, "_id")
    label = records.label(dict.get(document, "experiment"))
    name = f"{label}:{uid}"
    command = f"aiostorage rm {shlex.quote(name)}{{storage}}"
    what = f"the trial {name} cannot be read: {reason}"
    return Finding("unreadable-trial", "error", what, str(dict.get(document, "_id")), command)


async def _lost(records: StoredRecords) -> list[Finding]:
    selection = dict.fromkeys(("experiment", "heartbeat", "worker"), True)
    lost = Find(TRIALS, And(records.lost.conditions), selection)
    silent: dict[Any, list[Document]] = {}
    without: dict[Any, list[Document]] = {}
    for document in await records.gateway.execute(lost):
        uid = dict.get(document, "experiment")
        if uid in records.labels:
            known = dict.get(document, "heartbeat") is not None
            (silent if known else without).setdefault(uid, []).append(document)
    findings = []
    for uid, documents in silent.items():
        what = (
            f"{_number(uid, documents, records)} lost: no heartbeat for "
            f"{records.lost.after:g} s, from {_workers(documents)}"
        )
        command = records.command("recover", uid)
        findings.append(
            Finding(LOST, "warning", what, records.label(uid), command, repairable=True)
        )
    for uid, documents in without.items():
        what = (
            f"{_number(uid, documents, records)} reserved without ever a heartbeat, by "
            f"{_workers(documents)}"
        )
        command = records.command("recover", uid)
        findings.append(
            Finding(NO_HEARTBEAT, "warning", what, records.label(uid), command, repairable=True)
        )
    return findings


def _number(uid: Any, documents: Sequence[Document], records: StoredRecords) -> str:
    label, count = records.label(uid), len(documents)
    return f"1 trial of {label} is" if count == 1 else f"{count} trials of {label} are"


def _workers(documents: Sequence[Document]) -> str:
    names = sorted({named_holder(dict.get(document, "worker")) for document in documents})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


async def _ahead(records: StoredRecords) -> list[Finding]:
    """Return the trials whose heartbeat is in the future, so that they do not become lost."""
    reserved = Compare("status", "eq", TrialStatus.RESERVED.value)
    ahead = And((reserved, Compare("heartbeat", "gt", StoreTime(MAX_HEARTBEAT_LEAD))))
    found = await records.gateway.execute(Find(TRIALS, ahead, {"experiment": True}))
    counts = Counter(dict.get(document, "experiment") for document in found)
    return [
        Finding(
            "heartbeat-in-future",
            "warning",
            f"{number} reserved trials of {records.label(uid)} have a heartbeat in the future: a "
            "clock was wrong, and they are not lost before that time",
            records.label(uid),
            "timedatectl status",
        )
        for uid, number in counts.items()
    ]
