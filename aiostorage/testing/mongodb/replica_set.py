"""A replica set of MongoDB servers that belongs to the tests, for elections on demand."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from aiostorage.testing.mongodb.mongod import Mongod, MongodError, TlsFiles
from aiostorage.testing.mongodb.mongod_command import end_of_log
from aiostorage.testing.mongodb.urls import make_url, url_for_database

__all__ = ["ReplicaSet"]

Hello = tuple[Mongod, dict[str, Any]]
"""A member, and its answer to ``hello``."""


class ReplicaSet:
    """Several MongoDB servers on 127.0.0.1 that elect a primary within about a second.

    As a context manager it starts on entry and stops on exit. It ends with the process that started
    it at the latest.

    Parameters
    ----------
    directory
        Where the members keep their data and their logs, each in a folder of its own.
    size
        The number of members.
    name
        The name of the replica set.
    election_timeout
        Seconds without a primary after which the others elect one; MongoDB's own default of ten
        is too long for tests.
    heartbeat
        Seconds between two heartbeats of a member.
    binary, login, tls, test_commands
        As for `Mongod`; the same for all members.
    timeout
        Seconds that each method may take.
    lifeline
        As for `Mongod`.

    Attributes
    ----------
    members : tuple of Mongod
        The servers, running or not.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        name: str = "rs0",
        election_timeout: float = 1.0,
        heartbeat: float = 0.25,
        binary: Path | None = None,
        login: tuple[str, str] | None = None,
        tls: TlsFiles | None = None,
        test_commands: bool = False,
        timeout: float = 60.0,
        lifeline: Path | None = None,
    ) -> None:
        self.name = name
        self.login = login
        self.timeout = timeout
        self._settings = {
            "electionTimeoutMillis": round(election_timeout * 1000),
            "heartbeatIntervalMillis": round(heartbeat * 1000),
            # a secondary that tries another one before that has any data avoids it for a minute:
            # if they are left alone meanwhile, nothing gets a majority that long
            "chainingAllowed": False,
        }
        self._tls = tls
        key = None if login is None else base64.b64encode(secrets.token_bytes(96)).decode()
        self.members: tuple[Mongod, ...] = tuple(
            Mongod(
                directory / f"member{number}",
                binary=binary,
                replica_set=name,
                login=login,
                key=key,
                tls=tls,
                test_commands=test_commands,
                timeout=timeout,
                lifeline=lifeline,
            )
            for number in range(size)
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {', '.join(map(repr, self.members))})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its URL with all members, and with the login and the certificate that clients need."""
        options = {"replicaSet": self.name}
        if self._tls is not None:
            options |= {"tls": "true", "tlsCAFile": str(self._tls.ca)}
        addresses = [member.address for member in self.members]
        return make_url(addresses, login=self.login, options=options)

    def url_for(self, database: str) -> str:
        """Return its URL with a database in the path."""
        return url_for_database(self.url, database)

    def start(self) -> None:
        """Start all members that do not run, and wait until they all serve; also after `stop`.

        Raises
        ------
        MongodMissing
            There is no server on this machine.
        MongodError
            A member did not start, or they did not agree in time.
        """
        try:
            for member in self.members:
                member.spawn()
            for member in self.members:
                member.wait_for_start()
            if all(member.new for member in self.members):
                self._initiate()
            self.wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all members at once; with SIGKILL, for a member that leaves in good order is slow."""
        for member in self.members:
            member.kill()

    def primary(self) -> Mongod:
        """Return the primary member; wait for one if there is none.

        Raises
        ------
        MongodError
            There was none in time.
        """
        with self._watched() as look:
            return self._wait("a primary", lambda: _primary_of(look()))

    def secondaries(self) -> list[Mongod]:
        """Return the members that are secondaries at the moment."""
        with self._watched() as look:
            return [member for member, hello in look() if hello.get("secondary")]

    def kill_primary(self) -> Mongod:
        """Kill the primary with SIGKILL and return it, without waiting for the next one."""
        member = self.primary()
        member.kill()
        return member

    def step_down(self, seconds: int = 10) -> Mongod:
        """Ask the primary to step down, and return it.

        It is not elected again for the given time, of at least two seconds. Where it is the only
        member, there is no primary during that time.

        Raises
        ------
        MongodError
            There was no primary in time.
        pymongo.errors.OperationFailure
            No other member was ready to take over.
        """
        member = self.primary()
        alone = len(self.members) == 1
        with member.client() as client:
            client.admin.command(
                "replSetStepDown",
                seconds,
                secondaryCatchUpPeriodSecs=0 if alone else seconds - 1,
                force=alone,
            )
        return member

    def restart(self, member: Mongod) -> None:
        """Start a member that was killed, or kill it first; wait until it serves again.

        Raises
        ------
        MongodError
            It did not start, or it was not taken up in time.
        """
        member.restart()
        self._wait_for(member)

    def heal(self) -> None:
        """Start and resume all members that do not run, and wait until all of them serve.

        Raises
        ------
        MongodError
            A member did not start, or they did not agree in time.
        """
        for member in self.members:
            member.heal()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Wait until there is a primary, and all other members that run are secondaries.

        Raises
        ------
        MongodError
            That was not so in time.
        """
        self._wait_for(*(member for member in self.members if member.running))

    def _wait_for(self, *members: Mongod) -> None:
        """Wait until these members serve, and one of all is primary."""
        with self._watched() as look:

            def healthy() -> Mongod | None:
                seen = look()
                serving = {id(member) for member, hello in seen if _serves(hello)}
                return _primary_of(seen) if serving >= {id(each) for each in members} else None

            self._wait("all members", healthy)

    def _initiate(self) -> None:
        members = [
            {"_id": number, "host": member.address} for number, member in enumerate(self.members)
        ]
        config = {"_id": self.name, "members": members, "settings": self._settings}
        with self.members[0].client(login=False) as client:
            client.admin.command("replSetInitiate", config)
        self.primary().create_user()  # one creates it for all
        for member in self.members:
            member.new = False

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], list[Hello]]]:
        """Give a function that asks all members that can answer for their state."""
        from pymongo.errors import PyMongoError  # noqa: PLC0415  only for those who ask

        limits = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")
        brief = dict.fromkeys(limits, 2000)
        with ExitStack() as stack:
            clients = [
                # a new user may not be known everywhere yet, and `hello` does not need one
                (member, stack.enter_context(member.client(login=False, **brief)))
                for member in self.members
                if member.running and not member.paused
            ]

            def look() -> list[Hello]:
                answers = []
                for member, client in clients:
                    if member.running and not member.paused:
                        try:
                            answers.append((member, client.admin.command("hello")))
                        except PyMongoError:
                            continue  # it is starting, or has just ended
                return answers

            yield look

    def _wait(self, what: str, found: Callable[[], Mongod | None]) -> Mongod:
        end = time.monotonic() + self.timeout
        while (member := found()) is None:
            if time.monotonic() > end:
                logs = "\n".join(f"{each!r}:\n{end_of_log(each.log)}" for each in self.members)
                raise MongodError(f"{what}: not there after {self.timeout} s\n{logs}")
            time.sleep(0.05)
        return member


def _serves(hello: dict[str, Any]) -> bool:
    return bool(hello.get("isWritablePrimary") or hello.get("secondary"))


def _primary_of(seen: Sequence[Hello]) -> Mongod | None:
    """Return the latest primary: one that was paused may still claim to be primary."""
    claims = [
        (hello.get("electionId"), member) for member, hello in seen if hello["isWritablePrimary"]
    ]
    return max(claims, key=lambda claim: str(claim[0]))[1] if claims else None
