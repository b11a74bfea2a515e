"""What is done when the interpreter exits, in the order that it needs.

`atexit` calls what was registered last first, and which of our modules is imported last depends on
the program.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Literal, TypeAlias

__all__ = ["also_in_child", "at_exit"]

Step: TypeAlias = Literal["loops", "connections"]

_ends: Final[dict[Step, list[Callable[[], object]]]] = {"loops": [], "connections": []}
"""The steps in their order: event loops close their storages, and with them connections."""

_arranged_in = 0


def at_exit(step: Step, end: Callable[[], object]) -> None:
    """Have a function called when the interpreter exits."""
    _ends[step].append(end)


def also_in_child() -> None:
    """Have all of them called in this process, too, if it is one of `multiprocessing`.

    Such a process ends without `atexit`, and forgets at its start what its parent has arranged.
    """
    global _arranged_in  # noqa: PLW0603  a process does this once
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None:
        return
    if _arranged_in != os.getpid():
        _arranged_in = os.getpid()
        multiprocessing.util.Finalize(None, _end_all, exitpriority=0)


def _end_all() -> None:
    with ExitStack() as stack:  # each of them is called, even if another one fails
        for ends in reversed(_ends.values()):
            for end in ends:
                stack.callback(end)


atexit.register(_end_all)
