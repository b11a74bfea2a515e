"""The storage that Optuna's own code sees while objectives are evaluated in an event loop.

What it reads is in memory, and what it sets of a trial that runs here is noted: the event loop
writes it, together with that of other trials. So no call of Optuna waits for the store, and the
many trials of one loop do not wait for each other.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    check_distribution_compatibility,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` wants; it has no public name
from optuna.trial import FrozenTrial, TrialState

from aiostorage.optuna.async_objectives.trial_batches import BegunTrial, TrialWrite
from aiostorage.optuna.known_study import KnownStudy
from aiostorage.optuna.storage import OptunaStorage
from aiostorage.optuna.stored_params import StoredParam, stored_params
from aiostorage.optuna.study_document import SYSTEM_ATTRS, USER_ATTRS
from aiostorage.optuna.study_ids import trial_id_of
from aiostorage.optuna.trial_document import (
    TrialUpdate,
    attribute_update,
    changed,
    final_update,
    intermediate_update,
    own_copy,
    with_params,
)
from aiostorage.optuna.unwritten_params import UNWRITTEN

__all__ = ["DeferredStorage", "RunningTrial"]

MAX_ATTRS_AGE: Final = 1.0
"""Seconds for which the attributes of a study count as known."""


class RunningTrial:
    """A trial that runs here, and what of it is still to be written.

    Any thread may use it.

    Parameters
    ----------
    begun
        As it was begun.
    trial_id
        Its id.

    Attributes
    ----------
    number : int
        Its number.
    token : str
        The reservation under which it runs here.
    trial : FrozenTrial
        As it is now.
    ended : bool
        Whether it has its final state, written or not.
    lost : bool
        Whether it does not run here any more.
    """

    def __init__(self, begun: BegunTrial, trial_id: int) -> None:
        self.number: int = begun.number
        self.trial_id = trial_id
        self.token: str = begun.token
        self.trial: FrozenTrial = begun.trial
        self.ended: bool = False
        self.lost: bool = False
        self._stored = begun.trial
        self._params: dict[str, StoredParam] = {}
        self._changes: dict[str, Any] = {UNWRITTEN: False}  # as soon as anything is written
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that it runs here still.

        Raises
        ------
        UpdateFinishedTrialError
            It has ended, or was taken away or handed back.
        """
        if self.ended or self.lost:
            raise UpdateFinishedTrialError(
                f"Trial#{self.number} does not run here any more and can not be updated."
            )

    def set_param(self, param: StoredParam) -> None:
        """Set a param."""
        with self._lock:
            self._params[param.name] = param
            self.trial = with_params(self.trial, [param])

    def set(self, update: TrialUpdate) -> None:
        """Note the changes of the document, and change the trial."""
        with self._lock:
            self._changes |= update.changes
            self.trial = changed(self.trial, **update.fields)

    def end(self, update: TrialUpdate) -> None:
        """Give the trial its final state."""
        with self._lock:
            self._changes |= update.changes
            self.trial = changed(self.trial, **update.fields)
            self.ended = True

    def take_write(self, *, ended: bool = True) -> TrialWrite | None:
        """Return what is to be written, for the caller to write; None if nothing is.

        Parameters
        ----------
        ended
            Whether that of a trial that has its final state is wanted, too.
        """
        with self._lock:
            if (self.ended and not ended) or not (self._params or self._changes):
                return None
            params, self._params = list(self._params.values()), {}
            changes, self._changes = self._changes, {}
            return TrialWrite(self.number, self.token, self._stored, params, changes)

    def written(self, write: TrialWrite) -> None:
        """Note that something is written; another process may have added params before."""
        with self._lock:
            self._stored = write.stored
            if added := write.stored.params.keys() - self.trial.params.keys():
                self.trial = with_params(
                    self.trial, [one for one in stored_params(write.stored) if one.name in added]
                )

    def give_back(self, write: TrialWrite) -> None:
        """Note again what could not be written; what was set since then stands."""
        with self._lock:
            self._stored = write.stored
            self._params = {param.name: param for param in write.params} | self._params
            self._changes = {**write.changes, **self._changes}


