"""Optuna's storage on any engine of aiostorage."""

from __future__ import annotations

import copy
import os
import uuid
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.storages._heartbeat import BaseHeartbeat  # it has no public name
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` wants; it has no public name
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.event_log import EventLog
from aiostorage._core.storage import Storage
from aiostorage.errors import TemporaryBackendError
from aiostorage.factory import open_storage
from aiostorage.optuna.studies import Studies
from aiostorage.optuna.study_document import SYSTEM_ATTRS, USER_ATTRS
from aiostorage.optuna.study_ids import parts_of_trial_id
from aiostorage.optuna.trial_document import own_copy
from aiostorage.optuna.unwritten_params import UnwrittenParam
from aiostorage.sync.facade import SyncStorage

__all__ = ["OptunaStorage", "StaleTrialCallback"]

events: Final = EventLog("optuna")

P = ParamSpec("P")
T = TypeVar("T")

StaleTrialCallback = Callable[["optuna.Study", FrozenTrial], None]
"""What is called with a study and a trial of it that was declared stale."""

GRACE_INTERVALS = 2
"""Intervals without a heartbeat after which a trial is stale, unless a time is given."""


class OptunaStorage(BaseStorage, BaseHeartbeat):
    """A storage for Optuna: a study is an experiment, and a trial is a trial.

    Any number of threads may share one. It opens with its first call; it is closed by `close`, or
    at exit. A pickled or forked copy opens the store again. The signatures and the errors of the
    methods are Optuna's.

    Writes to a trial are made under the reservation of the process that began it. When another
    process declares the trial stale, or hands it back, later writes of the first one raise
    `optuna.exceptions.UpdateFinishedTrialError`.

    All threads see the params of a trial that was just begun at once, and the attribute in which a
    sampler notes the params that it has chosen together. They are written together: with the next
    other write of the trial, such as a report or its end, but at most a tenth of a second later. If
    the process is killed before that, they are lost. If they cannot be written, the write is tried
    again, and the next write of the trial raises its own error. Other attributes, intermediate
    values and states are in the store when a method returns.

    Parameters
    ----------
    storage
        The URL of a store, as for `aiostorage.open_storage`; or a `Storage`, not opened, or a
        `SyncStorage`, which may be in use elsewhere.
    heartbeat_interval
        Seconds between two heartbeats of a trial in ``study.optimize``. None: no heartbeats are
        sent, and no trial becomes stale.
    grace_period
        Seconds without a heartbeat after which a trial is stale. Default: two intervals.
    heartbeat_stale_trial_callback
        Called with each trial that this process has declared stale, such as
        `optuna.storages.RetryHeartbeatStaleTrialCallback`.
    failed_trial_callback
        The same, under its name in older versions of Optuna.
    options
        Options of `aiostorage.open_storage` and of the engine, with a URL.

    Raises
    ------
    ValueError
        A time is not positive, or both callbacks are given.
    ConfigurationError
        The URL or an option is not valid.

    Examples
    --------
    >>> storage = OptunaStorage("sqlite:///tune.db")
    >>> study = optuna.create_study(storage=storage, study_name="tune")
    """

    def __init__(
        self,
        storage: str | Storage | SyncStorage,
        *,
        heartbeat_interval: int | None = None,
        grace_period: int | None = None,
        heartbeat_stale_trial_callback: StaleTrialCallback | None = None,
        failed_trial_callback: StaleTrialCallback | None = None,
        **options: Any,
    ) -> None:
        for name, seconds in (
            ("heartbeat_interval", heartbeat_interval),
            ("grace_period", grace_period),
        ):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}")
        if heartbeat_stale_trial_callback is not None and failed_trial_callback is not None:
            raise ValueError(
                "heartbeat_stale_trial_callback and failed_trial_callback are the same; pass one"
            )
        if isinstance(storage, str):
            storage = open_storage(storage, **options)
        elif options:
            raise TypeError(f"options are for a URL, not for a storage: {', '.join(options)}")
        if isinstance(storage, Storage):
            # Optuna's methods block whoever calls them, in a notebook's loop, too
            storage = SyncStorage(storage, in_running_loop=True)
        self._storage = storage
        self.heartbeat_interval: int | None = heartbeat_interval
        self.grace_period: int | None = grace_period
        self._stale_callback = heartbeat_stale_trial_callback or failed_trial_callback
        self._begin(None, None)

    def _begin(
        self, tokens: dict[int, str] | None, params: dict[int, list[UnwrittenParam]] | None
    ) -> None:
        store, portal = self._storage._storage, self._storage._portal  # noqa: SLF001  an adapter of this package
        self._studies = Studies(store, tokens, params, portal.hold)
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "storage": self._storage,
            "heartbeat_interval": self.heartbeat_interval,
            "grace_period": self.grace_period,
            "callback": self._stale_callback,
            "tokens": self._studies.tokens,
            "params": self._studies.unwritten,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._storage = state["storage"]
        self.heartbeat_interval = state["heartbeat_interval"]
        self.grace_period = state["grace_period"]
        self._stale_callback = state["callback"]
        self._begin(state["tokens"], state["params"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage.location!r})"

    @property
    def location(self) -> str:
        """Where the data is, for people to read; without secrets."""
        return self._storage.location

    @property
    def lost_after(self) -> float:
        """Seconds without a heartbeat after which a running trial counts as lost in the store."""
        return self._storage._storage._lost.after  # noqa: SLF001  an adapter of this package

    @property
    def studies(self) -> Studies:
        """Studies and trials as coroutines, for the event loop of the storage alone."""
        if self._pid != os.getpid():  # in a forked child
            self._begin(self._studies.tokens, self._studies.unwritten)
        return self._studies

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._storage.close()

    def _call(
        self,
        method: Callable[Concatenate[Studies, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Await a method of `Studies` in the event loop of the storage."""
        return self._storage._portal.call(method, self.studies, *args, **kwargs)  # noqa: SLF001  an adapter of this package

    # ------------------------------------------------------------------------------- studies

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study; return its id. See `optuna.storages.BaseStorage`."""
        name = f"{DEFAULT_STUDY_NAME_PREFIX}{uuid.uuid4()}" if study_name is None else study_name
        return self._call(Studies.create_study, list(directions), name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials."""
        self._call(Studies.delete_study, study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user's attribute of a study."""
        self._call(Studies.set_study_attr, study_id, USER_ATTRS, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of a study that belongs to Optuna."""
        self._call(Studies.set_study_attr, study_id, SYSTEM_ATTRS, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study."""
        return self._call(Studies.study_id_named, study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study."""
        return self._call(Studies.study_name, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study."""
        return self._call(Studies.directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user's attributes of a study."""
        return self._call(Studies.study_attrs, study_id, USER_ATTRS)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes of a study that belong to Optuna."""
        return self._call(Studies.study_attrs, study_id, SYSTEM_ATTRS)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, by their ids."""
        return self._call(Studies.all_studies)

    # -------------------------------------------------------------------------------- trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; return its id."""
        return self._call(Studies.create_trial, study_id, template_trial)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a parameter of a trial; see the class for when it is in the store."""
        args = trial_id, param_name, param_value_internal, distribution
        if not self.studies.deferred_param(*args):
            self._call(Studies.set_param, *args)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Return the id of the trial with a number."""
        return self._call(Studies.trial_id, study_id, trial_number)

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the number of a trial."""
        return self._call(Studies.number, trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state of a trial and its values; return False if it is to run and does so."""
        return self._call(Studies.set_state, trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set an intermediate value of a trial."""
        self._call(Studies.set_intermediate, trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user's attribute of a trial."""
        self._call(Studies.set_trial_attr, trial_id, USER_ATTRS, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial that belongs to Optuna."""
        if not self.studies.deferred_attr(trial_id, key, value):
            self._call(Studies.set_trial_attr, trial_id, SYSTEM_ATTRS, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        trial = self.studies.known(trial_id)
        if trial is None:
            trial = self._call(Studies.trial, trial_id)
        return trial if trial.state.is_finished() else own_copy(trial)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study, by number."""
        trials = self._call(Studies.trials, study_id, states)
        return copy.deepcopy(trials) if deepcopy else trials

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the complete trial with the best value."""
        return self._call(Studies.best_trial, study_id)

    def remove_session(self) -> None:
        """Do nothing: the connection is shared by all threads."""

    # ----------------------------------------------------------------------------- heartbeats

    def record_heartbeat(self, trial_id: int) -> None:
        """Record that the worker of a trial is alive; an outage is only logged.

        The thread in which Optuna does this would end with an error, and the trial become stale.
        """
        try:
            self._call(Studies.beat, trial_id)
        except TemporaryBackendError as error:  # the next one may succeed
            events.warning(
                "heartbeat_failed",
                "trial %(number)s: a heartbeat failed: %(error)s",
                number=parts_of_trial_id(trial_id)[1],
                error=error,
            )

    def get_heartbeat_interval(self) -> int | None:
        """Return the seconds between two heartbeats; None if there are none."""
        return self.heartbeat_interval

    def get_heartbeat_stale_trial_callback(self) -> StaleTrialCallback | None:
        """Return what is called with a trial that was declared stale."""
        return self._stale_callback

    def get_failed_trial_callback(self) -> StaleTrialCallback | None:
        """Return the same, by the name that Optuna 4 asks for."""
        return self._stale_callback

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        if self.heartbeat_interval is None:
            return []
        grace = self.grace_period or GRACE_INTERVALS * self.heartbeat_interval
        return self._call(Studies.stale, study_id, float(grace))
