"""What callers use and what engines implement.

`AsyncStorageProtocol` mirrors Oríon's ``BaseStorageProtocol`` as coroutines; its docstrings are the
contract that `aiostorage.testing.StorageContract` checks. `Driver` is all that an engine has to
provide; `aiostorage.testing.DriverContract` checks that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.experiment import Experiment
from aiostorage.operations import Document, Find, Layout, Operation
from aiostorage.trial import Trial

__all__ = ["AsyncStorageProtocol", "Driver", "ExperimentLike", "Uid"]

T = TypeVar("T")

Uid = str | int
"""What names an experiment in its store."""

ExperimentLike = Any
"""Anything with ``.id`` or ``._id``, or a mapping with ``_id`` (a stored experiment config)."""


@runtime_checkable
class Driver(Protocol):
    """An engine: documents in collections, changed by operations.

    A driver knows no trials and no experiments. It is handed a `Layout` when it is opened, and
    records of `aiostorage.operations` afterwards. Its laws:

    - **Copies.** No caller can change what is stored through a document it passed or received.
    - **Atomic.** `execute` and `transact` happen wholly or not at all, and as if one after the
      other, whatever tasks, threads, processes or machines call at the same time.
    - **Durable.** What was answered survives the death of the process.
    - **Meaning.** Conditions mean what `aiostorage._core.query.matches` says they do.
    - **Cancellation.** A cancelled call happened wholly or not at all; the driver stays usable.
    - **Errors** are those of `aiostorage.errors`: `TemporaryBackendError` for what may pass (with
      ``ambiguous=True`` if the operation may have happened), `DuplicateKeyError` for a taken key,
      `BackendError` for the rest; none shows a password.
    """

    @property
    def name(self) -> str:
        """The engine's name, such as ``sqlite``."""
        ...

    @property
    def location(self) -> str:
        """Where the data is, for people to read; without secrets."""
        ...

    @property
    def resolution(self) -> timedelta:
        """How finely datetimes are kept."""
        ...

    async def open(self, layout: Layout) -> None:
        """Connect, and create or check the layout.

        Raises
        ------
        NotADatabaseError, PermissionDenied, SchemaVersionError, ConfigurationError
            When this can never work; nothing was changed.
        """
        ...

    async def aclose(self) -> None:
        """Finish what is under way and let go of everything. A second call does nothing."""
        ...

    def execute(self, operation: Operation[T]) -> Awaitable[T]:
        """Carry out one operation and answer its result."""
        ...

    def transact(self, operations: Sequence[Operation[Any]]) -> Awaitable[list[Any]]:
        """Carry out all operations in order or none of them; answer their results."""
        ...

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """Answer the next `size` matches by insertion (`find.order` is empty), and a mark.

        Parameters
        ----------
        after
            The mark that came with the page before; None for the first page.

        Returns
        -------
        documents, mark
            The mark is None when there is no further page. Every document that matches throughout
            is on one page; those that come or change meanwhile may be. Nothing is held between two
            pages.
        """
        ...

    async def now(self) -> datetime:
        """Answer the store's clock, in UTC."""
        ...

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """Wait until `collection` may have changed; answer a mark of its present state.

        Parameters
        ----------
        since
            An earlier mark: returns at once when the collection changed after it. With None it
            returns the present mark at once.
        timeout
            Seconds after which it returns at the latest.
        """
        ...


