"""Stored records, read one by one: another program may have written one that cannot be read.

`Trial.from_dict` reads what it gets, or raises. Here is what follows when it raises: an error that
names the trial, the field and the value; one warning, and the others are returned without it; or,
for a trial that was reserved, its end as ``broken``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from aiostorage._core.documents import both
from aiostorage._core.event_log import EventLog
from aiostorage._core.gateway import Gateway
from aiostorage._core.record_checks import fault_in
from aiostorage.errors import EncodingError, FailedUpdate, TrialLost
from aiostorage.operations import (
    And,
    Compare,
    Document,
    StoreTime,
    Take,
    UnreadableDocument,
    Update,
)
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["READING_ERRORS", "TrialReader", "missing_trial", "warn_left_out", "whole_documents"]

events: Final = EventLog("records")

READING_ERRORS: Final = (AttributeError, TypeError, ValueError)
"""What `Trial.from_dict` may raise for a stored trial; `EncodingError` is a ValueError."""

_MAX_NAMED: Final = 10_000
_named: Final[set[tuple[str, Any]]] = set()
"""The unreadable records that this process has warned of, by location and ``_id``."""


class TrialReader:
    """Makes trials of stored documents, whatever they contain."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def read(self, document: Document) -> Trial:
        """Make a trial.

        Raises
        ------
        EncodingError
            It cannot be read. The error names the trial, the field and its value.
        """
        try:
            return Trial.from_dict(document)
        except READING_ERRORS as error:
            raise _explained(document, error) from error

    def readable(self, document: Document) -> Trial | None:
        """Make a trial; None if it cannot be read, of which the first call warns."""
        try:
            return Trial.from_dict(document)
        except READING_ERRORS as error:
            warn_left_out(self._gateway, document, _explained(document, error))
            return None

    def all_readable(self, documents: Iterable[Document]) -> list[Trial]:
        """Make trials of those that can be read."""
        found = map(self.readable, documents)
        return [trial for trial in found if trial is not None]

    async def reserved(
        self,
        take: Take,
        documents: Sequence[Document],
        take_lost: Callable[[Take, Sequence[Document]], Awaitable[list[Document]]] | None = None,
    ) -> list[Trial]:
        """Make trials of a reservation of which some cannot be read.

        These are given back as ``broken``, under the token of the reservation, and others are
        reserved in their place.

        Parameters
        ----------
        take
            The reservation; its `applied` is the condition that a trial is reserved by it.
        documents
            What it took.
        take_lost
            Takes lost trials too, where a reservation took fewer than it wanted.
        """
        wanted, ours = take.limit or len(documents), cast(And, take.applied)
        trials: list[Trial] = []
        kept: list[Any] = []
        while documents:
            broken = []
            for document in documents:
                trial = self.readable(document)
                if trial is None:
                    broken.append(document["_id"])
                else:
                    trials.append(trial)
                    kept.append(document["_id"])
            if not broken:
                break
            those = both(ours, Compare("_id", "in", tuple(broken)))
            end = {"status": TrialStatus.BROKEN.value, "heartbeat": StoreTime()}
            update = Update(take.collection, those, end, reason="it cannot be read")
            await self._gateway.execute(update)
            if len(trials) >= wanted:
                break
            others = both(ours, Compare("_id", "nin", tuple(kept)))
            more = replace(take, limit=wanted - len(trials), applied=others)
            documents = await self._gateway.execute(more)
            if take_lost is not None and len(documents) < wanted - len(trials):
                documents = [*documents, *await take_lost(more, documents)]
        return trials


def missing_trial(experiment: Any, uid: str, token: str | None = None) -> FailedUpdate:
    """Return the error that says that there is no such trial; `TrialLost` if a worker held it."""
    return (FailedUpdate if token is None else TrialLost)(
        f"experiment {experiment!r} has no trial {uid}; it was deleted or never registered",
        uid=uid,
        token=token,
    )


def whole_documents(gateway: Gateway, collection: str, documents: list[Document]) -> list[Document]:
    """Return the documents that the engine could decode; the first call warns of each other one."""
    if not any(isinstance(document, UnreadableDocument) for document in documents):
        return documents
    whole = []
    for document in documents:
        if isinstance(document, UnreadableDocument):
            error = EncodingError(
                f"record {document.get('_id')!r} of {collection} cannot be read: {document.reason}"
            )
            warn_left_out(gateway, document, error)
        else:
            whole.append(document)
    return whole


def _explained(document: Document, error: Exception) -> EncodingError:
    """Return the error that names a trial, and what keeps it from being read."""
    fault = fault_in(document, error)
    fields = {name: document[name] for name in ("id", "_id", "experiment") if name in document}
    uid, experiment = fields.get("id", fields.get("_id")), fields.get("experiment")
    return EncodingError(
        f"trial {uid} of experiment {experiment!r} cannot be read: {fault}. Another program wrote "
        "it: mend it with `update_trial(uid=…, experiment_uid=…)`, or delete it with "
        "`delete_trials`",
        path=fault.path,
    )


def warn_left_out(gateway: Gateway, document: Document, error: EncodingError) -> None:
    """Warn of a record that is left out, once."""
    name = (gateway.driver.location, repr(dict(document).get("_id")))
    if name not in _named:
        if len(_named) >= _MAX_NAMED:
            _named.clear()
        _named.add(name)
        events.warning(
            "record_left_out", "left out: %(error)s", store=name[0], record=name[1], error=error
        )
