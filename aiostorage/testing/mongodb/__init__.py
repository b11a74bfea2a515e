"""MongoDB servers for tests: started, broken and stopped by the tests themselves."""

from aiostorage.testing.mongodb.deployments import Deployment
from aiostorage.testing.mongodb.mongod import (
    FailPoint,
    Mongod,
    MongodError,
    MongodMissing,
    TlsFiles,
    find_mongod,
)
from aiostorage.testing.mongodb.replica_set import ReplicaSet

__all__ = [
    "Deployment",
    "FailPoint",
    "Mongod",
    "MongodError",
    "MongodMissing",
    "ReplicaSet",
    "TlsFiles",
    "find_mongod",
]
