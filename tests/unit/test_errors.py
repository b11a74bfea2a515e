"""The tree of errors, and SQLite's errors in it."""

from __future__ import annotations

import inspect
import pickle
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from aiostorage import errors
from aiostorage._core.driver_calls.gateway import copy_of
from aiostorage.drivers.sqlite.translated_errors import translated
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    DuplicateKeyError,
    EncodingError,
    FailedUpdate,
    LockAcquisitionTimeout,
    LockLost,
    MismatchedIds,
    MissingArguments,
    MissingObjective,
    NotADatabaseError,
    OperationTimeout,
    PermissionDenied,
    StorageClosedError,
    TemporaryBackendError,
    TrialLost,
    UndefinedCall,
    UnknownStorageType,
)
from aiostorage.trial import Result

ALL = sorted(
    (v for v in vars(errors).values() if inspect.isclass(v) and issubclass(v, AioStorageError)),
    key=lambda e: e.__name__,
)


@pytest.mark.parametrize("error", ALL)
def test_a_bare_error_reads_well(error: type[AioStorageError]) -> None:
    made = error()
    assert str(made) == (error.__doc__ or "").split("\n", 1)[0]
    assert str(made).endswith(".")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert (str(again), vars(again)) == (str(made), vars(made))
    assert str(error("of my own")) == "of my own" or error is UnknownStorageType


@pytest.mark.parametrize(
    "error",
    [
        DuplicateKeyError(collection="c", fields=("a", "b"), values=(1, None)),
        EncodingError("no", path="a.b"),
        FailedUpdate("no", uid="u", status="new", holder="h"),
        MissingObjective("no", uid="u", status="new"),
        TrialLost(uid="u", status="reserved", holder="h", token="t"),
        LockAcquisitionTimeout(
            "no", waited=1.5, holder="h", since=datetime(2026, 1, 1, tzinfo=UTC)
        ),
        LockLost(holder="h"),
        TemporaryBackendError("no", ambiguous=True),
        OperationTimeout(ambiguous=True, results=[Result("o", "objective", 1.0)]),
        BackendError("no", results=[Result("o", "objective", float("inf"))]),
        UnknownStorageType("x", ("a", "b")),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_keep_what_they_know_when_pickled(error: AioStorageError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize("error", ALL)
def test_a_copy_says_the_same(error: type[AioStorageError]) -> None:
    """Also of an error that is one of the operating system's, which Python makes differently."""
    original = error()
    copied = copy_of(original)
    assert copied is not original
    assert (type(copied), str(copied), copied.args) == (error, str(original), original.args)
    assert vars(copied) == vars(original)


def test_messages_say_what_is_known() -> None:
    duplicate = DuplicateKeyError(collection="c", fields=("a", "b"), values=(1, None))
    assert str(duplicate) == "c already has a record with a=1, b=None"
    assert str(DuplicateKeyError(collection="c")) == "c already has a record with that key"
    assert str(UnknownStorageType("x", ("a", "b"))) == "unknown storage type 'x'; known are: a, b"
    assert UndefinedCall is MissingArguments


def test_also_errors_of_python() -> None:
    for error, base in (
        (MismatchedIds, AssertionError),
        (EncodingError, ValueError),
        (errors.UnsupportedQuery, ValueError),
        (errors.InvalidResult, ValueError),
        (LockAcquisitionTimeout, TimeoutError),
        (OperationTimeout, TimeoutError),
    ):
        assert issubclass(error, base)


def test_the_tree_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    for error in ALL:
        assert error.__name__ in errors.__doc__
    assert set(errors.__all__) == {e.__name__ for e in ALL} | {"UndefinedCall"}


def test_ids_are_compared_without_assertions_too() -> None:
    code = (
        "from types import SimpleNamespace as N\n"
        "from aiostorage import get_uid\n"
        "try: get_uid(N(id=1), 2)\n"
        "except AssertionError: print('raised')"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "raised\n"


# ----------------------------------------------------------------------------- from SQLite

# authorizer's answers and limits have names like codes
NO_CODES = (
    "SQLITE_DENY",
    "SQLITE_IGNORE",
    "SQLITE_LIMIT",
    "SQLITE_OK",
    "SQLITE_ROW",
    "SQLITE_DONE",
)
CODES = {
    name: code
    for name in dir(sqlite3)
    if name.startswith("SQLITE_")
    and isinstance(code := getattr(sqlite3, name), int)
    and not name.startswith(NO_CODES)
    and not name.startswith(("SQLITE_CREATE", "SQLITE_DROP", "SQLITE_ALTER"))
}
TEMPORARY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_INTERRUPT", "SQLITE_PROTOCOL")
DENIED = ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN", "SQLITE_AUTH")
FOREIGN = ("SQLITE_NOTADB", "SQLITE_CORRUPT")


def test_every_code_of_sqlite_is_mapped() -> None:
    for name, code in CODES.items():
        error = sqlite3.OperationalError("what happened")
        error.sqlite_errorcode = code
        ours = translated(error)
        too_large = code & 0xFF == sqlite3.SQLITE_TOOBIG
        assert isinstance(ours, EncodingError if too_large else BackendError), name
        assert "what happened" in str(ours), name
        primary = {CODES[n] for n in CODES if CODES[n] == code & 0xFF}
        for names, kind in (
            (TEMPORARY, TemporaryBackendError),
            (DENIED, PermissionDenied),
            (FOREIGN, NotADatabaseError),
        ):
            codes = {getattr(sqlite3, n) for n in names}
            assert isinstance(ours, kind) is bool(primary & codes), name


@pytest.mark.parametrize(
    "kind",
    [e for e in vars(sqlite3).values() if inspect.isclass(e) and issubclass(e, sqlite3.Error)],
)
def test_every_error_class_of_sqlite_is_mapped(kind: type[sqlite3.Error]) -> None:
    assert isinstance(translated(kind("x")), BackendError)


def test_other_errors() -> None:
    assert isinstance(translated(PermissionError("x")), PermissionDenied)
    assert type(translated(FileNotFoundError("x"))) is BackendError
    assert isinstance(translated(ValueError("Connection closed")), StorageClosedError)
    for error in (ValueError("else"), KeyError("x"), LockLost()):
        assert translated(error) is error
