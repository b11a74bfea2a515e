"""Objectives that processes import."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from aiostorage import Trial

DEADLINE = 60.0


class Picky(Exception):
    """An exception that cannot be made anew from a pickle."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Mute(Exception):
    """An exception without a message."""

    def __str__(self) -> str:
        raise AttributeError


ERRORS = {"raise": ValueError("bad loss\nat step 3"), "picky": Picky("one", "two"), "mute": Mute()}


def misbehaving(x: str, trial: Trial, where: str = "") -> Any:
    """Do what `x` says; what ends the process, only as often as there is no file of that name."""
    if x in ERRORS:
        raise ERRORS[x]
    match x:
        case "fine":
            return {"objective": 1.5, "pid": os.getpid(), "trial": trial.id}
        case "sys.exit":
            sys.exit(3)
        case "unstorable":
            return {"objective": "high"}
        case "unpicklable":
            return lambda: None
        case "await":
            return coroutine(x)
        case "exit code":
            os._exit(3)
        case "fork":  # both of them return
            return 3.0 if os.fork() else -3.0
    once = Path(where) / f"{x}-{trial.id}"
    if not once.exists():
        once.touch()
        os.kill(os.getpid(), getattr(signal, x))
        time.sleep(DEADLINE)
    return 2.0


async def coroutine(x: str) -> float:
    """Return a number, from an event loop in the process."""
    await asyncio.sleep(0)
    return float(len(x))


def blocking(x: int, where: str) -> int:
    """Leave a file that says which process this is, and go on when there is the file ``go``."""
    directory = Path(where)
    (directory / f"began-{x}-{os.getpid()}").touch()
    end = time.monotonic() + DEADLINE
    while not (directory / "go").exists():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    return x
