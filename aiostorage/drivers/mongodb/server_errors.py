"""The libraries' exceptions as those of `aiostorage.errors`: the one place that translates them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import bson.errors
import gridfs.errors
from pymongo import errors as pymongo

from aiostorage import errors
from aiostorage.errors import BackendError, TemporaryBackendError

__all__ = ["LIBRARY_ERRORS", "MAPPED", "brief", "translate", "translated"]

LIBRARY_ERRORS: Final = (
    pymongo.PyMongoError,
    bson.errors.BSONError,
    gridfs.errors.GridFSError,
)
"""The exceptions to translate wherever they may come up."""

_TEMPORARY: Final = frozenset(
    (
        *(6, 7, 24, 43, 46, 89, 91, 112, 133, 134, 175, 189, 202, 225, 237, 246, 251, 262, 267),
        *(9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436),
    )
)
"""Codes of a server that is busy, on its way down or no longer the primary.

From `src/mongo/base/error_codes.yml` of the server, and from the retryable ones of the drivers'
specification "Retryable Writes".
"""

_TOO_MUCH_CODES: Final = (388, -31800)  # a transaction that does not fit into the server's cache
_TOO_LARGE_CODES: Final = (10334, 17419, 17420)
_REFUSED_CHANGE_CODES: Final = (28, 40)
_REFUSED_VALUE_CODES: Final = (52, 55, 56, 57)
_NAMESPACE: Final = re.compile(r"collection: [^.\s]+\.(\S+)")
_NOISE: Final = re.compile(r" \(configured timeouts:[^)]*\)|, (full error|Timeout): .*", re.DOTALL)


def brief(error: Exception) -> str:
    """Return a library's message without its repetitions and without the whole topology."""
    return _NOISE.sub("", str(error))[:300]


class _Failure(NamedTuple):
    """A failure, where it happened, and whether in a write."""

    error: Exception
    location: str
    writing: bool

    @property
    def text(self) -> str:
        """Where it failed, and how."""
        return f"{self.location}: {brief(self.error)}"


def _backend(failure: _Failure) -> Exception:
    return BackendError(failure.text)


def _temporary(failure: _Failure) -> Exception:
    return TemporaryBackendError(failure.text, ambiguous=failure.writing)


def _write_concern(failure: _Failure) -> Exception:
    details = getattr(failure.error, "details", None) or {}
    if 100 in (getattr(failure.error, "code", None), details.get("code")):
        return BackendError(f"{failure.text}; there are not so many members: correct w in the URL")
    return TemporaryBackendError(failure.text, ambiguous=True)


def _not_sent(failure: _Failure) -> Exception:
    return TemporaryBackendError(failure.text)


def _timeout(failure: _Failure) -> Exception:
    return errors.OperationTimeout(failure.text, ambiguous=failure.writing)


def _configuration(failure: _Failure) -> Exception:
    return errors.ConfigurationError(failure.text)


def _encoding(failure: _Failure) -> Exception:
    return errors.EncodingError(f"MongoDB cannot hold it: {brief(failure.error)}")


def _closed(failure: _Failure) -> Exception:
    if "close" in str(failure.error).lower():
        return errors.StorageClosedError()
    return BackendError(failure.text)


def _duplicate(failure: _Failure) -> Exception:
    error = failure.error
    details = error.details if isinstance(error, pymongo.OperationFailure) else None
    return _taken(details or {}, str(error))


def _taken(details: Mapping[str, Any], message: str) -> Exception:
    found = _NAMESPACE.search(message)
    values: Mapping[str, Any] = details.get("keyValue") or {}
    return errors.DuplicateKeyError(
        collection=found.group(1) if found else "",
        fields=tuple(details.get("keyPattern") or values),
        values=tuple(str(v) if v.__class__ is bson.ObjectId else v for v in values.values()),
    )


def _bulk(failure: _Failure) -> Exception:
    error = failure.error
    details: Mapping[str, Any] = (
        (error.details or {}) if isinstance(error, pymongo.OperationFailure) else {}
    )
    failed = details.get("writeErrors") or ()
    for one in failed:
        if one.get("code") in (11000, 11001, 12582):
            return _taken(one, one.get("errmsg", ""))
    if failed:
        return _by_code(failed[0].get("code"), failure)
    # only the write concern failed: it is written, perhaps for good
    if any(one.get("code") == 100 for one in details.get("writeConcernErrors") or ()):
        return _write_concern(failure._replace(error=pymongo.WriteConcernError(str(error), 100)))
    return _temporary(failure)