class AsyncStorageProtocol(Protocol):
    """Experiments, trials, benchmarks and the algorithm lock, as coroutines.

    Laws that hold for every method, on every engine:

    - **Copies.** What is passed in is not kept; what is returned is never changed by later writes.
      One exception: `create_experiment` and `create_benchmark` put ``_id`` into the config.
    - **Time** is UTC. Naive datetimes are read as UTC; what is returned is timezone-aware.
    - **Queries** (`where`, `query`, `selection`) mean what MongoDB means by them: equality,
      ``$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or``, dotted paths, projections. Anything
      else raises `UnsupportedQuery`. A missing field counts as None: it matches ``$ne``.
    - **Values** are str-keyed dicts, lists, str, bytes, bool, 64-bit int, float, None, datetime;
      numpy numbers and arrays become numbers and lists. Anything else raises `EncodingError`, and
      nothing is written.
    - **Fencing.** A reservation puts a fresh token into ``trial.worker``. `update_heartbeat`,
      `push_trial_results`, `set_trial_status` and `complete_trial` with a trial that carries a
      token write only while the store has the same one, and raise `TrialLost` (a `FailedUpdate`)
      otherwise. A trial without a token is not fenced.
    - **Errors.** Every method may raise `StorageClosedError` after `aclose`, `BackendError` when
      the engine fails, and `TemporaryBackendError` once the retry policy has run out.
    - **Cancellation.** Every await may be cancelled: what was asked for happened wholly or not at
      all, and the storage stays usable.

    An `experiment` argument is anything with ``.id`` or ``._id``, or a mapping with ``_id``; where
    a `uid` argument stands beside it either will do, and both must agree.
    """

    # ------------------------------------------------------------------------- experiments

    async def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> Experiment:
        """Insert a new experiment together with its algorithm's lock record, or neither.

        A lock record that is there for its ``_id``, without an experiment, becomes that record: it
        was left by a deletion without `cascade`, or by a creation that was cut short on an engine
        without transactions.

        Parameters
        ----------
        config
            What to store; needs a ``name``. Gets an ``_id`` unless it has one. Its ``algorithm``
            (or ``algorithms``) becomes the configuration of the lock record.
        algo_locked, algo_state, algo_heartbeat
            What the lock record starts with: unlocked, no state, now.

        Raises
        ------
        DuplicateKeyError
            An experiment with the same name and version, or the same ``_id``, exists.
        """
        ...

    async def delete_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        *,
        cascade: bool = True,
    ) -> int:
        """Delete an experiment with its trials and lock record; answer how many experiments went.

        Parameters
        ----------
        cascade
            False leaves its trials and its lock record where they are.

        Raises
        ------
        MissingArguments
            Neither `experiment` nor `uid` was passed.
        MismatchedIds
            Both were passed and do not agree.
        """
        ...

    async def update_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Set fields of an experiment that also matches `where`; answer whether one did.

        Names of fields in `kwargs` may be dotted paths.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        DuplicateKeyError
            Another experiment has the new name and version.
        """
        ...

    async def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer the stored configs that match, in the order of their insertion."""
        ...

    # ------------------------------------------------------------------------------- trials

    async def register_trial(self, trial: Trial) -> Trial:
        """Store a new trial; answer it as it was stored, with its ``_id``.

        A trial without ``submit_time`` gets the present time.

        Raises
        ------
        DuplicateKeyError
            The experiment has a trial with these params.
        """
        ...

    async def register_trials(self, trials: Sequence[Trial]) -> list[Trial]:
        """Store new trials in one transaction, all or none; answer them as they were stored.

        Raises
        ------
        DuplicateKeyError
            The experiment has one of them, or two of them are the same.
        """
        ...

    async def reserve_trial(self, experiment: ExperimentLike, *, wait: float = 0.0) -> Trial | None:
        """Give the oldest pending trial to this caller alone; None when none is pending.

        Pending is what is new, suspended or interrupted. The trial comes back ``reserved``, with a
        fresh token in ``worker``, and with ``start_time`` and ``heartbeat`` now.

        Parameters
        ----------
        wait
            Seconds to wait for a pending trial, at most; engines that can tell of changes wake the
            caller soon after one has come.
        """
        ...

    async def reserve_trials(self, experiment: ExperimentLike, count: int) -> list[Trial]:
        """Give up to `count` pending trials to this caller alone, the oldest first.

        They share one token.
        """
        ...

    async def fetch_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Trial] | None:
        """Answer the trials that match, by submit time; None if there is no such experiment.

        None comes back only when neither the experiment nor a trial of it exists.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        batch_size: int = 200,
    ) -> AsyncIterator[Any]:
        """Iterate over the trials that match, by insertion, holding `batch_size` of them at most.

        With a `selection` the items are documents (dicts), without one they are `Trial` objects.
        Trials that come or change while iterating may or may not be seen; none is seen twice.
        """
        ...

    async def get_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
    ) -> Trial | None:
        """Answer one trial as it is stored, None if there is none.

        Raises
        ------
        MissingArguments
            Neither `trial` nor both `uid` and `experiment_uid` were passed.
        MismatchedIds
            Both were passed and do not agree.
        """
        ...

    async def update_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of one trial that also matches `where`; answer how many matched, 0 or 1.

        This is not fenced: pass ``where={"worker": token}`` to fence it.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `get_trial`.
        """
        ...

    async def update_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of all trials of an experiment that match `where`; answer how many did.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    async def delete_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the trials of an experiment that match `where`; answer how many did.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    async def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Answer the reserved trials whose heartbeat is older than `lost_after` seconds."""
        ...

    async def recover_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Put lost trials back to ``interrupted``, in one atomic step, and answer them.

        Their workers can no longer write to them.
        """
        ...

    async def retrieve_result(self, trial: Trial, *args: Any, **kwargs: Any) -> Trial:
        """Answer `trial` with the results that the store has for it, if it has any.

        `args` and `kwargs` are taken for the original's sake.
        """
        ...

    async def push_trial_results(self, trial: Trial) -> int:
        """Store the results, the end time and the status of a reserved trial; answer 1.

        The status is that of `trial`, as Oríon means it: ``completed`` completes it, ``reserved``
        leaves it where it is. `complete_trial` does all of this in one step.

        Raises
        ------
        FailedUpdate
            The store does not have the trial as ``reserved``; `TrialLost` if somebody else has it.
        """
        ...

    async def complete_trial(self, trial: Trial, results: Any) -> None:
        """Store the results, the end time and the status ``completed`` in one atomic write.

        `trial` follows: its results, status and end time are set when the write succeeded.

        Parameters
        ----------
        results
            A number (the objective); a mapping, whose entry ``objective`` or else first entry is
            the objective and whose others are statistics; or a list of results.

        Raises
        ------
        InvalidResult
            There is no objective, or it is not a number.
        FailedUpdate
            As for `push_trial_results`.
        """
        ...

    async def set_trial_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None = None,
        was: str | None = None,
    ) -> None:
        """Set the status of a trial, and its heartbeat, if it has the status `was`.

        ``trial.status`` follows when the write succeeded. Setting ``reserved`` writes a fresh
        token into ``trial.worker``.

        Parameters
        ----------
        heartbeat
            Default: now.
        was
            The status that the store must have. Default: ``trial.status``.

        Raises
        ------
        FailedUpdate
            The store has another status, or no such trial; `TrialLost` if somebody else has it.
        ValueError
            `status` or `was` is not the name of a status.
        """
        ...

    async def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Answer the trials that `reserve_trial` may give away: new, suspended, interrupted."""
        ...

    async def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Answer the trials that are not completed."""
        ...

    async def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        """Answer the trials with this status."""
        ...

    async def count_completed_trials(self, experiment: ExperimentLike) -> int:
        """Count the completed trials."""
        ...

    async def count_broken_trials(self, experiment: ExperimentLike) -> int:
        """Count the broken trials."""
        ...

    async def update_heartbeat(self, trial: Trial) -> int:
        """Say that the worker of a reserved trial is alive; answer how many trials matched.

        Raises
        ------
        FailedUpdate
            The trial carries a token and is no longer reserved under it (`TrialLost`). Without a
            token, a trial that is not reserved answers 0.
        """
        ...

    def reserved_trial(
        self, experiment: ExperimentLike, *, heartbeat: float | None = None, wait: float = 0.0
    ) -> AbstractAsyncContextManager[Trial | None]:
        """Reserve a trial for the body; its heart beats in the background.

        ``None`` when nothing is pending. Afterwards the trial is whatever the body made of it; if
        it is still reserved, it becomes ``broken`` when the body raised, and ``interrupted`` when
        the body was cancelled or left without completing it. When the reservation is taken over,
        the body is cancelled.

        Parameters
        ----------
        heartbeat
            Seconds between two beats. Default: a fifth of `lost_after`, as in Oríon.
        wait
            As for `reserve_trial`.

        Raises
        ------
        TrialLost
            The reservation was taken over while the body ran.
        """
        ...

    # --------------------------------------------------------------------------- benchmarks

    async def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark, which needs a ``name``; put ``_id`` into the config; answer 1.

        Raises
        ------
        DuplicateKeyError
            A benchmark of that name exists.
        """
        ...

    async def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer the benchmarks that match, in the order of their insertion."""
        ...

    async def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        """Delete the benchmarks that match; answer how many did."""
        ...

    # ---------------------------------------------------------------------- algorithm lock

    async def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        """Insert an open lock record without state for an experiment; answer 1.

        Raises
        ------
        DuplicateKeyError
            The experiment has one; `create_experiment` makes it.
        """
        ...

    async def write_algorithm_lock(
        self,
        experiment_id: Uid,
        algorithm_config: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Insert a lock record as it is told, such as one read elsewhere; answer 1.

        A record that is written as locked has no owner who would renew it: it is free after one
        lease.

        Raises
        ------
        DuplicateKeyError
            The experiment has one.
        """
        ...

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike, timeout: float = 600, retry_interval: float = 1
    ) -> AbstractAsyncContextManager[LockedAlgorithmState]:
        """Hold the experiment's algorithm, alone, for the body; save its state afterwards.

        First come, first served among those who wait and live. A lease is renewed in the
        background while the body runs; when the holder dies, the lock is free after one lease.
        The state is saved when the body succeeds, whether it was set with ``set_state`` or changed
        in place; on any exception, cancellation included, the store keeps the state it had.

        Parameters
        ----------
        timeout
            Seconds to wait for the lock.
        retry_interval
            Seconds between two looks at the lock, at most; engines that can tell wake up earlier.

        Raises
        ------
        LockAcquisitionTimeout
            The lock was not to be had in time; says who holds it and since when.
        LockLost
            The lease ran out and somebody else took the lock: the body was cancelled, or the state
            was not saved.
        LockError
            The experiment has no lock record.
        """
        ...

    async def release_algorithm_lock(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        new_state: Any = None,
    ) -> int:
        """Open the lock whoever holds it: the operator's override.

        Answers 1 if it was locked, else 0.

        The holder, if it lives, gets `LockLost`.

        Parameters
        ----------
        new_state
            The state to store; None keeps the one that is there.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    async def get_algorithm_lock_info(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> LockedAlgorithmState | None:
        """Answer the lock record without acquiring it; None if there is none.

        Whether it is locked may have changed by the time the answer is read.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    async def delete_algorithm_lock(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> int:
        """Delete the lock record; answer 1 if there was one, else 0.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        ...

    # --------------------------------------------------------------------------- lifetime

    async def aclose(self) -> None:
        """Let go of everything. A second call does nothing."""
        ...
