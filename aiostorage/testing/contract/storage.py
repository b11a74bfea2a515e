"""The contract of a storage, as tests: subclass `StorageContract` for your engine."""

from __future__ import annotations

from aiostorage.testing.contract.argument_laws import KeyLaws
from aiostorage.testing.contract.change_feed_laws import ChangeFeedLaws
from aiostorage.testing.contract.experiment_laws import BenchmarkLaws, ExperimentLaws
from aiostorage.testing.contract.fencing_laws import FencingLaws
from aiostorage.testing.contract.fixtures import StorageFixtures
from aiostorage.testing.contract.lifetime_laws import StorageLifetimeLaws
from aiostorage.testing.contract.limit_laws import LimitLaws
from aiostorage.testing.contract.lock_laws import LockLaws
from aiostorage.testing.contract.lock_loss_laws import LockLossLaws
from aiostorage.testing.contract.lock_record_laws import LockRecordLaws
from aiostorage.testing.contract.lock_state_laws import LockStateLaws
from aiostorage.testing.contract.nan_laws import NanLaws
from aiostorage.testing.contract.outcome_laws import ResultLaws, StatusLaws
from aiostorage.testing.contract.query_laws import QueryLaws
from aiostorage.testing.contract.readable_laws import ListPartLaws
from aiostorage.testing.contract.recovery_laws import FreshStartLaws, RecoveryLaws
from aiostorage.testing.contract.reservation_laws import ReservationLaws
from aiostorage.testing.contract.resumption_laws import ResumptionLaws
from aiostorage.testing.contract.summary_laws import SummaryLaws
from aiostorage.testing.contract.trial_laws import IterationLaws, TrialLaws
from aiostorage.testing.contract.trial_query_laws import TrialQueryLaws
from aiostorage.testing.contract.value_laws import CopyLaws, ValueLaws
from aiostorage.testing.contract.worker_laws import WorkerLaws
from aiostorage.testing.contract.worker_loss_laws import WorkerLossLaws
from aiostorage.testing.contract.worker_outcome_laws import WorkerOutcomeLaws

__all__ = ["StorageContract"]


class StorageContract(
    KeyLaws,
    ExperimentLaws,
    BenchmarkLaws,
    SummaryLaws,
    TrialLaws,
    IterationLaws,
    ResultLaws,
    StatusLaws,
    ListPartLaws,
    NanLaws,
    ReservationLaws,
    LimitLaws,
    FencingLaws,
    ResumptionLaws,
    ChangeFeedLaws,
    RecoveryLaws,
    FreshStartLaws,
    WorkerLaws,
    WorkerOutcomeLaws,
    WorkerLossLaws,
    LockLaws,
    LockStateLaws,
    LockLossLaws,
    LockRecordLaws,
    ValueLaws,
    CopyLaws,
    QueryLaws,
    TrialQueryLaws,
    StorageLifetimeLaws,
    StorageFixtures,
):
    """Every law of `aiostorage.protocols.AsyncStorageProtocol` that depends on the engine.

    Arguments that are checked before an engine sees them are the subject of `ApiContract`.
    Runs under AnyIO's pytest plugin, on asyncio.

    Attributes
    ----------
    shared : bool
        Whether `open_storage`, called again, gives a second storage on the same data.
    shared_by_copies : bool
        Whether a pickled copy of a storage is on the same data, too.
    threads : bool
        Whether two of them may be used in two threads at the same time.
    cancels : bool
        Whether a cancelled call ends at once, and a body can be cancelled; a thread cannot.
    logs : bool
        Whether the engine logs the changes of trials: `aiostorage.protocols.LoggingDriver`.
    resolution : timedelta
        How finely datetimes are kept.
    secrets : tuple of str
        Texts that must not be shown, such as the password that `open_storage` uses.
    clock : FakeClock or None
        The clock by which the store goes, if that is a new one for each test. Then leases end when
        a test advances it; with None the tests wait for their end.
    large_state : int
        How many bytes make a large state; by default more than one document of MongoDB can have.

    Examples
    --------
    >>> class TestMine(StorageContract):
    ...     async def open_storage(self, tmp_path, **settings):
    ...         storage = Storage(MyDriver(tmp_path), **settings)
    ...         await storage.open()
    ...         return storage
    """
