"""Storage for experiments that many async or distributed workers share.

>>> async with open_storage("sqlite:///tune.db") as storage:
...     experiment = await storage.create_experiment({"name": "tune"})
...     async with storage.acquire_algorithm_lock(experiment) as algorithm:
...         algorithm.set_state({"seed": 1})
"""

from aiostorage._core.ids import get_trial_uid_and_exp, get_uid
from aiostorage._core.retry import RetryPolicy
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
from aiostorage.readonly import ReadOnlyStorage
from aiostorage.reservation import Reservation
from aiostorage.sync.facade import SyncStorage
from aiostorage.trial import Param, Result, Trial, TrialStatus
from aiostorage.trial_change import TrialChange, TrialChanges
from aiostorage.upgrades import UpgradeReport

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
    "FailedUpdate",
    "InvalidArgument",
    "InvalidReservation",
    "InvalidResult",
    "LockAcquisitionTimeout",
    "LockError",
    "LockLost",
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
    "UnknownStorageType",
    "UnsupportedQuery",
    "UpgradeReport",
    "get_trial_uid_and_exp",
    "get_uid",
    "open_storage",
    "setup_storage",
    "storage_factory",
    "upgrade_storage",
]
