"""Python processes that need not import first: forks of one that has imported everything.

Such a process is one of its own in every respect that a test here is about: it has its own session,
directory, environment, streams and signals, opens its own connections, and ends as an interpreter
ends. What it saves is a second of imports, of which the tests start hundreds.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

__all__ = ["Preloaded", "Process", "preloaded"]

MAIN = Path(__file__).with_name("preloaded_main.py")


class Process:
    """A process, with as much of `subprocess.Popen` as the tests use.

    Parameters
    ----------
    pid
        Its number; it leads a session of its own.
    status
        A pipe that gives its wait status when it has ended.
    stdin, stdout, stderr
        The other ends of its streams, where they are pipes.
    """

    def __init__(
        self,
        pid: int,
        status: int,
        stdin: TextIO | None,
        stdout: TextIO | None,
        stderr: TextIO | None,
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._status = status
        self._readers: list[_Reader] | None = None

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, negative for the signal that killed it."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            data = os.read(self._status, 4)
            assert data, f"what process {self.pid} was forked from has ended"
            os.close(self._status)
            self.returncode = os.waitstatus_to_exitcode(struct.unpack("i", data)[0])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read its streams to their ends, and wait for its own; return what it printed."""
        end = None if timeout is None else time.monotonic() + timeout
        if self._readers is None:
            if self.stdin is not None:
                self.stdin.close()
            self._readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        for reader in self._readers:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        out, err = (reader.text for reader in self._readers)
        return out, err


class _Reader(threading.Thread):
    """Reads a stream to its end, and closes it."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self._stream = stream
        self.start()

    def run(self) -> None:
        if self._stream is not None:
            self.text = self._stream.read()
            self._stream.close()


class Preloaded:
    """A Python that has imported modules, and forks processes.

    Parameters
    ----------
    flags
        Options of the interpreter, such as ``-W error``.
    modules
        What it imports.
    frozen
        Whether the garbage collector passes over what was imported, which is what most forks would
        spend their time on. Cycles through a global of these modules are not collected in the end
        then, which may hide what an object there would have said.
    """

    def __init__(self, flags: tuple[str, ...], modules: tuple[str, ...], *, frozen: bool) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        how = "frozen" if frozen else "as they are"
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, *flags, str(MAIN), str(theirs.fileno()), how, *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._one_at_a_time = threading.Lock()

    def start(
        self,
        script: str | Path,
        *arguments: str,
        directory: Path,
        environment: Mapping[str, str],
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Process:
        """Start a process.

        Parameters
        ----------
        script
            A file, or code as behind ``python -c``.
        *arguments
            What it finds in ``sys.argv`` behind its own name.
        directory
            Where it works.
        environment
            Its environment.
        stdin
            ``PIPE`` or ``DEVNULL``.
        stderr
            ``PIPE``, ``STDOUT``, or a descriptor.
        """
        file = script if isinstance(script, Path) else None
        request = {
            "argv": ["-c" if file is None else str(file), *arguments],
            "code": script if file is None else file.read_text(encoding="utf-8"),
            "directory": str(directory),
            "environment": dict(environment),
            "file": None if file is None else str(file),
        }
        pipes: list[TextIO | None] = [None, None, None]
        theirs: list[int] = []
        if stdin == subprocess.PIPE:
            read, write = os.pipe()
            pipes[0] = os.fdopen(write, "w", encoding="utf-8")
            theirs.append(read)
        else:
            theirs.append(os.open(os.devnull, os.O_RDONLY))
        for number, target in enumerate((subprocess.PIPE, stderr), 1):
            if target == subprocess.PIPE:
                read, write = os.pipe()
                pipes[number] = os.fdopen(read, encoding="utf-8")
                theirs.append(write)
            else:
                theirs.append(os.dup(theirs[1] if target == subprocess.STDOUT else target))
        status, write = os.pipe()
        theirs.append(write)
        with self._one_at_a_time:
            socket.send_fds(self._requests, [json.dumps(request).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        data = os.read(status, 4)
        assert data, "the preloaded Python has ended"
        return Process(struct.unpack("i", data)[0], status, *pipes)

    def close(self) -> None:
        """End it, and the forks that are left."""
        self._requests.close()
        self._server.wait()


@functools.cache
def preloaded(flags: tuple[str, ...] = (), *modules: str, frozen: bool = True) -> Preloaded:
    """Return the one preloaded Python of this process with these flags and modules."""
    made = Preloaded(flags, modules, frozen=frozen)
    atexit.register(made.close)
    return made
