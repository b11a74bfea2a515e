"""Change streams of logs, kept open between two pages of a reader.

Opening a stream costs the server more than reading from it. So the stream at the end of one page is
kept for the reader that asks for the next page. It costs the server a cursor, but between two reads
it needs none of motor's threads. Only a few are kept, and none for long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pymongo.errors import OperationFailure, PyMongoError

from aiostorage._core.change_rows import BREAK
from aiostorage.drivers.mongodb.client import Client
from aiostorage.errors import CursorExpired

__all__ = ["LogStream", "LogStreams", "moment_of"]

MAX_KEPT: Final = 8
"""Streams that are kept open for a process, at most."""

MAX_IDLE: Final = 15.0
"""Seconds for which a stream is kept open without a reader."""

AWAIT_MILLISECONDS: Final = 1
"""How long the server waits for a change before it returns an empty batch."""

TOKEN_FAILURES: Final = frozenset((9, 136, 260, 280, 286, 40647, 40649, 50811))
"""Codes by which a server refuses a token: its oplog does not reach so far back, or it is invalid.

FailedToParse, CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError,
ChangeStreamHistoryLost, and three errors of the decoding of tokens.
"""

Event = Mapping[str, Any]


class LogStream:
    """An open change stream of the rows of one owner, or of all.

    Attributes
    ----------
    token
        The place behind all that was taken from it.
    """

    def __init__(self, stream: Any, token: str | None) -> None:
        self._stream = stream
        self._ahead: deque[Event] = deque()
        self._token = token

    @property
    def token(self) -> str:
        """The place behind all that was taken from it."""
        if self._token is None:
            raise AssertionError("the stream has not begun")
        return self._token

    async def begin(self) -> None:
        """Open the stream at the present moment, or at its token."""
        event = await self._stream.try_next()
        if self._token is None:  # a change that came with the opening is skipped
            self._token = self._place() if event is None else event["_id"]["_data"]
        elif event is not None:
            self._ahead.append(event)

    async def next(self) -> Event | None:
        """Take the next event; None if there is none yet.

        Raises
        ------
        CursorExpired
            Changes are missing here.
        """
        event = self._ahead.popleft() if self._ahead else await self._stream.try_next()
        if event is not None and event["fullDocument"].get("kind") == BREAK:
            raise CursorExpired(
                "the history was turned off meanwhile, so that changes behind the cursor are "
                "missing; read the trials again, and continue with a new cursor"
            )
        self._token = self._place() if event is None else event["_id"]["_data"]
        return event

    async def ahead(self, moment: tuple[int, int], until: int) -> Sequence[Event]:
        """Return the events up to a moment without taking them from the stream.

        Parameters
        ----------
        moment
            The second, and the number in it.
        until
            A second after which no event is needed, even if it is before the moment.
        """
        while not self._ahead or self._ahead[-1]["clusterTime"].time <= until:
            event = await self._stream.try_next()
            if event is not None:
                self._ahead.append(event)
            elif moment_of(self._place()) >= moment:
                break
        return self._ahead

    async def close(self) -> None:
        """Close the stream, also on the server."""
        with suppress(PyMongoError):
            await self._stream.close()

    @property
    def alive(self) -> bool:
        """Whether it can continue: a stream ends with its collection."""
        return bool(self._stream.alive)

    def _place(self) -> str:
        token = self._stream.resume_token
        return self._token or "" if token is None else str(token["_data"])


def moment_of(token: str) -> tuple[int, int]:
    """Return the second at which a token stands, and the number in it."""
    return int(token[2:10], 16), int(token[10:18], 16)


class LogStreams:
    """The streams on one database that a process keeps for later reads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: dict[tuple[Any, ...], tuple[LogStream, float]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def has(self, log: str, owner: Any, token: str) -> bool:
        """Return whether a stream at this token is kept."""
        kept = self._kept.get((log, owner, token))
        return kept is not None and kept[0].alive

    async def taken(
        self, log: str, owner: Any, token: str | None, matching: Mapping[str, Any]
    ) -> LogStream:
        """Return a stream at a token, or at the present end, for the caller alone.

        Parameters
        ----------
        owner
            The owner of the rows, by which a kept stream is found.
        matching
            The filter of the rows.

        Raises
        ------
        CursorExpired
            The server cannot continue from there.
        """
        kept = self._kept.pop((log, owner, token), None) if token is not None else None
        if kept is not None:
            if kept[0].alive:
                return kept[0]
            await kept[0].close()
        ours = {f"fullDocument.{name}": value for name, value in matching.items()}
        wanted = [ours, {"fullDocument.kind": BREAK}] if ours else [{}]
        pipeline = [
            {"$match": {"operationType": "insert", "$or": wanted}},
            {"$project": {"fullDocument": 1, "clusterTime": 1, "operationType": 1}},
        ]
        after = {} if token is None else {"resume_after": {"_data": token}}
        try:
            stream = LogStream(
                await self._client.watch(
                    log, pipeline, max_await_time_ms=AWAIT_MILLISECONDS, **after
                ),
                token,
            )
            await stream.begin()
        except OperationFailure as error:
            if token is None or error.code not in TOKEN_FAILURES:
                raise
            raise CursorExpired(
                "the changes behind the cursor are no longer kept: the oplog of "
                f"{self._client.settings.location} does not go so far back, or it is the cursor of "
                "another store; read the trials again, and continue with a new cursor"
            ) from error
        return stream

    async def keep(self, log: str, owner: Any, stream: LogStream) -> None:
        """Keep a stream for the reader that continues at its position."""
        key = (log, owner, stream.token)
        old = self._kept.pop(key, None)
        self._kept[key] = stream, self._client.loop.time()
        surplus = [] if old is None else [old[0]]
        while len(self._kept) > MAX_KEPT:
            surplus.append(self._kept.pop(next(iter(self._kept)))[0])
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = self._client.loop.create_task(self._sweep())
        for one in surplus:
            await one.close()

    async def stop(self) -> None:
        """Close all of them."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        kept, self._kept = self._kept, {}
        for stream, _ in kept.values():
            await stream.close()

    async def _sweep(self) -> None:
        while self._kept:
            oldest = min(at for _, at in self._kept.values())
            await asyncio.sleep(max(oldest + MAX_IDLE - self._client.loop.time(), 0.05))
            before = self._client.loop.time() - MAX_IDLE
            for key, (stream, at) in list(self._kept.items()):
                if at <= before and self._kept.pop(key, None) is not None:
                    await stream.close()
