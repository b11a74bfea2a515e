"""The command in a process of its own, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import pytest

import aiostorage
from aiostorage import Trial, open_storage
from tests.preloaded import Process, preloaded

__all__ = [
    "DEADLINE",
    "URL",
    "CommandOutcome",
    "command",
    "ended",
    "environment",
    "eventually",
    "interrupt",
    "lives",
    "points",
    "run",
    "started",
    "stored",
    "trials_of",
]

DEADLINE: Final = 60.0
"""Seconds that anything may take on a machine that has much else to do."""

URL: Final = "sqlite:///aiostorage-demo.db"
"""Where the demo puts its experiment: the configuration file names it."""

LIBRARIES: Final = (
    *("aiostorage.cli.app", "aiostorage.cli.demo.worker_process"),
    *("aiostorage.drivers.memory", "aiostorage.drivers.sqlite"),
)
"""What the command need not import itself."""

# a shell that starts tests in the background has them ignore Ctrl-C, and so would our children
_BOOT: Final = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # the tests may run under nohup
    "from aiostorage.cli import main; sys.argv[0] = 'aiostorage'; main()"
)


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    """Return the arguments that run the command."""
    return [sys.executable, "-c", _BOOT, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return our environment, with which a child imports the same package in any directory."""
    package = str(Path(aiostorage.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[Process]:
    """Start the command; it ends with the body at the latest."""
    variables = {"AIOSTORAGE_URL": "", "XDG_CONFIG_HOME": str(folder), **variables}
    configuration = folder / "aiostorage" / "aiostorage.toml"
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text(f'[storage]\nurl = "{URL}"\n')
    process = preloaded((), *LIBRARIES).start(
        _BOOT,
        *arguments,
        directory=folder,
        environment=environment(**variables),
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


def ended(process: Process) -> CommandOutcome:
    """Wait until a command has ended."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it did not end; it printed {out[-2000:]!r} and {err[-2000:]!r}")
    assert process.returncode is not None
    return CommandOutcome(process.returncode, out, err)


def run(folder: Path, *arguments: str, **variables: str) -> CommandOutcome:
    """Run the command to its end, with these environment variables."""
    with started(folder, *arguments, **variables) as process:
        return ended(process)


def stored(folder: Path, version: int = 1) -> list[Trial]:
    """Read the trials of a demo."""

    async def read() -> list[Trial]:
        async with open_storage(f"sqlite:///{folder / 'aiostorage-demo.db'}") as storage:
            [config] = await storage.fetch_experiments({"name": "demo", "version": version})
            return await storage.fetch_trials(config) or []

    return anyio.run(read)


def trials_of(folder: Path, version: int = 1) -> list[str]:
    """Return the statuses of a demo's trials."""
    return [trial.status for trial in stored(folder, version)]


def points(folder: Path, version: int = 1) -> set[str]:
    """Return the different points that a demo has tried."""
    return {trial.params_repr() for trial in stored(folder, version)}


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"still waiting for {what}")
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Return whether there is such a process, and not only its exit code."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state not in ("Z", "X")


def interrupt(process: Process, number: signal.Signals) -> CommandOutcome:
    """Send a signal to a command, and wait for its end."""
    process.send_signal(number)
    return ended(process)
