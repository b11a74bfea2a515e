"""Server processes that end with the tests, and ports for them."""

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
from typing import Any

__all__ = ["GuardedProcess", "free_port"]

PORTS = range(20_000, 32_000)
"""Below all ports that systems choose for outgoing connections.

A client that connects again and again to a killed server would otherwise get the server's own port
at some time: it would be connected to itself, and the server could not start again.
"""

GUARD = 'read -r _ || kill -s KILL "$1"'
"""A shell waits for a line. If the end of its input comes instead, it kills the process."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens at the moment."""
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

    It has a session of its own, so that Ctrl-C reaches only the tests, which then end it.

    Parameters
    ----------
    command
        The command to run.
    log
        The file to which all output of the command is appended.
    lifeline
        A named pipe. With it, the process is not killed when this one ends, but when no process
        has the pipe open for writing any more.
    """

    def __init__(
        self, command: Sequence[str | Path], log: Path, *, lifeline: Path | None = None
    ) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  the command is the caller's business
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._owner = os.getpid()
        self._lifeline = lifeline
        self._guard = self._start_guard()
        self._guarded = True
        self._lock = threading.Lock()
        atexit.register(self.kill if lifeline is None else self._leave)

    def _leave(self) -> None:
        """Let the process and its guard outlive this one; `subprocess` would warn of that."""
        for process in (self._process, self._guard):
            if process.poll() is None:
                process.returncode = 0

    def _start_guard(self) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", GUARD, "guard", str(self.pid)]
        options: dict[str, Any] = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "start_new_session": True,
        }
        if self._lifeline is None:
            return subprocess.Popen(command, stdin=subprocess.PIPE, **options)  # noqa: S603  a constant and a number
        # opened for both, for opening it for reading waits until there is a writer
        held = os.open(self._lifeline, os.O_RDWR)
        try:
            with self._lifeline.open("rb", buffering=0) as end:
                return subprocess.Popen(command, stdin=end, **options)  # noqa: S603  as above
        finally:
            os.close(held)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended; also if it is paused."""
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """The exit code of the process; None before its end."""
        code = self._process.poll()
        if code is not None:
            self._release()
        return code

    def pause(self) -> None:
        """Pause the process, with SIGSTOP; it has stopped on return."""
        self._process.send_signal(signal.SIGSTOP)
        with suppress(ChildProcessError):  # the child of another process, or gone
            # its threads run on for a moment, and might still answer
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Continue the process, with SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process at once, and wait until it has ended."""
        if os.getpid() != self._owner:
            return  # this object was copied by `os.fork`; the process belongs to the parent
        self._release()
        self._process.kill()
        self._process.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """End the process in good order, or kill it if that takes too long."""
        if self.running:
            self._process.terminate()
            self.resume()  # a paused process receives no other signal
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def _release(self) -> None:
        """End the guard before another process may get the number of the guarded one."""
        if not self._guarded or os.getpid() != self._owner:
            return
        with self._lock:  # one thread may kill the process while another one looks at it
            if self._guarded:
                with suppress(BrokenPipeError):  # the guard was killed
                    self._tell_guard()
                atexit.unregister(self.kill)
                self._guarded = False

    def _tell_guard(self) -> None:
        if self._lifeline is None:
            self._guard.communicate(b"done\n")
            return
        with self._lifeline.open("r+b", buffering=0) as pipe:
            pipe.write(b"done\n")
            self._guard.wait()
