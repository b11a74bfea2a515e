"""Trials in the store: registered, changed, found, deleted, and recovered from lost workers."""

from __future__ import annotations

import reprlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NoReturn, cast

import anyio.lowlevel

from aiostorage._core import comparison
from aiostorage._core.arguments import TRIAL, check_arguments
from aiostorage._core.change_feed import ChangeFeed
from aiostorage._core.documents import (
    both,
    document_of,
    equal,
    truncated,
    update_of,
)
from aiostorage._core.experiments import Experiments
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid, get_trial_uid_and_exp, get_uid
from aiostorage._core.layout import PENDING, TRIALS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.medium_results import results_from
from aiostorage._core.normalise import normalise
from aiostorage._core.ordering import Order, values_of
from aiostorage._core.projection import check_selection
from aiostorage._core.record_checks import document_of_trial, is_trial_id
from aiostorage._core.record_reader import TrialReader
from aiostorage._core.slices import SLICE, consumed
from aiostorage._core.trial_queries import order_of, trial_condition
from aiostorage.errors import AioStorageError, DuplicateKeyError
from aiostorage.operations import (
    After,
    And,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    StoreTime,
    Take,
    UnreadableDocument,
    Update,
)
from aiostorage.protocols import ResultSource
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["Trials"]

MAX_LIMIT: Final = 2**31 - 1
"""A limit that every engine takes, and no experiment reaches."""

LOST: Final = "lost"
"""The reason for which a trial that is lost changes."""

RESERVED: Final = TrialStatus.RESERVED.value
INTERRUPTED: Final = TrialStatus.INTERRUPTED.value


