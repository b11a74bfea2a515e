"""MongoDB servers that belong to the tests: one process each, which can be killed and paused.

Nothing here is asynchronous. A test that runs in an event loop calls a method in a thread, as in
``await anyio.to_thread.run_sync(server.restart)``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiostorage.testing.mongodb.fail_point import FailPoint, fail_point_on
from aiostorage.testing.mongodb.guarded_process import GuardedProcess, free_port
from aiostorage.testing.mongodb.mongod_command import (
    MongodCommand,
    MongodError,
    MongodMissing,
    TlsFiles,
    end_of_log,
    find_mongod,
)
from aiostorage.testing.mongodb.urls import make_url, url_for_database

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["FailPoint", "Mongod", "MongodError", "MongodMissing", "TlsFiles", "find_mongod"]

LIBRARY_IS_MISSING = 127
"""The exit code of a program that cannot be loaded."""


class Mongod:
    """One MongoDB server on a free port of 127.0.0.1.

    As a context manager it is started on entry and stopped on exit. It ends with the process that
    started it at the latest. What it stored is in its directory and stays there.

    Parameters
    ----------
    directory
        Where it keeps its data and its log; created if it is missing.
    binary
        The server to start; found by `find_mongod` without it.
    replica_set
        The name of the replica set of which it is to be a member; `ReplicaSet` takes care of that.
    login
        A name and a password. Then clients have to log in; the user may do everything.
    key
        The key by which the members of a replica set with a `login` recognise each other.
    tls
        Certificates. Then clients have to use TLS.
    test_commands
        Whether it has commands for tests, such as those of `fail_point`.
    timeout
        Seconds that each method may take.
    lifeline
        A named pipe. Then it does not end with the process that started it, but when no process has
        the pipe open for writing any more.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        replica_set: str | None = None,
        login: tuple[str, str] | None = None,
        key: str | None = None,
        tls: TlsFiles | None = None,
        test_commands: bool = False,
        timeout: float = 60.0,
        lifeline: Path | None = None,
    ) -> None:
        self.directory = directory
        self.login = login
        self.timeout = timeout
        self.new: bool = False  # whether the user is still to be created
        self._command = MongodCommand(
            directory, binary, replica_set, login is not None, key, tls, test_commands, lifeline
        )
        self._port: int | None = None
        self._process: GuardedProcess | None = None
        self._port_is_known = False
        self._ready = False
        self._paused = False
        self._log_start = 0

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"{type(self).__name__}({self.address if self._port else self.directory}, {state})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """The address it listens on, as ``host:port``; the same for its whole life.

        Raises
        ------
        MongodError
            It was never started.
        """
        if self._port is None:
            raise MongodError("this server was not started yet")
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Its URL, with the login and the certificate that clients need."""
        return make_url([self.address], login=self.login, options=self._options())

    def url_for(self, database: str) -> str:
        """Return its URL with a database in the path."""
        return url_for_database(self.url, database)

    @property
    def pid(self) -> int | None:
        """Its process id; None if it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether its process has not ended; also if it is paused."""
        return self._process is not None and self._process.running

    @property
    def paused(self) -> bool:
        """Whether it was paused by `pause`."""
        return self.running and self._paused

    @property
    def log(self) -> str:
        """Its log since its last start."""
        path = self.directory / "log"
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def start(self) -> None:
        """Start the process, and wait until it takes connections.

        The second start takes the same port and the same data as the first one. One that runs
        already is left alone.

        Raises
        ------
        MongodMissing
            There is no server on this machine, or it cannot be run there.
        MongodError
            It ended, or it did not take connections in time; the message has the end of its log.
        """
        self.spawn()
        try:
            self.wait_for_start()
            if self.new and self._command.replica_set is None:
                self.create_user()
                self.new = False
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process in good order, also if it is paused; at once if that takes too long."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End the process with SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Kill the process if it is there, and start it again on its port, with its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Pause the process with SIGSTOP: it keeps its connections, and answers nothing."""
        if self._process is not None:
            self._process.pause()
            self._paused = True

    def resume(self) -> None:
        """Continue a paused process, with SIGCONT."""
        if self._process is not None:
            self._process.resume()
            self._paused = False

    def heal(self) -> None:
        """Resume the process if it is paused, and start it if it does not run."""
        self.resume()
        self.start()

    def client(self, *, login: bool = True, **options: Any) -> MongoClient[dict[str, Any]]:
        """Return a client of this server alone, also where it is a member of a replica set.

        Parameters
        ----------
        login
            Whether the client logs in, where the server has a login.
        **options
            What `pymongo.MongoClient` takes beside a URL.
        """
        from pymongo import MongoClient  # noqa: PLC0415  only for those who ask

        url = make_url([self.address], login=self.login if login else None, options=self._options())
        limits = dict.fromkeys(("serverSelectionTimeoutMS", "socketTimeoutMS"), self.timeout * 1000)
        return MongoClient(url, **{"directConnection": True, **limits, **options})

    @contextmanager
    def fail_point(
        self,
        *commands: str,
        times: int | None = None,
        chance: float | None = None,
        name: str = "failCommand",
        **data: Any,
    ) -> Iterator[FailPoint]:
        """Make commands fail while a block runs; the server needs `test_commands`.

        Parameters
        ----------
        *commands
            Which commands, by MongoDB's names, such as ``insert`` or ``findAndModify``.
        times
            How many of them; all without it.
        chance
            The probability that one fails, instead of `times`.
        name
            A fail point other than the usual one, which takes no commands.
        **data
            How they fail, as options of ``configureFailPoint``: ``closeConnection=True``,
            ``errorCode=91``, ``errorLabels=["RetryableWriteError"]``, ``writeConcernError={...}``,
            ``blockConnection=True`` with ``blockTimeMS=500``, or
            ``appName`` of the clients that it is for.
        """
        mode: object = "alwaysOn"
        if times is not None:
            mode = {"times": times}
        elif chance is not None:
            mode = {"activationProbability": chance}
        if commands:
            data["failCommands"] = list(commands)
        pid = self.pid
        with fail_point_on(self.client, name, mode, data, lambda: self.pid == pid) as point:
            yield point

    def spawn(self) -> None:
        """Start the process without waiting for it."""
        if self.running:
            return
        if self._port is None:
            self._port = free_port()
        data = self.directory / "data"
        self.new = self.new or not data.exists()
        data.mkdir(parents=True, exist_ok=True)
        log = self.directory / "log"
        self._log_start = log.stat().st_size if log.exists() else 0
        self._paused = self._ready = False
        command = self._command.arguments(self._port, data)
        try:
            self._process = GuardedProcess(command, log, lifeline=self._command.lifeline)
        except OSError as error:
            raise MongodMissing(f"{command[0]} does not run here: {error}") from error

    def wait_for_start(self) -> None:
        """Wait until the process that was spawned takes connections; see `start`."""
        end = time.monotonic() + self.timeout
        while not self._ready:
            ended = None if self._process is None else self._process.returncode
            log = self.log  # its own log, for another server may have its port
            if ended is None and "waiting for connections" in log.lower():
                self._ready = self._port_is_known = True
            elif time.monotonic() > end:
                self.kill()
                raise MongodError(
                    f"mongod takes no connections after {self.timeout} s:\n{end_of_log(log)}"
                )
            elif ended is None:
                time.sleep(0.02)
            elif "already in use" in log:
                self._spawn_elsewhere()
            elif ended == LIBRARY_IS_MISSING:
                raise MongodMissing(f"mongod does not run here: {end_of_log(log)}")
            else:
                raise MongodError(
                    f"mongod does not start, but ends with {ended}:\n{end_of_log(log)}"
                )

    def create_user(self) -> None:
        """Create the user of `login` if it has one; that only works as long as there is none."""
        if self.login is None:
            return
        name, password = self.login
        with self.client(login=False) as client:
            client.admin.command("createUser", name, pwd=password, roles=["root"])

    def _spawn_elsewhere(self) -> None:
        """Start again after another process had the port: on a new one, if no client knows ours."""
        if self._port_is_known:
            time.sleep(0.2)
        else:
            self._port = free_port()
        self.spawn()

    def _options(self) -> dict[str, str]:
        tls = self._command.tls
        return {} if tls is None else {"tls": "true", "tlsCAFile": str(tls.ca)}
