"""Optuna's storage as coroutines: studies and trials by their ids, read through what is known.

All of this runs in one event loop, so little here needs a lock against other threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from typing import Any, Final

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState, create_trial

from aiostorage._core.ids import new_token
from aiostorage._core.storage import Storage
from aiostorage.optuna.field_names import field_name
from aiostorage.optuna.known_study import KnownStudy, StudyReader, no_study, no_trial
from aiostorage.optuna.stored_params import StoredParam
from aiostorage.optuna.study_document import (
    FIELD,
    USER_ATTRS,
    directions_of,
    frozen_study,
    stored_attribute,
)
from aiostorage.optuna.study_ids import (
    MAX_STUDIES,
    parts_of_trial_id,
    study_id_of,
    trial_id_of,
    trial_uid_of,
)
from aiostorage.optuna.study_records import StudyRecords
from aiostorage.optuna.study_trials import StudyTrials
from aiostorage.optuna.trial_document import (
    attribute_update,
    frozen_trial,
    intermediate_update,
    number_of,
    trial_document,
)
from aiostorage.optuna.trial_records import NOW, TrialRecords
from aiostorage.optuna.trial_writes import TrialWrites
from aiostorage.optuna.unwritten_params import (
    UNWRITTEN_FIELD,
    RelativeParams,
    UnwrittenParam,
)

__all__ = ["Studies"]

MAX_STUDY_AGE: Final = 1.0
"""Seconds for which a study counts as there without a read when a trial is created."""

MAX_TRIAL_AGE: Final = 0.1
"""Seconds for which a trial counts as known that was read when it was begun or written to here.