def _operation(failure: _Failure) -> Exception:
    error = failure.error
    if not isinstance(error, pymongo.PyMongoError):
        return _backend(failure)
    if error.has_error_label("UnknownTransactionCommitResult"):
        return TemporaryBackendError(failure.text, ambiguous=True)
    if error.has_error_label("TransientTransactionError"):
        return TemporaryBackendError(failure.text)
    return _by_code(getattr(error, "code", None), failure)


def _by_code(code: int | None, failure: _Failure) -> Exception:
    if code in (18, 8000):
        return errors.PermissionDenied(
            f"{failure.location} does not let us in: wrong user name or password, or the wrong "
            "authSource"
        )
    if code == 13:
        return errors.PermissionDenied(
            f"{failure.location} refuses: {brief(failure.error)}; the user needs the role readWrite"
            " on this database (without a user, put one into the URL)"
        )
    if code in (50, 202, 262):
        return _timeout(failure)
    if code in _TEMPORARY:
        return _temporary(failure)
    if code in _REFUSED_CHANGE_CODES:
        return errors.UnsupportedQuery(f"the update is impossible: {brief(failure.error)}")
    if code in _TOO_LARGE_CODES:
        return errors.EncodingError(
            f"the document is larger than MongoDB's 16 MiB: {brief(failure.error)}"
        )
    if code in _REFUSED_VALUE_CODES:
        return _encoding(failure)
    if code in _TOO_MUCH_CODES:
        return BackendError(f"{failure.text}; write fewer or smaller records in one call")
    return _backend(failure)


MAPPED: Final[dict[type[Exception], Callable[[_Failure], Exception]]] = {
    pymongo.PyMongoError: _operation,
    pymongo.ProtocolError: _temporary,
    pymongo.ConnectionFailure: _temporary,
    pymongo.WaitQueueTimeoutError: _not_sent,
    pymongo.AutoReconnect: _temporary,
    pymongo.NetworkTimeout: _timeout,
    pymongo.NotPrimaryError: _temporary,
    pymongo.ServerSelectionTimeoutError: _not_sent,
    pymongo.ConfigurationError: _configuration,
    pymongo.InvalidURI: _configuration,
    pymongo.InvalidName: _configuration,
    pymongo.CollectionInvalid: _backend,
    pymongo.OperationFailure: _operation,
    pymongo.CursorNotFound: _not_sent,
    pymongo.ExecutionTimeout: _timeout,
    pymongo.WriteConcernError: _write_concern,
    pymongo.WriteError: _operation,
    pymongo.WTimeoutError: _temporary,
    pymongo.DuplicateKeyError: _duplicate,
    pymongo.BulkWriteError: _bulk,
    pymongo.ClientBulkWriteException: _operation,
    pymongo.InvalidOperation: _closed,
    pymongo.DocumentTooLarge: _encoding,
    pymongo.EncryptionError: _backend,
    pymongo.EncryptedCollectionError: _backend,
    bson.errors.BSONError: _encoding,
    bson.errors.InvalidBSON: _backend,
    bson.errors.InvalidStringData: _encoding,
    bson.errors.InvalidDocument: _encoding,
    bson.errors.InvalidId: _backend,
    gridfs.errors.GridFSError: _backend,
    gridfs.errors.CorruptGridFile: _not_sent,
    gridfs.errors.NoFile: _not_sent,
    gridfs.errors.FileExists: _backend,
}
"""Every exception class of the libraries. A subclass goes by the nearest class above it."""


@contextmanager
def translated(location: str, *, writing: bool) -> Iterator[None]:
    """Raise the package's errors for those of the libraries.

    Parameters
    ----------
    location
        Where the server is, without secrets.
    writing
        Whether something may have happened although it failed.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise translate(error, location, writing=writing) from error


def translate(error: Exception, location: str, *, writing: bool = True) -> Exception:
    """Return the package's error for one of the libraries; see `translated`."""
    make = next(MAPPED[base] for base in type(error).__mro__ if base in MAPPED)
    return make(_Failure(error, location, writing))
