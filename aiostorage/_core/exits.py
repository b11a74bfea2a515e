"""What is done when the interpreter exits, in the order that it needs.

`atexit` calls what was registered last first, and which of our modules is imported last depends on
the program.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Literal, TypeAlias

__all__ = ["at_exit"]

Step: TypeAlias = Literal["loops", "connections"]

_ends: Final[dict[Step, list[Callable[[], object]]]] = {"loops": [], "connections": []}
"""The steps in their order: event loops close their storages, and with them connections."""


def at_exit(step: Step, end: Callable[[], object]) -> None:
    """Have a function called when the interpreter exits."""
    _ends[step].append(end)


def _end_all() -> None:
    with ExitStack() as stack:  # each of them is called, even if another one fails
        for ends in reversed(_ends.values()):
            for end in ends:
                stack.callback(end)


atexit.register(_end_all)