Optuna asks for it at once.
"""


class Studies:
    """Studies and trials in a store; the contract is that of Optuna's `BaseStorage`.

    Parameters
    ----------
    storage
        The store.
    tokens
        The reservations of trials by their ids, in a copy of one that has them.
    params
        The params that wait to be written by the ids of their trials, in such a copy.
    hold
        Starts a coroutine in the event loop that is cancelled before the store is closed. Default:
        each param is written at once.
    """

    def __init__(
        self,
        storage: Storage,
        tokens: Mapping[int, str] | None = None,
        params: Mapping[int, list[UnwrittenParam]] | None = None,
        hold: Callable[[Callable[[], Coroutine[Any, Any, None]]], object] | None = None,
    ) -> None:
        self._records = StudyRecords(storage)
        self.records: TrialRecords = TrialRecords(storage._gateway)  # noqa: SLF001  an adapter of this package
        """The trials in the store."""
        self._reader = StudyReader(storage, self._records, self.records)
        self.writes: TrialWrites = TrialWrites(self.records, self._reader, hold)
        """The writes to trials of a known study."""
        self._studies: dict[int, KnownStudy] = {}
        self._inherited = dict(tokens or {})
        self._inherited_params = dict(params or {})

    @property
    def tokens(self) -> dict[int, str]:
        """The reservations of the trials that run here, by the ids of the trials."""
        own = {
            trial_id_of(study.id, number): token
            for study in list(self._studies.values())
            for number, token in list(study.tokens.items())
            if (known := study.trials.get(number)) is None or not known.state.is_finished()
        }
        return {**self._inherited, **own}

    @property
    def unwritten(self) -> dict[int, list[UnwrittenParam]]:
        """The params that wait to be written, by the ids of their trials; from any thread."""
        waiting = dict(self._inherited_params)
        for study in list(self._studies.values()):
            own = {number: one.params for number, one in list(study.unwritten.items())}
            for number, params in (*list(study.inherited.items()), *own.items()):
                if params:
                    waiting[trial_id_of(study.id, number)] = params
        return waiting

    # ------------------------------------------------------------------------------- studies

    async def create_study(self, directions: Sequence[StudyDirection], name: str) -> int:
        """Create a study; return its id."""
        study_id = await self._records.create(name, directions)
        self._known(study_id, study_id, name, list(directions))
        return study_id

    async def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials."""
        study = await self.study(study_id)
        self._studies.pop(study_id, None)
        if not await self._records.delete(study.uid):
            raise no_study(study_id)
        study.unwritten.clear()

    async def set_study_attr(self, study_id: int, kind: str, key: str, value: Any) -> None:
        """Set an attribute of a study; `kind` is `USER_ATTRS` or `SYSTEM_ATTRS`."""
        study, stored = await self.study(study_id), stored_attribute(key, value)
        path = f"{kind}.{field_name(key)}"
        if not await self._records.set_attribute(study.uid, path, stored):
            raise self._gone(study)

    async def study_id_named(self, name: str) -> int:
        """Return the id of the study of a name."""
        uid = await self._records.named(name)
        if uid is None:
            raise KeyError(f"there is no study named {name!r}")
        study_id = study_id_of(uid)
        if study_id >= MAX_STUDIES:
            await self._records.uid_of(study_id)  # which says so if another one has the same
        return study_id

    async def study_name(self, study_id: int) -> str:
        """Return the name of a study."""
        return (await self.study(study_id)).name

    async def directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study."""
        return list((await self.study(study_id)).directions)

    async def study_attrs(self, study_id: int, kind: str) -> dict[str, Any]:
        """Return the attributes of a study; `kind` is `USER_ATTRS` or `SYSTEM_ATTRS`."""
        study = await self.study(study_id)
        config = await self._records.read(study.uid, kind)
        if config is None:
            raise self._gone(study)
        frozen = frozen_study(config)
        return frozen.user_attrs if kind == USER_ATTRS else frozen.system_attrs

    async def all_studies(self) -> list[FrozenStudy]:
        """Return all studies, by their ids."""
        return list(map(frozen_study, await self._records.all()))

    async def study(self, study_id: int) -> KnownStudy:
        """Return what is known of a study; KeyError if there is none."""
        study = self._studies.get(study_id)
        if study is not None:
            return study
        uid = await self._records.uid_of(study_id)
        config = None if uid is None else await self._records.read(uid)
        if config is None:
            raise no_study(study_id)
        return self._known(study_id, uid, config["name"], directions_of(config))

    def _known(
        self, study_id: int, uid: Any, name: str, directions: list[StudyDirection]
    ) -> KnownStudy:
        study = self._studies.get(study_id)
        if study is None:
            study = KnownStudy(study_id, uid, name, directions, StudyTrials(directions))
            self._studies[study_id] = study
            for trial_id in list(self._inherited):
                of_study, number = parts_of_trial_id(trial_id)
                if of_study == study_id:
                    study.tokens[number] = self._inherited.pop(trial_id)
                    if trial_id in self._inherited_params:
                        study.inherited[number] = self._inherited_params.pop(trial_id)
        return study

    def _gone(self, study: KnownStudy) -> KeyError:
        """Forget a study that is no longer there, and return the error that says so."""
        self._studies.pop(study.id, None)
        return no_study(study.id)

    async def sync(self, study: KnownStudy, states: Container[TrialState] | None = None) -> None:
        """Bring a study up to date; see `StudyReader.sync`."""
        try:
            await self._reader.sync(study, states)
        except KeyError:
            raise self._gone(study) from None

    # ----------------------------------------------------------------------- trials: creation

    async def create_trial(self, study_id: int, template: FrozenTrial | None) -> int:
        """Insert a trial with the next free number; return its id."""
        study = await self.study(study_id)
        if time.monotonic() - study.seen > MAX_STUDY_AGE and not await self._records.exists(
            study.uid
        ):
            raise self._gone(study)
        if template is None:
            template = create_trial(state=TrialState.RUNNING)
        first = study.next_number
        document = trial_document(study.uid, first, template)
        token = None
        if template.state is TrialState.RUNNING:
            token = document["worker"] = new_token()
            document["heartbeat"] = NOW
            document[FIELD][UNWRITTEN_FIELD] = self.writes.defers
        (inserted,) = await self.records.insert(study.uid, document, first)
        frozen = study.put(frozen_trial(inserted))
        if token is not None:
            study.hold(frozen.number, token)
            study.fresh[frozen.number] = time.monotonic()
            self.writes.defer(study, frozen, token)
        return trial_id_of(study_id, frozen.number)

    # ------------------------------------------------------------------------ trials: reading

    async def trial(self, trial_id: int, *, reread: bool = False) -> FrozenTrial:
        """Return a trial as it is now; with `reread`, even one that is known as finished."""
        study, number = await self._place(trial_id)
        known = study.trials.get(number)
        reread = reread or trial_uid_of(number) in study.unread
        if known is not None and known.state.is_finished() and not reread:
            return known
        return await self._reader.read(study, number)

    def known(self, trial_id: int) -> FrozenTrial | None:
        """Return a trial without asking the store, from any thread.

        It is finished, which is final, or was begun here just now, or was read here together with
        what was set of it: nothing is asked twice of the store within a moment.
        """
        study_id, number = parts_of_trial_id(trial_id)
        study = self._studies.get(study_id)
        known = None if study is None else study.trials.get(number)
        if study is None or known is None or trial_uid_of(number) in study.unread:
            return None
        if known.state.is_finished():
            return known
        begun = study.fresh.pop(number, -math.inf)
        return known if time.monotonic() - begun < MAX_TRIAL_AGE else None

    async def trials(
        self, study_id: int, states: Container[TrialState] | None
    ) -> list[FrozenTrial]:
        """Return the trials of a study that are in one of these states, by number."""
        study = await self.study(study_id)
        await self.sync(study, states)
        return study.trials.all(states)

    async def best_trial(self, study_id: int) -> FrozenTrial:
        """Return the complete trial with the best value."""
        study = await self.study(study_id)
        await self.sync(study, (TrialState.COMPLETE,))
        best = study.trials.best
        if best is None:
            raise ValueError("No trials are completed yet.")
        if len(study.directions) > 1:
            raise RuntimeError("Best trial can be obtained only for single-objective optimization.")
        return best

    async def trial_id(self, study_id: int, number: int) -> int:
        """Return the id of the trial with a number."""
        study = await self.study(study_id)
        if study.trials.get(number) is None:
            await self._reader.read(study, number)
        return trial_id_of(study_id, number)

    async def number(self, trial_id: int) -> int:
        """Return the number of a trial."""
        study, number = await self._place(trial_id)
        if study.trials.get(number) is None:
            await self._reader.read(study, number)
        return number

    async def _place(self, trial_id: int) -> tuple[KnownStudy, int]:
        study_id, number = parts_of_trial_id(trial_id)
        try:
            return await self.study(study_id), number
        except KeyError:
            raise no_trial(trial_id) from None

    # ------------------------------------------------------------------------ trials: writing

    def deferred_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> bool:
        """Set a parameter of a trial that was just begun here, which is written soon.

        From any thread. Return False if it has to be written at once, with `set_param`. That is so
        with a name of which no trial is known to have a distribution, too: it must not be in doubt
        which of two processes is the first.
        """
        study_id, number = parts_of_trial_id(trial_id)
        study = self._studies.get(study_id)
        if study is None or number not in study.unwritten:
            return False
        earlier = study.trials.distributions.get(name)
        if earlier is None:
            return False
        check_distribution_compatibility(earlier, distribution)
        return study.set_param(number, StoredParam(name, internal, distribution))

    def deferred_attr(self, trial_id: int, name: str, value: Any) -> bool:
        """Set a system attribute as `deferred_param` does, if it has what are params soon."""
        study_id, number = parts_of_trial_id(trial_id)
        study = self._studies.get(study_id)
        if study is None or number not in study.unwritten or not RelativeParams.are_named(name):
            return False
        return study.set_param(number, RelativeParams(name, value))

    async def set_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter of a trial; those that follow may be written a little later."""
        study, number, known = await self._unfinished(trial_id)
        earlier = study.trials.distributions.get(name)
        if earlier is None:  # another trial may have it that was not read here
            await self.sync(study)
            earlier = study.trials.distributions.get(name)
        if earlier is not None:
            check_distribution_compatibility(earlier, distribution)
        await self.writes.add_param(study, number, known, StoredParam(name, internal, distribution))

    async def set_intermediate(self, trial_id: int, step: int, value: float) -> None:
        """Set an intermediate value of a trial."""
        study, number, known = await self._unfinished(trial_id)
        await self.writes.change(study, number, known, intermediate_update(step, value).changes)

    async def set_trial_attr(self, trial_id: int, kind: str, key: str, value: Any) -> None:
        """Set an attribute of a trial; `kind` is `USER_ATTRS` or `SYSTEM_ATTRS`."""
        study, number, known = await self._unfinished(trial_id)
        await self.writes.change(study, number, known, attribute_update(kind, key, value).changes)

    async def set_state(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None
    ) -> bool:
        """Set the state of a trial, and its values; return False if it runs already."""
        study, number, known = await self._unfinished(trial_id)
        if state is TrialState.RUNNING:
            return await self.writes.begin(study, number)
        if state is TrialState.WAITING:
            await self.hand_back(trial_id)
        else:
            await self.writes.finish(study, number, known, state, values)
        return True

    async def hand_back(
        self, trial_id: int, reason: str | None = None, token: str | None = None
    ) -> None:
        """Let a trial wait again, with its params, if this process runs it, or an unknown one.

        Parameters
        ----------
        token
            The reservation under which it runs here. Default: the one that is known.
        """
        study, number, known = await self._unfinished(trial_id)
        if known.state is not TrialState.WAITING:
            await self.writes.hand_back(study, number, reason, token)

    async def _unfinished(self, trial_id: int) -> tuple[KnownStudy, int, FrozenTrial]:
        """Return a trial that may be written to, as this process knows it."""
        study, number = await self._place(trial_id)
        return study, number, await self.writes.unfinished(study, number)

    # ------------------------------------------------------------------------------ heartbeats

    async def beat(self, trial_id: int) -> bool:
        """Record that the worker of a trial is alive; return whether it still has the trial."""
        study, number = await self._place(trial_id)
        return await self.records.beat(study.uid, number, study.tokens.get(number))

    async def stale(self, study_id: int, grace: float) -> list[int]:
        """Return the ids of the trials that have been silent for more than `grace` seconds."""
        study = await self.study(study_id)
        found = await self.records.stale(study.uid, grace)
        workers = {n: one.get("worker") for one in found if (n := number_of(one)) is not None}
        study.silent = {number: worker for number, worker in workers.items() if worker is not None}
        return [trial_id_of(study_id, number) for number in sorted(workers)]
