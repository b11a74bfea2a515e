"""Sends the present state of the records in some rows of the outbox to the tracker, once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import anyio

from aiostorage._core.cancellation import clean_up
from aiostorage._core.delivery_lease import DeliveryLease
from aiostorage._core.documents import equal
from aiostorage._core.event_log import EventLog
from aiostorage._core.gateway import Gateway
from aiostorage._core.layout import EXPERIMENTS, TRIALS
from aiostorage._core.made_runs import MadeRuns
from aiostorage._core.outbox import MirrorRecord, Outbox, OutboxRow
from aiostorage._core.record_reader import TrialReader
from aiostorage._core.tracker_threads import TrackerThreads, in_words
from aiostorage.errors import AioStorageError, EncodingError, TrackerError, TrackerUnavailable
from aiostorage.experiment import Experiment
from aiostorage.operations import And, Compare, Document, Find, UnreadableDocument
from aiostorage.trackers.protocol import TrackedExperiment, TrackedTrial, Tracker

__all__ = ["Page", "Sender"]

T = TypeVar("T")

Name: TypeAlias = "tuple[Any, str | None]"
"""The ids of an experiment and a trial; of an experiment alone, None for the trial."""

READ_BATCH_SIZE: Final = 100
"""Trials that are read at once, and so held in memory at the same time, at most."""

MAX_CACHED: Final = 10_000
"""Records that are kept in memory: only the holder of the lease writes them."""

CONFIRM_INTERVAL: Final = 0.05
"""Seconds for which trials that were sent are confirmed together, at most."""

END_TIMEOUT: Final = 1.0
"""Seconds that confirming may take at the end."""

events: Final = EventLog("tracker")


@dataclass(slots=True)
class Page:
    """What became of some rows.

    Attributes
    ----------
    confirmed
        How many of them have been confirmed.
    unavailable
        The last error of a call that has to be repeated.
    in_a_row
        How many calls had to be, without one that got through between them.
    failure
        An error of the engine, or the loss of the lease, which ended the page.
    """

    confirmed: int = 0
    unavailable: TrackerUnavailable | None = None
    in_a_row: int = 0
    failure: AioStorageError | None = None

    def stops(self, max_failures: int) -> bool:
        """Return whether it is of no use to go on."""
        return self.failure is not None or self.in_a_row >= max_failures


@dataclass(slots=True)
class _Subject:
    """An experiment that occurs in rows."""

    id: Any
    experiment: Experiment | None
    readable: bool = True
    key: str | None = None
    reason: str = ""
    """Why its trials cannot be sent."""
    waits: bool = False
    """Whether it has to be sent again, before its trials."""
    rows: list[OutboxRow] = field(default_factory=list)


class Sender:
    """Sends changes to a tracker; only the holder of the lease uses it.

    Parameters
    ----------
    gateway, outbox
        The store.
    tracker
        The tracker, which is open.
    threads
        Where its calls are made.
    lease
        Checked before each call.
    call_limit
        Seconds that a call may take.
    """

    def __init__(
        self,
        gateway: Gateway,
        outbox: Outbox,
        tracker: Tracker,
        *,
        threads: TrackerThreads,
        lease: DeliveryLease,
        call_limit: float,
    ) -> None:
        self._gateway = gateway
        self._outbox = outbox
        self._tracker = tracker
        self._threads = threads
        self._lease = lease
        self._call_limit = call_limit
        self._reader = TrialReader(gateway)
        self._made = MadeRuns(outbox, tracker)
        self._records: OrderedDict[Name, MirrorRecord] = OrderedDict()
        self._late: set[Name] = set()
        """Those whose last call has to be repeated: they come after the others."""
        self._sent: list[tuple[Name, Sequence[OutboxRow], MirrorRecord]] = []
        """Records that the tracker has, but that the store does not know of yet."""
        self._seen_bugs: set[str] = set()
        self.refused: int = 0
        """How many experiments and trials the tracker has refused."""

    async def deliver(self, rows: Sequence[OutboxRow]) -> Page:
        """Send the records in these rows to the tracker, and confirm the rows.

        Raises
        ------
        LeaseLost
            Another process may be the deliverer now.
        BackendError
            The engine failed.
        """
        page = Page()
        groups: dict[Name, list[OutboxRow]] = {}
        for row in rows:
            groups.setdefault((row.experiment, row.trial), []).append(row)
        subjects = await self._subjects(groups)
        present = [(s, s.experiment) for s in subjects.values() if s.experiment is not None]
        await self._each(page, present, lambda one: self._experiment(*one))
        trials = [name for name in groups if name[1] is not None]
        trials.sort(key=lambda name: name in self._late)
        for names in _portions(trials, READ_BATCH_SIZE):
            if page.stops(self._concurrency):
                break
            found = await self._documents(names)
            portion = [(subjects[name[0]], name, groups[name], found.get(name)) for name in names]
            await self._each(page, portion, lambda one: self._trial(*one))
        gone = [s for s in subjects.values() if s.experiment is None and s.rows]
        if not page.stops(self._concurrency):
            await self._each(page, gone, self._without_experiment)
        if page.failure is not None:
            raise page.failure
        return page

    @property
    def _concurrency(self) -> int:
        return max(self._tracker.max_concurrency, 1)

    async def _each(self, page: Page, items: Sequence[T], send: Callable[[T], Any]) -> None:
        """Await `send` of each item, of several at the same time, and confirm them meanwhile."""
        if not items:
            return
        left = iter(items)
        ended = anyio.Event()

        async def work() -> None:
            async with anyio.create_task_group() as workers:
                for _ in range(min(self._concurrency, len(items))):
                    workers.start_soon(self._work_off, page, left, send)
            ended.set()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._confirm_often, page, ended)
                group.start_soon(work)
        finally:
            if self._sent and self._lease.left > 0:  # this has been cancelled
                await clean_up(END_TIMEOUT, self._confirm_sent, "noting what the tracker has")

    async def _work_off(self, page: Page, items: Iterator[T], send: Callable[[T], Any]) -> None:
        """Await `send` of one item after the other, and note how it went."""
        for item in items:
            if page.stops(self._concurrency):
                return
            try:
                confirmed = await send(item)
            except TrackerUnavailable as error:
                page.unavailable = error
                page.in_a_row += 1
            except AioStorageError as error:
                page.failure = error
            else:
                page.confirmed += confirmed
                page.in_a_row = 0 if confirmed else page.in_a_row

    async def _confirm_often(self, page: Page, ended: anyio.Event) -> None:
        """Confirm what was sent, again and again, and once more at the end."""
        while not ended.is_set():
            with anyio.move_on_after(CONFIRM_INTERVAL):
                await ended.wait()
            try:
                await self._confirm_sent()
            except AioStorageError as error:
                page.failure = error

    # --------------------------------------------------------------------------- experiments

    async def _subjects(self, groups: dict[Name, list[OutboxRow]]) -> dict[Any, _Subject]:
        ids = tuple(dict.fromkeys(experiment for experiment, _ in groups))
        subjects = {uid: _Subject(uid, None) for uid in ids}
        where = Compare("_id", "in", ids)
        for document in await self._gateway.execute(Find(EXPERIMENTS, where)):
            subject = subjects[document["_id"]]
            try:
                if isinstance(document, UnreadableDocument):
                    raise EncodingError(document.reason)
                subject.experiment = Experiment.from_config(document)
            except (TypeError, ValueError) as error:
                subject.readable = False
                subject.reason = f"its experiment cannot be read: {error}"
                events.warning(
                    "experiment_not_sent",
                    "experiment %(experiment)r is not sent to the tracker: %(error)s",
                    experiment=subject.id,
                    error=error,
                )
        for uid, subject in subjects.items():
            subject.rows = groups.get((uid, None), [])
        return subjects

    async def _experiment(self, subject: _Subject, experiment: Experiment) -> int:
        name = (subject.id, None)
        record = _anew(await self._record(name), subject.rows)
        subject.key = record.key
        if record.key is not None and not subject.rows:
            return 0
        try:
            if self._threads.is_under_way(name):
                raise TrackerUnavailable("an earlier call has not ended")  # noqa: TRY301
            tracked = TrackedExperiment(experiment, record.key)
            key = await self._call(name, self._tracker.send_experiment, tracked)
            record = replace(record, key=_checked(key))
            subject.key = record.key
        except TrackerUnavailable:
            subject.waits = True
            raise
        except TrackerError as error:
            subject.reason = f"the tracker has refused its experiment: {error}"
            self.refused += 1
            events.warning(
                "experiment_refused",
                "the tracker refuses experiment %(experiment)r: %(error)s",
                experiment=subject.id,
                error=error,
            )
        self._confirm_soon(name, subject.rows, record)
        return len(subject.rows)

    async def _without_experiment(self, subject: _Subject) -> int:
        name = (subject.id, None)
        if not subject.readable:
            await self._outbox.remove(subject.rows)
            return len(subject.rows)
        record = await self._record(name)
        if record.key is not None:
            try:
                await self._call(name, self._tracker.delete_experiment, record.key)
            except TrackerUnavailable:
                raise
            except TrackerError as error:
                events.warning(
                    "experiment_not_deleted",
                    "the tracker does not delete experiment %(experiment)r: %(error)s",
                    experiment=subject.id,
                    error=error,
                )
        for other in [other for other in self._records if other[0] == subject.id]:
            del self._records[other]
        await self._outbox.confirm(subject.rows, record, remove_record=True)
        return len(subject.rows)

    # -------------------------------------------------------------------------------- trials

    async def _documents(self, names: Sequence[Name]) -> dict[Name, Document]:
        """Return the present trials; one that cannot be told from a missing one is among them."""
        found: dict[Name, Document] = {}
        for experiment in dict.fromkeys(experiment for experiment, _ in names):
            ids = tuple(trial for uid, trial in names if uid == experiment)
            where = And((*equal(experiment=experiment).conditions, Compare("id", "in", ids)))
            unnamed: Document | None = None
            for document in await self._gateway.execute(Find(TRIALS, where)):
                if "id" in document:
                    found[experiment, document["id"]] = document
                else:
                    unnamed = document
            if unnamed is not None:
                for uid in ids:
                    found.setdefault((experiment, uid), unnamed)
        return found

    async def _trial(
        self, subject: _Subject, name: Name, rows: list[OutboxRow], document: Document | None
    ) -> int:
        if self._threads.is_under_way(name):  # a call that has taken too long, and may still end
            raise TrackerUnavailable("an earlier call has not ended")
        if subject.waits:
            return 0
        try:
            if document is None:
                await self._deleted(subject, name, rows)
            elif subject.experiment is None and subject.readable:  # only its trials were kept
                await self._outbox.remove(rows)
            else:
                await self._send(subject, name, rows, document)
        except TrackerUnavailable:
            self._late.add(name)
            raise
        self._late.discard(name)
        return len(rows)

    async def _send(
        self, subject: _Subject, name: Name, rows: list[OutboxRow], document: Document
    ) -> None:
        """Send a trial, unless that is of no use, and confirm its rows."""
        record = await self._record(name)
        deletions = [n for n, row in enumerate(rows, 1) if row.change == "deleted"]
        if deletions:  # and registered again
            if record.key is not None:
                await self._delete(name, record.key)
            record = replace(record, key=None, attempts=0, worker=None)
            rows_since = rows[deletions[-1] :]
        else:
            rows_since = rows
        record = _anew(record, rows_since)
        trial = self._reader.readable(document)
        if trial is not None and subject.experiment is not None and subject.key is not None:
            if record.key is None and not (record.stored and record.uncertain):
                await self._lease.check()
                record = await self._outbox.begin(record)
                self._keep(name, replace(record, uncertain=True))  # from now on, if this fails
            tracked = TrackedTrial(
                TrackedExperiment(subject.experiment, subject.key),
                trial,
                record.counted(rows_since).attempts,
                record.key,
                record.uncertain,
            )
            make = self._made.making(name)
            send = make if record.key is None else self._tracker.send_trial
            try:
                key = await self._call(name, send, tracked)
                record = replace(record, key=None if key is None else _checked(key))
            except TrackerUnavailable:
                raise
            except TrackerError as error:
                self.refused += 1
                events.warning(
                    "trial_refused",
                    "the tracker refuses trial %(trial)s of %(experiment)r: %(error)s",
                    trial=name[1],
                    experiment=name[0],
                    error=error,
                )
                record = replace(record, uncertain=True)
            else:
                record = replace(record, uncertain=False)
        elif trial is not None:
            self.refused += 1
            events.info(
                "trial_not_sent",
                "trial %(trial)s of %(experiment)r is not sent: %(reason)s",
                trial=name[1],
                experiment=name[0],
                reason=subject.reason,
            )
        self._confirm_soon(name, rows, record.counted(rows_since))

    async def _deleted(self, subject: _Subject, name: Name, rows: list[OutboxRow]) -> None:
        record = await self._record(name)
        if subject.experiment is not None:
            if record.key is not None:
                await self._delete(name, record.key)
            elif record.uncertain:
                events.warning(
                    "run_may_be_left",
                    "trial %(trial)s of %(experiment)r was deleted, and the tracker may have a run "
                    "of it",
                    trial=name[1],
                    experiment=name[0],
                )
        self._records.pop(name, None)
        await self._outbox.confirm(rows, record, remove_record=True)

    async def _delete(self, name: Name, key: str) -> None:
        try:
            await self._call(name, self._tracker.delete_trial, key)
        except TrackerUnavailable:
            raise
        except TrackerError as error:
            events.warning(
                "trial_not_deleted",
                "the tracker does not delete trial %(trial)s of %(experiment)r: %(error)s",
                trial=name[1],
                experiment=name[0],
                error=error,
            )

    # ------------------------------------------------------------------------ calls, records

    async def _call(self, name: Name, function: Callable[..., T], *arguments: Any) -> T:
        """Call the tracker, as the holder of the lease; whatever it raises is a `TrackerError`."""
        await self._lease.check()
        try:
            return await self._threads.call(name, function, *arguments, limit=self._call_limit)
        except TrackerError:
            raise
        except Exception as error:
            kind = f"{function.__name__} {type(error).__name__}"
            if kind not in self._seen_bugs:  # once is enough to find it
                self._seen_bugs.add(kind)
                events.exception(
                    "tracker_failed",
                    "the tracker %(tracker)s failed",
                    tracker=self._tracker.name,
                )
            raise TrackerError(in_words(error)) from error

    async def _record(self, name: Name) -> MirrorRecord:
        record = self._records.get(name)
        if record is None:
            record = await self._outbox.record(*name)
            self._keep(name, record)
        else:
            self._records.move_to_end(name)
        return record

    def _confirm_soon(self, name: Name, rows: Sequence[OutboxRow], record: MirrorRecord) -> None:
        """Have the rows of a trial confirmed soon, together with those of others."""
        self._records.pop(name, None)  # what is stored is not known if this fails
        self._sent.append((name, rows, record))

    async def _confirm_sent(self) -> None:
        """Confirm what was sent."""
        sent, self._sent = self._sent, []
        if not sent:
            return
        if self._lease.left <= 0:
            await self._lease.check()
        await self._outbox.confirm_together([(rows, record) for _, rows, record in sent])
        for name, _, record in sent:
            self._made.confirmed(name)
            uncertain = record.uncertain and record.key is None
            self._keep(name, replace(record, stored=True, uncertain=uncertain))

    def _keep(self, name: Name, record: MirrorRecord) -> None:
        self._records[name] = record
        self._records.move_to_end(name)
        if len(self._records) > MAX_CACHED:
            self._records.popitem(last=False)

    async def delete_unwanted(self) -> None:
        """Delete what a call made after another process had taken over; needs no lease.

        If the tracker is not available, the next call tries again.

        Raises
        ------
        BackendError
            The engine failed.
        """
        if self._made:
            with suppress(TrackerUnavailable):
                await self._made.delete_unwanted(self._delete_unwanted)

    async def _delete_unwanted(self, name: Name, key: str) -> None:
        delete, limit = self._tracker.delete_trial, self._call_limit
        try:
            await self._threads.call(object(), delete, key, limit=limit)
        except TrackerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever a tracker may raise
            events.warning(
                "run_not_deleted",
                "trial %(trial)s of %(experiment)r has the run %(run)s too, which the tracker does "
                "not delete: %(reason)s",
                trial=name[1],
                experiment=name[0],
                run=key,
                reason=in_words(error),
            )

    def reset(self) -> None:
        """Discard what is known of the store: another process may have been the deliverer."""
        self._records.clear()
        self._sent.clear()
        self._late.clear()


def _anew(record: MirrorRecord, rows: Sequence[OutboxRow]) -> MirrorRecord:
    """Return the record without its key, if its rows say that the tracker may not know that."""
    if any(row.change == "anew" for row in rows):
        return replace(record, key=None, uncertain=True)
    return record


def _checked(key: object) -> str:
    try:
        if isinstance(key, str) and key.encode():
            return str.__str__(key)  # no engine knows subclasses
    except UnicodeEncodeError:
        pass
    raise TrackerError(f"the tracker returned {key!a:.60} instead of a key")


def _portions(items: Sequence[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while portion := list(islice(left, size)):
        yield portion
