"""The errors of aiostorage, one tree.

::

    AioStorageError
    ├── ConfigurationError            the storage is configured in a way that cannot work
    │   └── UnknownStorageType        no engine of that name or URL scheme is registered
    ├── InvalidArgument               (TypeError, ValueError) an argument of the wrong kind
    ├── MissingArguments              also called UndefinedCall: too few arguments to find a record
    ├── MismatchedIds                 (AssertionError) an object and an id name different records
    ├── EncodingError                 (ValueError) a value that cannot be stored or decoded
    ├── UnsupportedQuery              (ValueError) a filter or selection that is not supported
    ├── InvalidResult                 (ValueError) results without a usable objective
    ├── CursorExpired                 changes behind a cursor are no longer kept
    ├── InvalidReservation            (ValueError) the text is not a reservation
    ├── MissingObjective              (ValueError) a trial has no objective, such as before its end
    ├── DuplicateKeyError             a record with that key already exists
    ├── FailedUpdate                  the record is not in the state that the update requires
    │   └── TrialLost                 the trial is no longer reserved by this worker
    ├── LockError
    │   ├── LockAcquisitionTimeout    (TimeoutError) the lock stayed busy for too long
    │   └── LockLost                  the lease ran out and another owner took the lock
    ├── StorageClosedError            used after ``aclose``
    ├── EventLoopError                (RuntimeError) used in another event loop, or in none
    ├── RunningLoopError              (RuntimeError) the facade was called where an event loop runs
    ├── TrackerError                  an experiment tracker refused what it was sent
    │   ├── UnknownExperiment         it has no experiment of that name
    │   ├── TrackerUnavailable        it cannot be reached at the moment
    │   └── TrackerTimeout            (TimeoutError) not everything was sent to it in time
    └── BackendError                  the engine failed
        ├── TemporaryBackendError     worth trying again; the retry policy does
        │   └── OperationTimeout      (TimeoutError) one attempt took too long
        ├── IncompleteCopy            the destination of a copy lacks records that were written
        ├── NotADatabaseError         the file or server holds something else
        ├── PermissionDenied          the engine may not read or write there
        └── SchemaVersionError        the store was laid out by another version of aiostorage

Every class carries a default message, so that a bare ``raise X`` reads well; errors that know more
carry it as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

__all__ = [
    "AioStorageError",
    "BackendError",
    "ConfigurationError",
    "CursorExpired",
    "DuplicateKeyError",
    "EncodingError",
    "EventLoopError",
    "FailedUpdate",
    "IncompleteCopy",
    "InvalidArgument",
    "InvalidReservation",
    "InvalidResult",
    "LockAcquisitionTimeout",
    "LockError",
    "LockLost",
    "MismatchedIds",
    "MissingArguments",
    "MissingObjective",
    "NotADatabaseError",
    "OperationTimeout",
    "PermissionDenied",
    "RunningLoopError",
    "SchemaVersionError",
    "StorageClosedError",
    "TemporaryBackendError",
    "TrackerError",
    "TrackerTimeout",
    "TrackerUnavailable",
    "TrialLost",
    "UndefinedCall",
    "UnknownExperiment",
    "UnknownStorageType",
    "UnsupportedQuery",
]


class AioStorageError(Exception):
    """The storage failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])


class ConfigurationError(AioStorageError):
    """The storage is not configured in a way that can work."""


class UnknownStorageType(ConfigurationError):
    """No engine of that name or URL scheme is registered.

    Attributes
    ----------
    requested : str
        What was asked for.
    known : tuple of str
        The names that would have worked.
    """

    def __init__(self, requested: str = "", known: tuple[str, ...] = ()) -> None:
        self.requested = requested
        self.known = known
        super().__init__(
            f"unknown storage type {requested!r}; known are: {', '.join(known)}{self._hint()}"
            if requested
            else None
        )

    def _hint(self) -> str:
        if self.requested.lower().partition("+")[0] not in ("mlflow", "comet"):
            return ""
        return '; a tracker is an option of a storage: open_storage("sqlite:///tune.db", tracker=…)'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.requested, self.known)


class InvalidArgument(AioStorageError, TypeError, ValueError):
    """An argument is of the wrong kind or has an impossible value; nothing was done.

    Attributes
    ----------
    call : str
        The method or function that was called, such as ``reserve_trial``; empty when unknown.
    argument : str
        The name of the argument, such as ``wait``; empty when unknown.
    """

    def __init__(self, message: str | None = None, *, call: str = "", argument: str = "") -> None:
        self.call = call
        self.argument = argument
        super().__init__(message)


class MissingArguments(AioStorageError):
    """Too few arguments: pass either the object or its uid."""


UndefinedCall = MissingArguments


class MismatchedIds(AioStorageError, AssertionError):
    """The object and the uid that were passed name different records."""


