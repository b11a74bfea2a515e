"""The bare client libraries of MongoDB, with the commands that the work cannot do without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from benchmarks.definitions import Figures, Setting
from benchmarks.mongodb import BareClient, LoggedBareClient, opened_client
from benchmarks.sides.ours import in_loop, opened
from benchmarks.workload import measured

__all__ = ["cycles"]


@in_loop
@asynccontextmanager
async def cycles(
    setting: Setting, library: Literal["motor", "pymongo"], *, history: bool
) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Reserve a trial, send a heartbeat, complete it."""
    async with opened(setting, library) as (_, experiment):
        uid = str(experiment.id)
    async with opened_client(setting.mongodb or "", library) as client:
        bare = (LoggedBareClient if history else BareClient)(client, setting.store, uid)
        yield partial(measured, bare.cycle, setting.tasks, setting.count)
