"""Server processes that do not outlive the tests, and ports for them."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["GuardedProcess", "free_port"]

PORTS = range(20_000, 32_000)
"""Below all from which systems choose the port of an outgoing connection.

A client that connects again and again to a server that was killed would else be given the server's
own port sooner or later: it would be connected with itself, and the server could not come back.
"""

GUARD = 'read -r _ || kill -s KILL "$1"'
"""A shell waits for a line from us. If the end of its input comes instead, we are no more."""


def free_port() -> int:
    """Answer a port of 127.0.0.1 on which nobody listens at the moment."""
    chance = random.SystemRandom()  # a seed that the tests set would lead them all to one port
    for _ in range(1000):
        port = chance.choice(PORTS)
        with socket.socket() as probe:
            # connections that have ended keep no server from listening
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {PORTS.start} to {PORTS.stop} is free")


class GuardedProcess:
    """A process that is killed when this one ends, however this one ends.

    It has a session of its own: Ctrl-C is for the tests, which then end it.

    Parameters
    ----------
    command
        What is run.
    log
        The file to which everything that it says is appended.
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  the command is the caller's business
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._owner = os.getpid()
        self._guard = subprocess.Popen(  # noqa: S603  a constant and a number
            ["/bin/sh", "-c", GUARD, "guard", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._guarded = True
        self._lock = threading.Lock()
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, be it paused."""
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """What the process ended with; None while it is there."""
        code = self._process.poll()
        if code is not None:
            self._release()
        return code

    def pause(self) -> None:
        """Stop the process where it stands."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        if os.getpid() != self._owner:
            return  # `os.fork` gave somebody a copy of this object, but not the process
        self._release()
        self._process.kill()
        self._process.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """End the process in good order, or at once if that takes too long."""
        if self.running:
            self._process.terminate()
            self.resume()  # what is paused does not hear anything else
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def _release(self) -> None:
        """Send the guard home, before the number of the process may become somebody else's."""
        if not self._guarded or os.getpid() != self._owner:
            return
        with self._lock:  # one thread may kill what another one looks at
            if self._guarded:
                with suppress(BrokenPipeError):  # somebody has killed the guard
                    self._guard.communicate(b"done\n")
                atexit.unregister(self.kill)
                self._guarded = False