class EncodingError(AioStorageError, ValueError):
    """The value cannot be stored.

    Attributes
    ----------
    path : str
        Where in the document the value is, such as ``params[2].value``; empty when unknown.
    """

    def __init__(self, message: str | None = None, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class UnsupportedQuery(AioStorageError, ValueError):
    """The query uses something outside the supported language."""


class InvalidResult(AioStorageError, ValueError):
    """Results must contain an objective whose value is a number."""


class CursorExpired(AioStorageError, LookupError):
    """Changes behind the cursor are no longer kept, or it is the cursor of another store.

    The changes since then are unknown: read the trials again, and continue with a new cursor.
    """


class InvalidReservation(AioStorageError, ValueError):
    """The text is not a reservation, or only part of one."""


class MissingObjective(AioStorageError, ValueError):
    """The trial has no objective.

    Attributes
    ----------
    uid : str or None
        The trial.
    status : str or None
        Its status: a trial has an objective once it is completed.
    """

    def __init__(
        self, message: str | None = None, *, uid: str | None = None, status: str | None = None
    ) -> None:
        self.uid = uid
        self.status = status
        super().__init__(message)


class DuplicateKeyError(AioStorageError):
    """A record with the same key already exists.

    Attributes
    ----------
    collection : str
        Where the record was to be inserted.
    fields : tuple of str
        The fields that must be unique together.
    values : tuple
        The values that are taken.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        collection: str = "",
        fields: tuple[str, ...] = (),
        values: tuple[Any, ...] = (),
    ) -> None:
        self.collection = collection
        self.fields = fields
        self.values = values
        if message is None and collection:
            pairs = ", ".join(f"{f}={v!r}" for f, v in zip(fields, values, strict=False))
            message = f"{collection} already has a record with {pairs or 'that key'}"
        super().__init__(message)


class FailedUpdate(AioStorageError):
    """The record is not in the state that this update requires; nothing was written.

    Attributes
    ----------
    uid : str or None
        The trial that was to be written.
    status : str or None
        The status of that trial in the store; None when the store has no such trial.
    holder : str or None
        The reservation token of that trial in the store.
    token : str or None
        The reservation token with which it was to be written; None for a trial without one.

    The message has no token, because anyone who has one can write with it. It names the host and
    the process of a holder, and a fingerprint of its token.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        uid: str | None = None,
        status: str | None = None,
        holder: str | None = None,
        token: str | None = None,
    ) -> None:
        self.uid = uid
        self.status = status
        self.holder = holder
        self.token = token
        super().__init__(message)


class TrialLost(FailedUpdate):
    """The trial is no longer reserved by this worker.

    It was declared lost, given to another worker, or deleted; ``status`` and ``holder`` tell which.
    """


class LockError(AioStorageError):
    """The algorithm lock failed.

    Attributes
    ----------
    holder : str or None
        The token of the owner that the store names; None when the lock was free. The message has
        the host and the process of the owner, and a fingerprint of the token.
    since : datetime or None
        When that owner got the lock, in UTC.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        holder: str | None = None,
        since: datetime | None = None,
    ) -> None:
        self.holder = holder
        self.since = since
        super().__init__(message)


class LockAcquisitionTimeout(LockError, TimeoutError):
    """The algorithm lock did not become free in time.

    Attributes
    ----------
    waited : float
        Seconds spent waiting.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        waited: float = 0.0,
        holder: str | None = None,
        since: datetime | None = None,
    ) -> None:
        self.waited = waited
        super().__init__(message, holder=holder, since=since)


class LockLost(LockError):
    """The lease of the algorithm lock ran out and another owner may have it; nothing was saved."""


class StorageClosedError(AioStorageError):
    """The storage is closed; open a new one."""


class EventLoopError(AioStorageError, RuntimeError):
    """The storage is in use in another event loop, or this event loop is not asyncio's."""


class RunningLoopError(AioStorageError, RuntimeError):
    """A synchronous call would block the event loop that runs in this thread."""


class TrackerError(AioStorageError):
    """The experiment tracker refused what it was sent."""


class UnknownExperiment(TrackerError):
    """The experiment tracker has no such experiment."""


class TrackerUnavailable(TrackerError):
    """The experiment tracker cannot be reached at the moment."""


class TrackerTimeout(TrackerError, TimeoutError):
    """Not all changes were sent to the tracker in time; sending continues in the background.

    Attributes
    ----------
    left : int
        How many changes have yet to be sent.
    last_error : str or None
        Why the last call to the tracker failed in this process, if it did.
    """

    def __init__(
        self, message: str | None = None, *, left: int = 0, last_error: str | None = None
    ) -> None:
        self.left = left
        self.last_error = last_error
        super().__init__(message)


class BackendError(AioStorageError):
    """The storage engine failed.

    Attributes
    ----------
    results : list of Result
        The results that `complete_trial` or `push_trial_results` could not write; else empty.
    """

    def __init__(self, message: str | None = None, *, results: Iterable[Any] = ()) -> None:
        self.results: list[Any] = list(results)
        super().__init__(message)


class TemporaryBackendError(BackendError):
    """The storage engine failed in a way that may pass.

    Attributes
    ----------
    ambiguous : bool
        Whether the operation may have happened although no answer arrived.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        ambiguous: bool = False,
        results: Iterable[Any] = (),
    ) -> None:
        self.ambiguous = ambiguous
        super().__init__(message, results=results)


class OperationTimeout(TemporaryBackendError, TimeoutError):
    """The storage engine did not answer in time."""


class IncompleteCopy(BackendError):
    """A store lacks records that a load or a copy has written to it."""


class NotADatabaseError(BackendError):
    """The file or server holds something other than a database of aiostorage."""


class PermissionDenied(BackendError):
    """The storage engine is not allowed to read or write there."""


class SchemaVersionError(BackendError):
    """The database was laid out by another version of aiostorage.

    If that was an older one, the message names the command that upgrades the database.
    """
