"""Storage for experiments that many async or distributed workers share.

>>> async with open_storage("sqlite:///tune.db") as storage:
...     experiment = await storage.create_experiment({"name": "tune"})
...     async with storage.acquire_algorithm_lock(experiment) as algorithm:
...         algorithm.set_state({"seed": 1})
"""

import typing as _typing
from importlib import import_module as _import_module

from aiostorage._core.driver_calls.retry import RetryPolicy
from aiostorage._core.ids import get_trial_uid_and_exp, get_uid
from aiostorage._core.storage import Storage
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    CursorExpired,
    DuplicateKeyError,
    EncodingError,
    EventLoopError,
    FailedUpdate,
    IncompleteCopy,
    InvalidArgument,
    InvalidReservation,
    InvalidResult,
    LockAcquisitionTimeout,
    LockError,
    LockLost,
    MismatchedIds,
    MissingArguments,
    MissingObjective,
    NotADatabaseError,
    OperationTimeout,
    PermissionDenied,
    RunningLoopError,
    SchemaVersionError,
    StorageClosedError,
    TemporaryBackendError,
    TrackerError,
    TrackerTimeout,
    TrackerUnavailable,
    TrialLost,
    UndefinedCall,
    UnknownExperiment,
    UnknownStorageType,
    UnsupportedQuery,
)
from aiostorage.experiment import Experiment
from aiostorage.factory import (
    StorageFactory,
    open_storage,
    setup_storage,
    storage_factory,
    upgrade_storage,
)
from aiostorage.protocols import AsyncStorageProtocol, Driver
from aiostorage.reservation import Reservation
from aiostorage.summary import ExperimentSummary, LockSummary
from aiostorage.trial import Param, Result, Trial, TrialStatus
from aiostorage.trial_change import TrialChange, TrialChanges
from aiostorage.upgrades import UpgradeReport

if _typing.TYPE_CHECKING:
    from aiostorage.readonly import ReadOnlyStorage
    from aiostorage.sync.facade import SyncStorage
    from aiostorage.work import Worker, WorkerEvent, WorkerReport, run_worker

__version__ = "0.2.0.dev0"

__all__ = [
    "AioStorageError",
    "AsyncStorageProtocol",
    "BackendError",
    "ConfigurationError",
    "CursorExpired",
    "Driver",
    "DuplicateKeyError",
    "EncodingError",
    "EventLoopError",
    "Experiment",
    "ExperimentSummary",
    "FailedUpdate",
    "IncompleteCopy",
    "InvalidArgument",
    "InvalidReservation",
    "InvalidResult",
    "LockAcquisitionTimeout",
    "LockError",
    "LockLost",
    "LockSummary",
    "LockedAlgorithmState",
    "MismatchedIds",
    "MissingArguments",
    "MissingObjective",
    "NotADatabaseError",
    "OperationTimeout",
    "Param",
    "PermissionDenied",
    "ReadOnlyStorage",
    "Reservation",
    "Result",
    "RetryPolicy",
    "RunningLoopError",
    "SchemaVersionError",
    "Storage",
    "StorageClosedError",
    "StorageFactory",
    "SyncStorage",
    "TemporaryBackendError",
    "TrackerError",
    "TrackerTimeout",
    "TrackerUnavailable",
    "Trial",
    "TrialChange",
    "TrialChanges",
    "TrialLost",
    "TrialStatus",
    "UndefinedCall",
    "UnknownExperiment",
    "UnknownStorageType",
    "UnsupportedQuery",
    "UpgradeReport",
    "Worker",
    "WorkerEvent",
    "WorkerReport",
    "get_trial_uid_and_exp",
    "get_uid",
    "open_storage",
    "run_worker",
    "setup_storage",
    "storage_factory",
    "upgrade_storage",
]

_LATER = {
    "ReadOnlyStorage": "aiostorage.readonly",
    "SyncStorage": "aiostorage.sync.facade",
    **dict.fromkeys(("Worker", "WorkerEvent", "WorkerReport", "run_worker"), "aiostorage.work"),
}
"""Names that are imported when they are asked for, and where from: a process needs few of them."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        value: object = getattr(_import_module(_LATER[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
