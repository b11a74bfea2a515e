"""MongoDB servers that all worker processes of a parallel test run share."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from aiostorage.testing.mongodb.mongod import Mongod
from aiostorage.testing.mongodb.replica_set import ReplicaSet

__all__ = ["ServerLifeline", "SharedKind", "SharedServers"]

SharedKind = Literal["standalone", "replica set"]
"""The deployments that are shared: no test may kill or pause them."""

LIFELINE: Final = "lifeline"
URL: Final = "url"

_started: Final[list[Mongod | ReplicaSet]] = []
"""Kept to the end of the process: `subprocess` warns of a running process that is forgotten."""

END_TIMEOUT: Final = 5.0
"""Seconds that the servers of a run get to end before their data is removed."""


class ServerLifeline:
    """A named pipe that the main process of a test run holds open; the servers end with it.

    Parameters
    ----------
    directory
        Where the workers of the run start their servers; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / LIFELINE
        os.mkfifo(path, 0o600)
        self._held = os.open(path, os.O_RDWR)

    def cut(self) -> None:
        """Let all servers end, and remove their data; their logs stay."""
        os.close(self._held)
        end = time.monotonic() + END_TIMEOUT
        for note in self._directory.glob(f"*/{URL}"):
            address = urlsplit(note.read_text()).netloc
            while _listens(address) and time.monotonic() < end:
                time.sleep(0.01)
        for data in self._directory.glob("*/**/data"):
            shutil.rmtree(data, ignore_errors=True)


class SharedServers:
    """The servers of a test run, as one of its workers sees them.

    The first worker that asks for a deployment starts it; the others wait for that and use it.

    Parameters
    ----------
    directory
        The directory of the `ServerLifeline`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def url(self, kind: SharedKind) -> str:
        """Return the URL of a deployment; start it if no worker has done so yet.

        Raises
        ------
        MongodError
            It does not start.
        """
        folder = self._directory / kind.replace(" ", "-")
        note = folder / URL
        with self._locked():
            if not note.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that died meanwhile
                folder.mkdir()
                started = self._start(kind, folder)
                note.write_text(started.url)
            return note.read_text()

    def _start(self, kind: SharedKind, folder: Path) -> Mongod | ReplicaSet:
        lifeline = self._directory / LIFELINE
        server: Mongod | ReplicaSet
        if kind == "standalone":
            server = Mongod(folder, test_commands=True, lifeline=lifeline)
        else:
            server = ReplicaSet(folder, size=1, test_commands=True, lifeline=lifeline)
        server.start()
        _started.append(server)
        return server

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False
