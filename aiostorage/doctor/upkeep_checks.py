"""Checks of records that may pile up in a store, and of its clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from aiostorage._core.gateway import Gateway
from aiostorage._core.holders import named_holder
from aiostorage._core.layout import OUTBOX, RECEIPTS
from aiostorage._core.outbox import Outbox
from aiostorage.findings import REPAIR_COMMAND, Finding
from aiostorage.operations import Compare, Count, StoreTime

__all__ = ["EXPIRED_RECEIPT", "skew_findings", "upkeep_findings"]

EXPIRED_RECEIPT: Final = "expired-receipts"

MANY_RECEIPTS: Final = 1000
"""Expired receipts that are normal, since a later write deletes so many."""

MAX_OUTBOX_AGE: Final = 300.0
"""Seconds that a change may wait to be sent to a tracker."""

MAX_SKEW: Final = 2.0
"""Seconds by which the clock of a store may differ."""


async def upkeep_findings(gateway: Gateway) -> list[Finding]:
    """Return the findings about the upkeep of a store."""
    findings = await _clock(gateway)
    expired = Count(RECEIPTS, Compare("expires", "lte", StoreTime()))
    if (count := await gateway.execute(expired)) > MANY_RECEIPTS:
        what = f"{count} receipts of earlier writes have expired, and no write takes them along"
        findings.append(
            Finding(EXPIRED_RECEIPT, "warning", what, RECEIPTS, REPAIR_COMMAND, repairable=True)
        )
    outbox = Outbox(gateway)
    backlog = await outbox.backlog()
    if backlog.length and backlog.age > MAX_OUTBOX_AGE:
        holder = await outbox.lease_holder()
        sender = "no process sends them" if holder is None else f"{named_holder(holder)} sends them"
        code = "outbox-not-sent" if holder is None else "outbox-slow"
        what = (
            f"{backlog.length} changes have yet to be sent to the tracker, the oldest from "
            f"{backlog.oldest:%Y-%m-%d %H:%M:%S} UTC; {sender}"
        )
        findings.append(Finding(code, "warning", what, OUTBOX, "aiostorage tracker-sync{url}"))
    return findings


async def _clock(gateway: Gateway) -> list[Finding]:
    begin = datetime.now(UTC)
    there = await gateway.now()
    end = datetime.now(UTC)
    return skew_findings(begin, there, end)


def skew_findings(begin: datetime, there: datetime, end: datetime) -> list[Finding]:
    """Return a finding if the clocks of the store and of this machine differ too much.

    Parameters
    ----------
    begin, end
        When the store was asked, and when it had answered, by this machine's clock.
    there
        The time that it answered.
    """
    ahead, behind = (there - end).total_seconds(), (begin - there).total_seconds()
    skew = max(ahead, behind)
    if skew <= MAX_SKEW:
        return []
    way = "ahead of" if ahead > behind else "behind"
    what = (
        f"the clock of the store is {skew:.1f} s {way} that of this machine; times that workers "
        "write and those that the store compares them with differ"
    )
    return [Finding("clock-skew", "warning", what, "clock", "timedatectl status")]
