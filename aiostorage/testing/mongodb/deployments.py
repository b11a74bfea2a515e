"""The MongoDB deployments of a test session: started when they are asked for, each at most once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from aiostorage.testing.mongodb.mongod import Mongod, MongodError, MongodMissing
from aiostorage.testing.mongodb.replica_set import ReplicaSet
from aiostorage.testing.mongodb.shared_servers import SharedServers
from aiostorage.testing.mongodb.urls import url_for_database

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

__all__ = ["Deployment", "Deployments", "GivenDeployment", "Kind", "unavailable"]

VARIABLE = "AIOSTORAGE_TEST_MONGODB"
"""The environment variable that may have the URL of a deployment."""

ANSWER_TIMEOUT = 10.0
"""Seconds after which one that is given and does not answer is an error."""

Kind = Literal["any", "standalone", "replica set", "replica set of 3"]
"""What a test can ask for: any deployment will do, or it has to be of a certain kind."""


class Deployment(Protocol):
    """One or several MongoDB servers, wherever they come from."""

    @property
    def url(self) -> str:
        """The URL, with the login and the certificate that clients need."""
        ...

    def url_for(self, database: str) -> str:
        """Return the URL with a database in the path."""
        ...


@dataclass(frozen=True, slots=True)
class GivenDeployment:
    """A deployment that another process has started.

    Parameters
    ----------
    url
        Where it is.
    """

    url: str

    def url_for(self, database: str) -> str:
        """Return the URL with a database in the path."""
        return url_for_database(self.url, database)


class Deployments:
    """All deployments that the tests of one session use.

    A deployment that is given by its URL is used wherever its kind fits. The others are started
    here, with `test_commands` and without a login. A replica set of three is always started here,
    because tests ask for it in order to kill its members.

    Parameters
    ----------
    directory
        Makes a directory for a deployment of the given name.
    given
        The URL of a deployment; by default that of the variable ``AIOSTORAGE_TEST_MONGODB``.
    shared
        The servers that this worker process has in common with others. Without it, it has its own.
    """

    def __init__(
        self,
        directory: Callable[[str], Path],
        *,
        given: str | None = None,
        shared: SharedServers | None = None,
    ) -> None:
        self._directory = directory
        self._given = given or os.environ.get(VARIABLE)
        self._given_kind: Kind | None = None
        self._shared = shared
        self._started: dict[Kind, Mongod | ReplicaSet] = {}
        self._reused: set[tuple[Kind, str]] = set()

    def get(self, kind: Kind) -> Deployment:
        """Return a deployment of this kind; start it when it is asked for the first time.

        Raises
        ------
        MongodMissing
            None is given, and there is no server on this machine.
        MongodError
            The given one does not answer, or one does not start.
        """
        if find_spec("pymongo") is None:
            raise MongodMissing("no client of MongoDB: pip install motor")
        if self._given and kind in ("any", self._kind_of(self._given)):
            return GivenDeployment(self._given)
        if kind == "any":
            kind = "standalone"
        if self._shared is not None and kind != "replica set of 3":
            return GivenDeployment(self._shared.url(kind))
        return self._start(kind)

    def replica_set_of_3(self) -> ReplicaSet:
        """Return the replica set with three members; see `get` for its errors."""
        deployment = self.get("replica set of 3")
        assert isinstance(deployment, ReplicaSet)
        return deployment

    def drop(self, kind: Kind, database: str) -> None:
        """Drop a database; first start or resume the servers that a test killed or paused."""
        with self._client(kind) as client:
            client.drop_database(database)

    def empty(self, kind: Kind, database: str) -> None:
        """Delete all documents of a database; its indexes and the version of its layout stay.

        It is dropped when the session ends.

        Raises
        ------
        AssertionError
            A document is there all the same: a test has left a writer behind.
        """
        from aiostorage.drivers.mongodb.indexes import META  # noqa: PLC0415  imports pymongo

        self._reused.add((kind, database))
        with self._client(kind) as client:
            there = client[database]
            used = _not_empty(there, set(there.list_collection_names()) - {META})
            for name in used:
                there[name].delete_many({})
            left = {name: there[name].find_one() for name in _not_empty(there, used)}
        assert not left, f"{database} is not empty: {left}"

    @contextmanager
    def _client(self, kind: Kind) -> Iterator[MongoClient[dict[str, Any]]]:
        from pymongo import MongoClient  # noqa: PLC0415  only for those who ask

        deployment = self.get(kind)
        if isinstance(deployment, Mongod | ReplicaSet):
            deployment.heal()
        # no client is kept: its threads would disturb tests that fork
        options: dict[str, Any] = {"socketTimeoutMS": 60_000, "serverMonitoringMode": "poll"}
        with MongoClient[dict[str, Any]](deployment.url, **options) as client:
            yield client

    def close(self) -> None:
        """End all servers that were started here, and remove their data; their logs stay."""
        for kind, database in self._reused:
            if isinstance(self.get(kind), GivenDeployment) and self._shared is None:
                self.drop(kind, database)
        for deployment in self._started.values():
            deployment.stop()
            servers = deployment.members if isinstance(deployment, ReplicaSet) else (deployment,)
            for server in servers:
                shutil.rmtree(server.directory / "data", ignore_errors=True)
        self._started.clear()

    def _start(self, kind: Kind) -> Mongod | ReplicaSet:
        if (started := self._started.get(kind)) is None:
            directory = self._directory(f"mongod-{kind}".replace(" ", "-"))
            if kind == "standalone":
                started = Mongod(directory, test_commands=True)
            else:
                size = 1 if kind == "replica set" else 3
                started = ReplicaSet(directory, size=size, test_commands=True)
            started.start()
            self._started[kind] = started
        return started

    def _kind_of(self, url: str) -> Kind:
        """Ask the deployment that is given what it is."""
        from pymongo import MongoClient  # noqa: PLC0415
        from pymongo.errors import PyMongoError  # noqa: PLC0415

        if self._given_kind is None:
            options: dict[str, Any] = {"serverSelectionTimeoutMS": ANSWER_TIMEOUT * 1000}
            try:
                with MongoClient[dict[str, Any]](url, **options) as client:
                    hello = client.admin.command("hello")
            except PyMongoError as error:
                raise MongodError(f"the server of {VARIABLE} does not answer: {error}") from error
            if "setName" in hello:
                self._given_kind = "replica set"
            else:
                # a router of a sharded cluster fits only tests that take any deployment
                self._given_kind = "any" if hello.get("msg") == "isdbgrid" else "standalone"
        return self._given_kind


def _not_empty(database: Database[dict[str, Any]], names: Collection[str]) -> list[str]:
    """Return which of these collections have a document; one command asks for all of them."""
    if not names:
        return []

    def named(name: str) -> list[dict[str, Any]]:
        return [{"$limit": 1}, {"$project": {"_id": {"$literal": name}}}]

    first, *others = names
    union = [{"$unionWith": {"coll": name, "pipeline": named(name)}} for name in others]
    return [found["_id"] for found in database[first].aggregate([*named(first), *union])]


def unavailable(error: MongodError) -> NoReturn:
    """Skip a test that needs a missing server; in CI, fail it."""
    import pytest  # noqa: PLC0415  benchmarks start servers, too

    ci = os.environ.get("CI", "").lower() in ("1", "true")
    if isinstance(error, MongodMissing) and not ci:
        pytest.skip(f"{error}; or set {VARIABLE} to the URL of one that runs")
    pytest.fail(str(error), pytrace=False)
