"""For authors of engines, and for tests of code that uses a storage.

`StorageContract` and `DriverContract` are test classes to subclass; the state machine, which needs
hypothesis, is in `aiostorage.testing.stateful`, fixtures are in `aiostorage.testing.plugin`.
`Mongod` and `ReplicaSet` start MongoDB servers and need `pymongo` for most of what they do.
"""

import pytest

# so that a failing test of a contract shows what it compared
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "_contract_experiments",
            "_contract_lifetime",
            "_contract_lock",
            "_contract_reservations",
            "_contract_tools",
            "_contract_trials",
            "_contract_values",
            "_driver_laws",
            "_driver_operations",
        )
    )
)

from aiostorage.testing._deployments import Deployment  # noqa: E402
from aiostorage.testing.cancellation import cancelled_at_every_await  # noqa: E402
from aiostorage.testing.contract import StorageContract  # noqa: E402
from aiostorage.testing.driver_contract import DriverContract  # noqa: E402
from aiostorage.testing.faults import FakeClock, FaultyDriver  # noqa: E402
from aiostorage.testing.mongod import (  # noqa: E402
    FailPoint,
    Mongod,
    MongodError,
    MongodMissing,
    TlsFiles,
    find_mongod,
)
from aiostorage.testing.replica_set import ReplicaSet  # noqa: E402

__all__ = [
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
    "TlsFiles",
    "cancelled_at_every_await",
    "find_mongod",
]
