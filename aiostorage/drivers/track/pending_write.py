"""What one caller waits for, while its group is written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiostorage.operations import Operation

__all__ = ["PendingWrite"]


@dataclass(slots=True, eq=False)
class PendingWrite:
    """Operations that one caller waits for.

    Attributes
    ----------
    future
        Gets the results, or that of the only operation if `single`; in its event loop.
    """

    operations: Sequence[Operation[Any]]
    future: asyncio.Future[Any]
    single: bool
    results: list[Any] | None = None
    error: BaseException | None = None
    begun: bool = False

    def begin(self) -> bool:
        """Return whether to carry it out: its caller is not cancelled."""
        if self.future.cancelled():
            return False
        self.begun = True  # whoever cancels it from now on sees that
        return not self.future.cancelled()
