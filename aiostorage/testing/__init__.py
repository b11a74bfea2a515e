"""For authors of engines, and for tests of code that uses a storage.

`StorageContract`, `DriverContract`, `ApiContract` and `TrackerContract` are test classes to
subclass. The state machine, which needs hypothesis, is in `aiostorage.testing.contract.stateful`;
fixtures are in `aiostorage.testing.plugin`. `Mongod` and `ReplicaSet` start MongoDB servers and
need `pymongo` for most of their methods.
"""

import pytest

# so that a failing test of a contract shows the compared values
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "contract.driver_documents",
            "contract.driver_laws",
            "contract.driver_operation_laws",
            "contract.experiment_laws",
            "contract.fencing_laws",
            "contract.helpers",
            "contract.lifetime_laws",
            "contract.lock_laws",
            "contract.lock_loss_laws",
            "contract.lock_record_laws",
            "contract.lock_state_laws",
            "contract.outcome_laws",
            "contract.query_laws",
            "contract.refusal_laws",
            "contract.reservation_laws",
            "contract.resumption_laws",
            "contract.signature_laws",
            "contract.tracker",
            "contract.trial_laws",
            "contract.value_laws",
            "contract.worker_laws",
        )
    )
)

from aiostorage.testing.cancellation import cancelled_at_every_await  # noqa: E402
from aiostorage.testing.contract import (  # noqa: E402
    ApiContract,
    DriverContract,
    StorageContract,
    TrackerContract,
)
from aiostorage.testing.faults import FakeClock, FaultyDriver  # noqa: E402
from aiostorage.testing.mongodb import (  # noqa: E402
    Deployment,
    FailPoint,
    Mongod,
    MongodError,
    MongodMissing,
    ReplicaSet,
    TlsFiles,
    find_mongod,
)
from aiostorage.testing.state import StorageState  # noqa: E402

__all__ = [
    "ApiContract",
    "Deployment",
    "DriverContract",
    "FailPoint",
    "FakeClock",
    "FaultyDriver",
    "Mongod",
    "MongodError",
    "MongodMissing",
    "ReplicaSet",
    "StorageContract",
    "StorageState",
    "TlsFiles",
    "TrackerContract",
    "cancelled_at_every_await",
    "find_mongod",
]
