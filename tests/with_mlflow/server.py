"""A real ``mlflow server`` on SQLite for tests; run as a script, it guards one.

The server and its processes have a group of their own. It ends when it is told to, and when the
process that it is for has ended, whatever ended that.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from functools import cached_property
from pathlib import Path

START_SECONDS = 100.0
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its eight processes are of no use here
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class MlflowServer:
    """A server in a directory, where any process of the tests can start and kill it.

    Parameters
    ----------
    directory
        For its database, its log and notes about it.
    owner
        The process that it ends with.
    """

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory = directory
        self.owner = owner

    @cached_property
    def port(self) -> int:
        """The port, which stays."""
        note = self.directory / "port"
        if not note.exists():
            with socket.create_server(("127.0.0.1", 0)) as free:
                note.write_text(str(free.getsockname()[1]))
        return int(note.read_text())

    @cached_property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or raise; return when it answers."""
        command = [sys.executable, __file__, str(self.owner), sys.executable, "-m", "mlflow"]
        command += ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db"]
        command += ["--default-artifact-root", f"file://{self.directory}/artifacts"]
        log = self.directory / "server.log"
        with log.open("ab") as output:
            guard = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,
            )
        (self.directory / "group").write_text(str(guard.pid))
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if guard.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"mlflow server does not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        guard.returncode = 0  # it is not for this object to wait for it

    def answers(self) -> bool:
        """Say whether the server is healthy."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        """End it at once, as when its machine loses power."""
        note = self.directory / "group"
        if note.exists():
            with suppress(ProcessLookupError):
                os.killpg(int(note.read_text()), signal.SIGKILL)
            note.unlink()
        end = time.monotonic() + 10
        while self.answers() and time.monotonic() < end:
            time.sleep(0.01)


def guard(owner: int, command: list[str]) -> None:
    """Run a command until it ends, or until the owner has ended; then end the whole group."""
    server = subprocess.Popen(command)
    while server.poll() is None:
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            break
        time.sleep(0.3)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2:])
