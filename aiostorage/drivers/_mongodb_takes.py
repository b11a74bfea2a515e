"""Takes that wait at the same time, carried out together.

Every worker that reserves a trial wants the same document, the oldest. When each asks the server
for it, most of them collide there, and start again. So while one take of a kind is under way, those
that come after it wait, and then share three commands: one looks for as many documents as there are
takes, one gives each take a document of its own, one reads what they got. That is the order in
which the takes would have gone one by one; and it is few commands for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from aiostorage._core.query import compile_condition
from aiostorage._core.timeouts import sheltered
from aiostorage.drivers._mongodb_client import Client, UpdateOne
from aiostorage.drivers._mongodb_compile import Table, one_each
from aiostorage.drivers._mongodb_operations import Run
from aiostorage.operations import And, Compare, Document, Find, Take

__all__ = ["Takes"]

TOGETHER: Final = 100
"""Takes that are carried out together, at most."""

HASTE: Final = 1.0
"""Seconds: a take that has less left goes by itself, lest others fail with it."""

_Waiting = list[tuple[Take, "asyncio.Future[list[Document]]", float]]
"""Takes, where their results go, and when their callers give up."""


class Takes:
    """The takes of one driver.

    Parameters
    ----------
    guarded
        Runs an action to its end, under a time limit and with our errors.
    """

    def __init__(
        self,
        client: Client,
        make_run: Callable[[], Run],
        guarded: Callable[..., Awaitable[Any]],
    ) -> None:
        self._client = client
        self._make_run = make_run
        self._guarded = guarded
        self._queues: dict[Any, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, table: Table, take: Take) -> list[Document]:
        """Carry out a take, alone or together with others like it."""
        key = _kind(table, take)
        left = self._client.time_left()
        if key is None or left < HASTE:
            return await self._alone(take)
        queue = self._queues.get(key)
        if queue is not None:
            waiting: asyncio.Future[list[Document]] = self._client.loop.create_future()
            queue.append((take, waiting, self._client.loop.time() + left))
            return await self._wait(queue, waiting)
        self._queues[key] = []
        try:
            return await self._alone(take)
        finally:
            self._go_on(key, table)

    async def _alone(self, take: Take) -> list[Document]:
        taken: list[Document] = await self._guarded(lambda: self._make_run().run(take))
        return taken

    async def _wait(
        self, queue: _Waiting, waiting: asyncio.Future[list[Document]]
    ) -> list[Document]:
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            before = len(queue)
            queue[:] = [entry for entry in queue if entry[1] is not waiting]
            if len(queue) == before:
                # it is being carried out: what it gets has to be known before it is given back
                with suppress(Exception):
                    await sheltered(None, lambda: asyncio.shield(waiting))
            raise

    def _go_on(self, key: Any, table: Table) -> None:
        """Carry out what has come to wait meanwhile."""
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return
        batch, queue[:TOGETHER] = queue[:TOGETHER], []
        task = self._client.loop.create_task(self._together(key, table, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _together(self, key: Any, table: Table, batch: _Waiting) -> None:
        try:
            takes = [take for take, _, _ in batch]
            left = min(end for _, _, end in batch) - self._client.loop.time()
            results = await self._guarded(lambda: self._carry_out(table, takes), max(left, HASTE))
        except BaseException as error:  # noqa: BLE001  it is raised where the take was asked for
            for _, waiting, _ in batch:
                if not waiting.done():
                    waiting.set_exception(error)
                    waiting.exception()  # a caller that was cancelled does not ask for it
        else:
            for (_, waiting, _), result in zip(batch, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)
        finally:
            self._go_on(key, table)

    async def _carry_out(self, table: Table, takes: list[Take]) -> list[list[Document]]:
        run, first = self._make_run(), takes[0]
        results: list[list[Document]] = [[] for _ in takes]
        left = list(range(len(takes)))
        while left:
            free = await run.find(
                table, Find(table.name, first.where, {"_id": True}, first.order, len(left))
            )
            ids = [document["_id"] for document in free]
            if not ids:
                break
            await self._client.collection(table.name).bulk_write(
                [
                    UpdateOne(
                        table.filter(And((Compare("_id", "eq", uid), first.where))),
                        table.update(takes[position].changes, None),
                    )
                    for position, uid in zip(left, ids, strict=False)
                ],
                ordered=False,
            )
            chosen = Find(table.name, Compare("_id", "in", tuple(ids)))
            found = {d["_id"]: d for d in await run.find(table, chosen)}
            for position, uid in list(zip(left, ids, strict=False)):
                document = found.get(uid)
                settled = takes[position].settled
                if document is not None and settled and compile_condition(settled)(document):
                    results[position] = [document]
                    left.remove(position)
        return results


def _kind(table: Table, take: Take) -> Any:
    """Answer what takes that can be carried out together have in common; None if none can."""
    if take.settled is None or table.one(take.where) or not one_each(take):
        return None
    if table.update(take.changes, None) is None:
        return None
    key = (take.collection, take.where, take.order)
    try:
        hash(key)
    except TypeError:
        return None
    return key