class DeferredStorage(BaseStorage):
    """A storage for one study, in memory but for what is not about its running trials.

    Parameters
    ----------
    storage
        The storage of the study.
    study
        What is known of the study; the event loop keeps it up to date.
    """

    def __init__(self, storage: OptunaStorage, study: KnownStudy) -> None:
        self._storage = storage
        self._study = study
        self._running: dict[int, RunningTrial] = {}
        self._called_for: RunningTrial | None = None
        self._attrs: tuple[float, dict[str, Any]] | None = None
        self._dirty: deque[tuple[float, RunningTrial]] = deque()
        """Since when something of a trial is to be written; one may be here several times."""

    def begin(self, begun: BegunTrial) -> RunningTrial:
        """Begin to defer what is set of a trial that runs here."""
        trial_id = trial_id_of(self._study.id, begun.number)
        running = self._running[trial_id] = RunningTrial(begun, trial_id)
        self.note(running)
        return running

    def running(self, number: int) -> RunningTrial | None:
        """Return the trial of a number that runs here, if one does."""
        return self._running.get(trial_id_of(self._study.id, number))

    @contextmanager
    def calls_of(self, running: RunningTrial) -> Iterator[None]:
        """Let the calls of the body be of this evaluation of a trial, in Optuna's thread.

        The trial may be taken away meanwhile and be taken up again here: then they are of the
        evaluation before.
        """
        running.check()
        before, self._called_for = self._called_for, running
        try:
            yield
        finally:
            self._called_for = before

    def publish(self, running: RunningTrial) -> None:
        """Show a trial in its final state, which is written."""
        self._study.put(running.trial)

    def end(self, running: RunningTrial) -> None:
        """Forget a trial that does not run any more."""
        if self._running.get(running.trial_id) is running:
            del self._running[running.trial_id]

    def _evaluation(self, trial_id: int) -> RunningTrial | None:
        called_for = self._called_for
        if called_for is not None and called_for.trial_id == trial_id:
            return called_for
        return self._running.get(trial_id)

    def _own(self, trial_id: int) -> RunningTrial | None:
        running = self._evaluation(trial_id)
        if running is not None:
            running.check()
        return running

    def _note(self, running: RunningTrial) -> None:
        if self._study.tokens.get(running.number) == running.token:
            self._study.put(running.trial)
        self.note(running)

    def note(self, running: RunningTrial) -> None:
        """Note that something of a trial is to be written."""
        self._dirty.append((time.monotonic(), running))

    @property
    def dirty_since(self) -> float | None:
        """Since when what was set waits for being written; None if nothing does."""
        return self._dirty[0][0] if self._dirty else None

    def take_dirty(self, before: float) -> list[RunningTrial]:
        """Return the trials of which something waits since then, to be written now."""
        dirty: dict[RunningTrial, None] = {}
        while self._dirty and self._dirty[0][0] <= before:
            dirty[self._dirty.popleft()[1]] = None
        return list(dirty)

    # -------------------------------------------------------------------------------- trials

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter of a trial."""
        running = self._own(trial_id)
        if running is None:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        earlier = self._study.trials.distributions.get(param_name)
        if earlier is not None:
            check_distribution_compatibility(earlier, distribution)
            if earlier == distribution and not isinstance(earlier, CategoricalDistribution):
                distribution = earlier  # one object for all trials
        running.set_param(StoredParam(param_name, param_value_internal, distribution))
        self._note(running)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state of a trial and its values; a final one is not seen before it is written."""
        running = self._own(trial_id)
        if running is None:
            return self._storage.set_trial_state_values(trial_id, state, values)
        if not state.is_finished():
            return False
        running.end(final_update(running.trial, state, values))
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set an intermediate value of a trial."""
        running = self._own(trial_id)
        if running is None:
            self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        running.set(intermediate_update(step, intermediate_value))
        self._note(running)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user's attribute of a trial."""
        running = self._own(trial_id)
        if running is None:
            self._storage.set_trial_user_attr(trial_id, key, value)
            return
        running.set(attribute_update(USER_ATTRS, key, value))
        self._note(running)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial that belongs to Optuna."""
        running = self._own(trial_id)
        if running is None:
            self._storage.set_trial_system_attr(trial_id, key, value)
            return
        running.set(attribute_update(SYSTEM_ATTRS, key, value))
        self._note(running)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        running = self._evaluation(trial_id)
        return self._storage.get_trial(trial_id) if running is None else own_copy(running.trial)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study, by number."""
        if study_id != self._study.id:
            return self._storage.get_all_trials(study_id, deepcopy, states)
        trials = self._study.trials.all(states)
        return copy.deepcopy(trials) if deepcopy else trials

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the complete trial with the best value."""
        best = self._study.trials.best
        if study_id != self._study.id or best is None or len(self._study.directions) > 1:
            return self._storage.get_best_trial(study_id)
        return best

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; return its id."""
        return self._storage.create_new_trial(study_id, template_trial)

    # ------------------------------------------------------------------------------- studies

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes of a study that belong to Optuna, as they were a moment ago."""
        now = time.monotonic()
        if study_id != self._study.id:
            return self._storage.get_study_system_attrs(study_id)
        if self._attrs is None or now - self._attrs[0] > MAX_ATTRS_AGE:
            self._attrs = now, self._storage.get_study_system_attrs(study_id)
        return dict(self._attrs[1])

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of a study that belongs to Optuna."""
        self._storage.set_study_system_attr(study_id, key, value)
        self._attrs = None

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user's attributes of a study."""
        return self._storage.get_study_user_attrs(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user's attribute of a study."""
        self._storage.set_study_user_attr(study_id, key, value)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study; return its id."""
        return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials."""
        self._storage.delete_study(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study."""
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study."""
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study."""
        return self._storage.get_study_directions(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, by their ids."""
        return self._storage.get_all_studies()
