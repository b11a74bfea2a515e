"""What the workers of `test_http_reservations` evaluate; the environment has where they tell it."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def parabola(x: float) -> dict[str, float]:
    """Return an objective and who evaluated it; odd things happen at some places."""
    (Path(os.environ["NOTES"]) / f"{x}-{os.getpid()}").touch()
    if x == 3:
        raise ValueError("no 3 please")
    return {"objective": x**2, "process": os.getpid()}


def for_ever(x: float) -> float:
    """Say that it is at work, and never return."""
    (Path(os.environ["NOTES"]) / f"{x}-{os.getpid()}").touch()
    while True:
        signal.pause()
