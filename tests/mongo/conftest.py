"""The tests here get their MongoDB servers from `aiostorage.testing.plugin`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from aiostorage.testing import ReplicaSet, TlsFiles

CI = os.environ.get("CI", "").lower() in ("1", "true")

if find_spec("pymongo") is None and not CI:
    collect_ignore_glob = ["test_*.py"]  # they cannot even be imported


# PyMongo lets the garbage collector close the sockets that it was about to connect
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

LIBRARIES = ["motor", pytest.param("pymongo", marks=UNCLOSED)]


@pytest.fixture(scope="module")
def sockets_collected() -> Iterator[None]:
    """Have the sockets collected here, and not where that disturbs another module."""
    yield
    gc.collect()


PAIRS = [
    pytest.param(("motor", "mongodb_standalone"), id="motor-standalone"),
    pytest.param(("pymongo", "mongodb_replica_set"), id="pymongo-replica set", marks=UNCLOSED),
]
"""Each library and each kind of deployment once, for what does not depend on both together."""


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name a client library."""
    yield request.param
    if request.param == "pymongo":
        gc.collect()


@pytest.fixture(scope="module")
def replica_set_of_3(mongodb_replica_set_3: ReplicaSet) -> Iterator[ReplicaSet]:
    """Give the replica set of three members, which runs for the tests of a few modules alone.

    Its members ask each other how they are four times a second, also when no test uses them.
    """
    mongodb_replica_set_3.start()
    yield mongodb_replica_set_3
    mongodb_replica_set_3.stop()


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Make certificates for a server on 127.0.0.1, by an authority of our own."""
    import trustme

    directory = tmp_path_factory.mktemp("tls")
    files = TlsFiles(certificate=directory / "server.pem", ca=directory / "ca.pem")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(files.certificate))
    authority.cert_pem.write_to_path(str(files.ca))
    return files
