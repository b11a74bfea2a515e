"""The rows of a log, read in an order in which no row can appear before one that was read.

On a replica set, this is the order of a change stream, in which the transactions were committed.
Its token is the cursor. A reader that begins with the oldest rows gets the stored ones in the order
of their ids, and continues with a stream from a moment before they were read. Rows that the stream
has as well are left to it, so that no row comes twice: see `_zone`.

On a standalone server, it is the order of the numbers in the ids;
`aiostorage.drivers.mongodb.log_head` explains why no row is missing.

A cursor names the log by the UUID of its collection, so that the cursor of another store is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiostorage._core.change_log.numbered_log import raise_expired
from aiostorage.drivers.mongodb.bson_codec import as_stored
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.log_head import read_head, stored_row
from aiostorage.drivers.mongodb.log_ids import PER_MILLISECOND, id_of, number_at, number_of
from aiostorage.drivers.mongodb.log_streams import LogStream, LogStreams, moment_of
from aiostorage.operations import Document, LogPage

__all__ = ["read_log"]

MAX_ROW_DELAY: Final = 300
"""Seconds for which a row may still appear before one with a larger id.

A transaction lasts a minute at most, and the clocks of two members differ.
"""

MAX_ID_LEAD: Final = 1
"""Seconds by which the time in a row's id may be ahead of the server's clock."""

_CURSOR: Final = re.compile(
    r"(?P<token>[0-9A-F]*)(?:~(?P<place>[0-9a-f]{23}))?\.(?P<log>[0-9a-f]{8})\Z"
)


async def read_log(
    commands: Commands, log: str, owner: Any, after: str | None, limit: int
) -> LogPage:
    """Return a page; see `aiostorage.protocols.LoggingDriver.read_log`."""
    if not commands.client.replicated:
        return await _read_by_numbers(commands, log, owner, after, limit)
    reader = _StreamReader(commands, log, owner, limit)
    return await (reader.behind(after) if after else reader.first(after))


def _row(document: Mapping[str, Any]) -> Document:
    return {name: value for name, value in document.items() if name != "late"}


# ------------------------------------------------------------------------- on a replica set


@dataclass(slots=True)
class _StreamReader:
    """Reads one page.

    A cursor is a token of the stream. While stored rows are read, it is ``~`` and the id of the
    last row; in front of them stands the token with which the stream will begin, once it is known.
    """

    commands: Commands
    log: str
    owner: Any
    limit: int
    uuid: str = ""

    async def first(self, after: str | None) -> LogPage:
        """Read the oldest rows; none if `after` is None, which asks for the cursor at the end."""
        uuid = await self.commands.client.collection_uuid(self.log)
        if uuid is None:
            return LogPage((), "")
        self.uuid = uuid[:8]
        if after is not None:
            return await self.stored(None, "")
        stream = await self._stream(None)
        cursor = self._cursor(stream.token)
        await self.streams.keep(self.log, self.owner, stream)
        return LogPage((), cursor)

    async def behind(self, cursor: str) -> LogPage:
        """Read rows behind a cursor."""
        found = _CURSOR.match(cursor) or raise_expired(cursor)
        token, place, self.uuid = found["token"], found["place"], found["log"]
        if not self.streams.has(self.log, self.owner, token):
            there = await self.commands.client.collection_uuid(self.log)
            if there is None or there[:8] != self.uuid:
                raise_expired(cursor)
        if place is not None:
            return await self.stored(token or None, place)
        return await self.streamed(token or raise_expired(cursor))

    @property
    def streams(self) -> LogStreams:
        """The streams of the process."""
        client = self.commands.client
        found: LogStreams = client.shared.setdefault("log streams", LogStreams(client))
        return found

    async def streamed(self, token: str) -> LogPage:
        """Read rows behind a token."""
        return await self._kept(await self._stream(token), [])

    async def stored(self, token: str | None, place: str) -> LogPage:
        """Read stored rows behind a place.

        If all of them are old enough, that is all. If not, a stream has to continue: see `_zone`.
        """
        page = await self._stored(token, place)
        # now: rows are deleted from the beginning, so all behind it were there
        if place and not await self._is_there(place):
            raise_expired(self._cursor(token or "", place))
        return page

    async def _stored(self, token: str | None, place: str) -> LogPage:
        if token is None:
            now = number_at(await self.commands.client.now())
            found, _ = await self._find(place, id_of(now - _at_second(MAX_ROW_DELAY)))
            if len(found) == self.limit:
                old_rows = tuple((self._cursor("", row["_id"]), _row(row)) for row in found)
                return LogPage(old_rows, old_rows[-1][0])
        stream = await self._stream(token)
        try:
            rows, ended = await self._zone(stream, place)
        except BaseException:
            await stream.close()
            raise
        if ended:
            return await self._kept(stream, rows)
        await self.streams.keep(self.log, self.owner, stream)
        return LogPage(tuple(rows), rows[-1][0])

    async def _zone(self, stream: LogStream, place: str) -> tuple[list[tuple[str, Document]], bool]:
        """Read stored rows after which rows with smaller ids may still appear.

        The stream was opened before this read, which waits until a majority has all that was
        written before the stream's position. Of the rows that are found now, those that were
        committed after that position are in the stream as well. They are looked up there and left
        to it. No other row can appear any more.

        Returns
        -------
        rows, ended
            The rows, and whether there are no more of them.
        """
        begin = stream.token
        second, number = moment_of(begin)
        before = second, number - 1  # the stream has what is written at its moment
        rows: list[tuple[str, Document]] = []
        while True:
            end = id_of(_at_second(second + MAX_ID_LEAD + 1))
            found, moment = await self._find(place, end, since=before)
            later = await stream.ahead(moment, second + MAX_ID_LEAD + MAX_ROW_DELAY)
            streamed = {event["fullDocument"]["_id"] for event in later}
            for row in found:
                if len(rows) == self.limit:
                    return rows, False
                if row["_id"] not in streamed:
                    rows.append((self._cursor(begin, row["_id"]), _row(row)))
            if len(found) < self.limit:
                return rows, True
            place = found[-1]["_id"]
            if len(rows) == self.limit:
                return rows, False

    async def _kept(self, stream: LogStream, rows: list[tuple[str, Document]]) -> LogPage:
        """Fill a page from a stream, and keep the stream for the read of the next page."""
        try:
            while len(rows) < self.limit:
                event = await stream.next()
                if event is None:
                    break
                rows.append((self._cursor(event["_id"]["_data"]), _row(event["fullDocument"])))
        except BaseException:
            await stream.close()
            raise
        cursor = self._cursor(stream.token)
        await self.streams.keep(self.log, self.owner, stream)
        return LogPage(tuple(rows), cursor)

    async def _is_there(self, uid: str) -> bool:
        rows = self.commands.client.collections[self.log]
        return await rows.find_one({"_id": uid}, {"_id": True}) is not None

    async def _find(
        self, place: str, end: str, since: tuple[int, int] | None = None
    ) -> tuple[list[Document], tuple[int, int]]:
        where = {**self._matching, "_id": {"$gt": place, "$lt": end}}
        return await self.commands.client.find_committed(self.log, where, self.limit, since)

    @property
    def _matching(self) -> dict[str, Any]:
        if self.owner is None:
            return {}
        return self.commands.schemas[self.log].document({"owner": self.owner}, None)

    async def _stream(self, token: str | None) -> LogStream:
        return await self.streams.taken(self.log, self.owner, token, self._matching)

    def _cursor(self, token: str, place: str | None = None) -> str:
        return f"{token}{'' if place is None else f'~{place}'}.{self.uuid}"


def _at_second(second: int) -> int:
    """Return the first number in a second."""
    return second * 1000 * PER_MILLISECOND


# ------------------------------------------------------------------- on a standalone server


async def _read_by_numbers(
    commands: Commands, log: str, owner: Any, after: str | None, limit: int
) -> LogPage:
    head = await read_head(commands, log)
    last = head.last or head.beginning
    if after is None:
        return LogPage((), last)
    place = "" if after in ("", head.beginning) else after
    if place and not number_of(place):
        raise_expired(after)
    matching = {} if owner is None else commands.schemas[log].document({"owner": owner}, None)
    collection = commands.client.collections[log]
    ids = {"$gt": place, "$lt": id_of(head.number + 1)}
    cursor = collection.find({**matching, "_id": ids}).sort("_id", 1).limit(limit)
    found = {row["_id"]: row for row in await cursor.to_list(None)}
    waiting = [as_stored(stored_row(row)) for row in head.rows]
    for row in waiting:
        if row["_id"] > place and (owner is None or row["owner"] == owner):
            found[row["_id"]] = row
    if after:  # now, since rows may have been deleted meanwhile
        needed = head.first if after == head.beginning else after
        there = needed is None or needed in {row["_id"] for row in waiting} or needed == head.last
        if not there and not await collection.find_one({"_id": needed}, {"_id": True}):
            raise_expired(after)
    rows = tuple((uid, _row(found[uid])) for uid in sorted(found)[:limit])
    if len(rows) == limit:
        return LogPage(rows, rows[-1][0])
    return LogPage(rows, last if last > place else after or head.beginning)
