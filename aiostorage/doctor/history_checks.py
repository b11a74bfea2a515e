"""What may be wrong with the history of trials."""

from __future__ import annotations

from typing import Final

from aiostorage._core.change_log.change_rows import fault_in_row, trial_in_row
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.history import REMEDY, stored_limit
from aiostorage._core.layout import CHANGES, SETTINGS
from aiostorage.doctor.stored_records import PAGE_SIZE
from aiostorage.findings import REPAIR_COMMAND, Finding
from aiostorage.operations import EVERYTHING, Document, Find

__all__ = ["UNREADABLE_CHANGE", "history_findings"]

UNREADABLE_CHANGE: Final = "unreadable-change"

MAX_NAMED: Final = 20
"""Rows that get a finding each; the others are counted."""


async def history_findings(gateway: Gateway) -> list[Finding]:
    """Return what is wrong with the rows of the history, and with how long it is to be kept."""
    findings: list[Finding] = []
    _, fault = await stored_limit(gateway.execute)
    if fault is not None:
        what = f"{fault}; nothing of the history is deleted, and it cannot be read: {REMEDY}"
        command = "aiostorage config{url}"
        findings.append(Finding("unreadable-setting", "error", what, SETTINGS, command))
    unnamed = 0
    async for rows in gateway.pages(Find(CHANGES, EVERYTHING), PAGE_SIZE):
        for row in rows:
            if (reason := fault_in_row(row)) is None:
                continue
            if len(findings) < MAX_NAMED:
                findings.append(_unreadable(row, reason))
            else:
                unnamed += 1
    if unnamed:
        what = f"{unnamed} more changes in the history cannot be read"
        findings.append(Finding(UNREADABLE_CHANGE, "warning", what, CHANGES, REPAIR_COMMAND))
    return findings


def _unreadable(row: Document, reason: str) -> Finding:
    what = (
        f"a change of {trial_in_row(row)} cannot be read, so that those who follow miss it: "
        f"{reason}"
    )
    command = "aiostorage list{storage}"
    return Finding(UNREADABLE_CHANGE, "warning", what, str(dict.get(row, "_id")), command)
