"""Documents page by page, by insertion, without a cursor on the server between two pages.

The server knows the order of insertion by the number of each document, but cannot be asked for the
documents behind a number by an index. So the ids of the next documents are read in advance: a few
at first, and twice as many each time, so that the whole is read over a few times only. There is a
limit, which bounds the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from aiostorage.drivers.mongodb.commands import CURSOR_BATCH_SIZE, Commands
from aiostorage.operations import And, Compare, Document, Find

__all__ = ["PagePlace", "read_page"]

MAX_FIRST_IDS: Final = 2**14
"""Ids that are read for the first pages, at most."""

MAX_IDS: Final = 2**18
"""Ids that are read at once, at most: some 20 MB."""


@dataclass(frozen=True, slots=True)
class PagePlace:
    """The place between two pages.

    Attributes
    ----------
    ids
        Ids that have been read in advance, by insertion.
    position
        How many of them were on earlier pages.
    number
        The number of the last of them; 0 if none was read.
    wanted
        How many were to be read.
    """

    ids: tuple[Any, ...] = ()
    position: int = 0
    number: int = 0
    wanted: int = 0

    @property
    def is_last(self) -> bool:
        """Whether there is no further document."""
        return self.position == len(self.ids) < self.wanted


async def read_page(
    commands: Commands, find: Find, after: PagePlace | None, size: int
) -> tuple[list[Document], PagePlace | None]:
    """Return one page of documents, and the place behind it; None if there is no further page."""
    place = after or await _further(commands, find, PagePlace())
    documents: list[Document] = []
    while len(documents) < size and not place.is_last:
        if place.position == len(place.ids):
            place = await _further(commands, find, place)
            continue
        # some may be deleted by now
        end = place.position + size - len(documents)
        chosen = place.ids[place.position : end]
        place = PagePlace(place.ids, min(end, len(place.ids)), place.number, place.wanted)
        some = And((Compare("_id", "in", chosen), find.where))
        documents += await commands.run(Find(find.collection, some, find.selection))
    return documents, None if place.is_last else place


async def _further(commands: Commands, find: Find, place: PagePlace) -> PagePlace:
    """Return the place before the next documents, whose ids are read."""
    wanted = min(2 * place.wanted, MAX_IDS) or MAX_FIRST_IDS
    schema = commands.schemas[find.collection]
    stages = [
        {"$match": schema.filter(find.where, commands.now)},
        {"$project": {"number": {"$meta": "recordId"}}},
        {"$match": {"number": {"$gt": place.number}}},
        {"$sort": {"number": 1}},
        {"$limit": wanted},
    ]
    ids: list[Any] = []
    number = place.number
    parts = commands.client.aggregated_in_parts(schema.name, stages, CURSOR_BATCH_SIZE)
    async for found in parts:
        ids += [document["_id"] for document in found]
        number = found[-1]["number"]
    return PagePlace(tuple(ids), 0, number, wanted)