class Trials:
    """What `Storage` does with trials; the contract is `AsyncStorageProtocol`."""

    def __init__(
        self, gateway: Gateway, experiments: Experiments, lost: LostTrials, feed: ChangeFeed
    ) -> None:
        self._gateway = gateway
        self._feed = feed
        self._experiments = experiments
        self._lost = lost
        self._reader = TrialReader(gateway)

    # ------------------------------------------------------------------------------ writing

    async def register(self, trials: tuple[Trial, ...]) -> list[Trial]:
        if not trials:
            return []
        for number, trial in enumerate(trials):
            TRIAL.check("register_trials", f"trials[{number}]", trial)
        documents = []
        for trial in trials:
            document = document_of(TRIALS, document_of_trial(trial))
            if document["submit_time"] is None:
                document["submit_time"] = datetime.now(UTC)
            if trial._stored_id is not None:  # noqa: SLF001  a new record goes by the values
                document["id"] = Trial.compute_trial_hash(trial)
            documents.append(truncated(document, self._gateway.driver.resolution))
        stored = Trial.build(documents)
        own_ids = any(trial.id_override is not None for trial in trials)
        try:
            await self._gateway.insert(Insert(TRIALS, tuple(documents)), own_ids=own_ids)
        except DuplicateKeyError as error:
            if "id" in error.fields and (other := await self._with_other_params(error, stored)):
                raise other from error
            raise
        return stored

    async def _with_other_params(
        self, error: DuplicateKeyError, trials: Sequence[Trial]
    ) -> DuplicateKeyError | None:
        """Return the error that says that other params have the same id; None if they are equal."""
        taken = dict(zip(error.fields, error.values, strict=False))
        same = [
            t for t in trials if (t.experiment, t.id) == (taken.get("experiment"), taken.get("id"))
        ]
        try:
            found = await self._gateway.execute(Find(TRIALS, equal(**taken), limit=1))
        except AioStorageError:  # the other error matters more
            return None
        for one, other in pairwise([*self._reader.all_readable(found), *same]):
            if not comparison.equal(_named_values(one), _named_values(other)):
                return DuplicateKeyError(
                    f"experiment {one.experiment!r} has other params with the same id {one.id}: "
                    f"{_shown(one)} and {_shown(other)} are the same as text, and ids are made of "
                    "the text; change a name or a value",
                    collection=error.collection,
                    fields=error.fields,
                    values=error.values,
                )
        return None

    async def update(
        self,
        trial: Trial | None,
        uid: str | None,
        experiment: Any,
        where: Mapping[str, Any] | None,
        changes: Mapping[str, Any],
    ) -> int:
        condition = both(_there(trial, uid, experiment), trial_condition(where, by_name=False))
        return await self._gateway.execute_once(_alive(update_of(TRIALS, condition, changes)))

    async def update_all(
        self, experiment: Any, uid: Any, where: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> int:
        condition = both(
            equal(experiment=get_uid(experiment, uid)), trial_condition(where, by_name=False)
        )
        return await self._gateway.execute_once(_alive(update_of(TRIALS, condition, changes)))

    async def delete(self, experiment: Any, uid: Any, where: Mapping[str, Any] | None) -> int:
        condition = both(
            equal(experiment=get_uid(experiment, uid)), trial_condition(where, by_name=False)
        )
        return await self._gateway.execute_once(Delete(TRIALS, condition))

    # ------------------------------------------------------------------------------ reading

    async def get(self, trial: Trial | None, uid: str | None, experiment: Any) -> Trial | None:
        there = _there(trial, uid, experiment)
        found = await self._gateway.execute(Find(TRIALS, there, limit=1))
        return self._reader.read(found[0]) if found else None

    async def fetch(
        self,
        experiment: Any,
        uid: Any,
        where: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        order: str | None = None,
        after: Trial | str | None = None,
        since: str | None = None,
    ) -> list[Trial] | None:
        uid = get_uid(experiment, uid)
        condition = both(equal(experiment=uid), trial_condition(where, params))
        if since is not None:
            changed = await self._feed.changed_ids(uid, since)
            condition = both(condition, Compare("id", "in", tuple(changed)))
        find = Find(TRIALS, condition, order=order_of(order), limit=_checked_limit(limit))
        if after is not None:
            if isinstance(after, Trial) and after.experiment not in (None, uid):
                _raise_unknown(uid, after)
            place = await self._place(uid, find.order, after)
            if place is None and not await self._exists(uid):
                return None
            find = replace(find, after=place or _raise_unknown(uid, after))
        trials = await self.first(find)
        return trials if trials or await self._exists(uid) else None

    async def _exists(self, uid: Any) -> bool:
        """Return whether the store has an experiment, or trials of it."""
        if await self._experiments.exists(uid):
            return True
        # in the order of an index: by insertion, MongoDB would read its whole collection
        left = await self._gateway.execute(
            Find(TRIALS, equal(experiment=uid), {"id": True}, order=("id",), limit=1)
        )
        return bool(left)

    async def _place(self, uid: Any, order: Order, after: Trial | str) -> After | None:
        """Return the place behind a trial; None if the experiment has no such trial."""
        uid_of_trial, selection = after, None
        if isinstance(after, Trial):
            uid_of_trial, selection = after.id, {"_id": True}
        there = equal(experiment=uid, id=uid_of_trial)
        found = await self._gateway.execute(Find(TRIALS, there, selection, limit=1))
        if not found:
            return None
        document = found[0]
        if isinstance(after, Trial):  # where it stood when it was read
            known = {**document_of_trial(after), "_id": document["_id"]}
            document = truncated(cast(Document, normalise(known)), self._gateway.driver.resolution)
        elif isinstance(document, UnreadableDocument):
            self._reader.read(document)  # raises: its place in the order is unknown
        return After(document["_id"], values_of(document, order))

    async def first(self, find: Find) -> list[Trial]:
        """Return the trials of a `Find`; for each one that cannot be read, another is read."""
        wanted = find.limit
        while True:
            trials, count = await self._found(find)
            limit = find.limit
            if wanted is None or limit is None or count < limit or len(trials) >= wanted:
                return trials[:wanted]
            # from the same place again: where an unreadable one stands cannot be known
            find = replace(find, limit=min(2 * limit, MAX_LIMIT))

    async def with_status(self, experiment: Any, *conditions: Condition) -> list[Trial]:
        return await self._find(experiment_uid(experiment), And(conditions))

    async def pending(self, experiment: Any) -> list[Trial]:
        return await self.with_status(experiment, PENDING)

    async def lost(self, experiment: Any) -> list[Trial]:
        return await self.with_status(experiment, *self._lost.conditions)

    async def recover(self, experiment: Any) -> list[Trial]:
        documents = await self._gateway.execute_once(
            Take(
                TRIALS,
                And(
                    (
                        Compare("experiment", "eq", experiment_uid(experiment)),
                        *self._lost.conditions,
                    )
                ),
                {"status": INTERRUPTED, "worker": None},
                order=("submit_time",),
                limit=None,
                reason=LOST,
            )
        )
        return (await self._built(consumed(documents, SLICE)))[0]

    async def count(self, experiment: Any, status: str) -> int:
        where = equal(experiment=experiment_uid(experiment), status=status)
        return await self._gateway.execute(Count(TRIALS, where))

    async def count_matching(
        self,
        experiment: Any,
        uid: Any,
        where: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
    ) -> int:
        condition = trial_condition(where, params)
        condition = both(equal(experiment=get_uid(experiment, uid)), condition)
        return await self._gateway.execute(Count(TRIALS, condition))

    async def iterate(
        self,
        experiment: Any,
        where: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        selection: Mapping[str, Any] | None,
        batch_size: int,
    ) -> AsyncIterator[Any]:
        check_arguments("iter_trials", experiment, where, params, selection, batch_size)
        selected = check_selection(selection)
        condition = trial_condition(where, params)
        condition = both(equal(experiment=experiment_uid(experiment)), condition)
        async for documents in self._gateway.pages(
            Find(TRIALS, condition, selected), int(batch_size)
        ):
            for number, document in enumerate(documents):
                if number % SLICE == SLICE - 1:
                    await anyio.lowlevel.checkpoint()
                if selection is not None:
                    yield document
                elif (trial := self._reader.readable(document)) is not None:
                    yield trial

    async def retrieve(self, trial: Trial) -> Trial:
        stored = await self.get(trial, None, None)
        if stored is None:
            return trial
        driver = self._gateway.driver
        if stored.objective is None and isinstance(driver, ResultSource):
            logged = {result.name: result.value for result in stored.statistics}
            if logged or (driver.objective is not None and trial.objective is None):
                source = f"trial {stored.id} in {driver.location}"
                trial.results = results_from(logged, driver.objective, source)
        elif stored.results:
            trial.results = stored.results
        return trial

    async def _find(self, uid: Any, condition: Condition) -> list[Trial]:
        where = both(equal(experiment=uid), condition)
        return (await self._found(Find(TRIALS, where, order=("submit_time",))))[0]

    async def _found(self, find: Find) -> tuple[list[Trial], int]:
        """Return the readable trials, and how many there are with the others."""
        return await self._built(await self._gateway.slices(find, SLICE))

    async def _built(self, slices: Iterator[list[Document]]) -> tuple[list[Trial], int]:
        """Build the readable trials, a slice in each turn of the event loop; count them all."""
        trials: list[Trial] = []
        count = 0
        for documents in slices:
            if count:
                await anyio.lowlevel.checkpoint()
            count += len(documents)
            trials += self._reader.all_readable(documents)
        return trials, count


def _there(trial: Trial | None, uid: str | None, experiment: Any) -> And:
    """Return the condition that names a trial, by its id or by its key in the store."""
    found, experiment = get_trial_uid_and_exp(trial, uid, experiment)
    by_id = trial is not None or (isinstance(found, str) and is_trial_id(found))
    return equal(**{"experiment": experiment, "id" if by_id else "_id": found})


def _alive(update: Update) -> Update:
    """Return an update that reserves trials with a heartbeat: an old one would make them lost."""
    if update.changes.get("status") != RESERVED or "heartbeat" in update.changes:
        return update
    return replace(update, changes={**update.changes, "heartbeat": StoreTime()})


def _checked_limit(limit: Any) -> int | None:
    if limit is None:
        return None
    return min(int(limit), MAX_LIMIT)


def _raise_unknown(uid: Any, after: Trial | str) -> NoReturn:
    shown = after.id if isinstance(after, Trial) else after
    raise ValueError(f"experiment {uid!r} has no trial {shown!r:.60} after which to continue")


def _named_values(trial: Trial) -> list[list[Any]]:
    return [[param.name, param.value] for param in trial.param_list]


def _shown(trial: Trial) -> str:
    return reprlib.repr({param.name: param.value for param in trial.param_list})
