"""Programs of the documentation as processes, and batch scripts as SLURM would run them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from tools.docs_code import ROOT

__all__ = ["EXAMPLES", "TRIALS", "BatchJob", "Program", "Starter", "programs"]

T = TypeVar("T")

EXAMPLES = ROOT / "docs" / "examples"
DEADLINE = 100.0
TRIALS = 8
"""How many there are in `search.py`, in the place of 24."""


OBJECTIVE = """
import os, pathlib, signal

def evaluate(x):
    notes = pathlib.Path(os.environ["NOTES"])
    (notes / f"{x}-{os.getpid()}").touch()
    if str(x) in os.environ.get("HANG", "").split() or "always" in os.environ.get("HANG", ""):
        signal.pause()
    if str(x) in os.environ.get("FAIL", "").split():
        raise ValueError("not here")
    return {"objective": x**2, "process": os.getpid()}
"""
"""An objective that notes where it is called, and hangs or fails at some places."""


class Program:
    """A process, and what it prints; it leads a process group of its own."""

    def __init__(
        self, command: list[object], directory: Path, output: Path, environment: dict[str, str]
    ) -> None:
        self._output = output
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """All that it has printed."""
        return self._output.read_text()

    def waited(self, what: Callable[[], T | None]) -> T:
        """Wait for something to be so; the process has to run until then."""
        until = time.monotonic() + DEADLINE
        while not (found := what()):
            assert self._process.poll() is None, self.printed
            assert time.monotonic() < until, self.printed
            time.sleep(0.01)
        return found

    def terminate(self) -> int:
        """Send SIGTERM to the process alone, and return its exit code."""
        self._process.terminate()
        return self._process.wait(DEADLINE)

    def kill(self) -> None:
        """Kill it and its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def succeed(self) -> str:
        """Wait for its end; return what it printed."""
        assert self._process.wait(DEADLINE) == 0, self.printed
        return self.printed


class BatchJob:
    """A job of an array: a directory with all that the script needs, and a `scontrol`.

    It may run several times, as after it was requeued.
    """

    def __init__(self, start: Starter, script: str, number: int, **environment: str) -> None:
        self._start = start
        self._script = script
        self._directory = start.directory / f"job-{number}"
        for name in ("notes", "bin", "disk"):
            (self._directory / name).mkdir(parents=True)
        for file in [*EXAMPLES.glob("hpc/*"), EXAMPLES / "http_reservations" / "worker.py"]:
            if file.is_file():
                shutil.copy(file, self._directory)
        (self._directory / "objective.py").write_text(OBJECTIVE)
        search = self._directory / "search.py"
        search.write_text(search.read_text().replace("range(24)", f"range({TRIALS})"))
        self.add_program("scontrol", f'#!/bin/sh\necho "$@" >>{self._directory}/requeued\n')
        self._environment = {
            "PATH": f"{self._directory / 'bin'}:{start.path}",
            "NOTES": str(self._directory / "notes"),
            "TMPDIR": str(self._directory / "disk"),
            "SLURM_SUBMIT_DIR": str(start.directory),
            "SLURM_JOB_ID": f"{1000 + number}",
            "SLURM_ARRAY_TASK_ID": str(number),
            **environment,
        }

    def add_program(self, name: str, text: str) -> None:
        """Put a script on the job's PATH."""
        program = self._directory / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def run(self, *arguments: object, **environment: str) -> Program:
        """Run the script, as the batch shell."""
        command: list[object] = ["bash", self._script, *arguments]
        return self._start(command, self._directory, **self._environment, **environment)

    @property
    def evaluated(self) -> list[tuple[str, int]]:
        """At which x the objective was called, and in which process."""
        notes = [note.name.partition("-") for note in (self._directory / "notes").iterdir()]
        return [(x, int(pid)) for x, _, pid in notes]

    @property
    def requeued(self) -> list[str]:
        """What `scontrol` was asked for."""
        file = self._directory / "requeued"
        return file.read_text().splitlines() if file.exists() else []


class Starter:
    """Starts programs, which end with it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._stack = stack
        self._count = 0

    def __call__(
        self, command: list[object], directory: Path | None = None, **environment: str
    ) -> Program:
        """Start a program."""
        self._count += 1
        output = self.directory / f"printed-{self._count}"
        program = Program(command, directory or self.directory, output, environment)
        self._stack.callback(program.kill)
        return program


@contextmanager
def programs(directory: Path) -> Iterator[Starter]:
    """Give a starter whose programs end with the block."""
    with ExitStack() as stack:
        yield Starter(directory, stack)
