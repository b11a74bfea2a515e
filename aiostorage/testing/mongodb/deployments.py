"""The MongoDB deployments of a test session: started when they are asked for, each at most once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from aiostorage.testing.mongodb.mongod import Mongod, MongodError, MongodMissing
from aiostorage.testing.mongodb.replica_set import ReplicaSet
from aiostorage.testing.mongodb.urls import url_for_database

__all__ = ["Deployment", "Deployments", "GivenDeployment", "Kind"]

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
        """Where they are, with all that it takes to get in."""
        ...

    def url_for(self, database: str) -> str:
        """Answer the URL with a database in the path."""
        ...


@dataclass(frozen=True, slots=True)
class GivenDeployment:
    """A deployment that somebody else runs.

    Parameters
    ----------
    url
        Where it is.
    """

    url: str

    def url_for(self, database: str) -> str:
        """Answer the URL with a database in the path."""
        return url_for_database(self.url, database)


class Deployments:
    """All deployments that the tests of one session use.

    One that is given by its URL is used for what it is fit for; the others are started here, with
    `test_commands` and without a login. A replica set of three is always started here, for tests
    ask for it in order to kill its members.

    Parameters
    ----------
    directory
        Makes a directory for a deployment of the given name.
    given
        The URL of a deployment; by default that of the variable ``AIOSTORAGE_TEST_MONGODB``.
    """

    def __init__(self, directory: Callable[[str], Path], *, given: str | None = None) -> None:
        self._directory = directory
        self._given = given or os.environ.get(VARIABLE)
        self._given_kind: Kind | None = None
        self._started: dict[Kind, Mongod | ReplicaSet] = {}

    def get(self, kind: Kind) -> Deployment:
        """Answer a deployment of this kind; start it if it is the first time.

        Raises
        ------
        MongodMissing
            None is given, and there is none that could be started.
        MongodError
            The one that is given does not answer, or one does not start.
        """
        if find_spec("pymongo") is None:
            raise MongodMissing("no client of MongoDB: pip install motor")
        if self._given and kind in ("any", self._kind_of(self._given)):
            return GivenDeployment(self._given)
        return self._start("standalone" if kind == "any" else kind)

    def replica_set_of_3(self) -> ReplicaSet:
        """Answer the replica set with three members; see `get` for what it raises."""
        deployment = self.get("replica set of 3")
        assert isinstance(deployment, ReplicaSet)
        return deployment

    def drop(self, kind: Kind, database: str) -> None:
        """Drop a database; first bring back the servers that a test has killed or paused."""
        from pymongo import MongoClient  # noqa: PLC0415  only for those who ask

        deployment = self.get(kind)
        if isinstance(deployment, Mongod | ReplicaSet):
            deployment.heal()
        # no client is kept: its threads would be in the way of tests that fork
        with MongoClient[dict[str, Any]](deployment.url, socketTimeoutMS=60_000) as client:
            client.drop_database(database)

    def close(self) -> None:
        """End all servers that were started here, and remove their data; their logs stay."""
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
                # a router of a sharded cluster says so; it is fit for those who take anything
                self._given_kind = "any" if hello.get("msg") == "isdbgrid" else "standalone"
        return self._given_kind
