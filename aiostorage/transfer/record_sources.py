"""The sources of records, which are read page by page: a storage or a dump."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import anyio
import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage._core.versions import FIRST_VERSION
from aiostorage.errors import InvalidArgument, NotADatabaseError
from aiostorage.operations import Document
from aiostorage.transfer.dump_files import DumpFile, kind_at
from aiostorage.transfer.dump_format import MAX_HEADER_BYTES, DumpDecoder, readable

__all__ = ["PAGE_SIZE", "DumpSource", "Page", "RecordSource", "StoreSource"]

PAGE_SIZE: Final = 500
"""Records per page."""

Page: TypeAlias = tuple[str, list[Document]]
"""Records of one collection."""


class RecordSource(Protocol):
    """Records: each experiment is followed by its lock and its trials; benchmarks come last."""

    @property
    def location(self) -> str:
        """Where they come from, for messages."""
        ...

    @property
    def orphans(self) -> int:
        """How many trials of no experiment were left out, when all pages have been read."""
        ...

    async def count(self) -> int | None:
        """Return the number of records; None if it is not known yet."""
        ...

    def pages(self) -> AsyncIterator[Page]:
        """Iterate over all records, as often as it is called."""
        ...


class StoreSource:
    """The records of a storage.

    Parameters
    ----------
    storage
        It may be in use; then the records were read at different moments.
    names
        The experiments that are wanted, without benchmarks: a name means all versions, NAME@VERSION
        one of them. None for everything.
    """

    def __init__(self, storage: Storage, names: Collection[str] | None = None) -> None:
        self._collections = CollectionAccess(storage)
        self._names = None if names is None else dict.fromkeys(names).keys()
        self.location: str = storage.location
        self.orphans: int = 0

    async def count(self) -> int | None:
        """Return the number of records."""
        if self._names is None:
            collections = (EXPERIMENTS, ALGO, TRIALS, BENCHMARKS)
            return sum([await self._collections.count(name, {}) for name in collections])
        uids = [config["_id"] for config in await self._experiments()]
        owned = {"experiment": {"$in": uids}}
        of_each = [await self._collections.count(name, owned) for name in (ALGO, TRIALS)]
        return len(uids) + sum(of_each)

    async def check_names(self) -> None:
        """Raise InvalidArgument if there is no experiment of one of the names."""
        if self._names is None:
            return
        found: set[Any] = set()
        for config in await self._experiments():
            found.update(_names_of(config))
        if missing := [name for name in self._names if name not in found]:
            raise InvalidArgument(
                f"there is no experiment {', '.join(map(repr, missing))} in {self.location}",
                argument="experiments",
            )

    async def pages(self) -> AsyncIterator[Page]:
        """Iterate over all records."""
        orphans = 0
        if self._names is None:
            orphans = await self._collections.count(TRIALS, {})
        for config in await self._experiments():
            async for collection, documents in self._of(config):
                orphans -= len(documents) if collection == TRIALS else 0
                yield collection, documents
        self.orphans = max(orphans, 0)
        if self._names is None:
            async for benchmarks in self._collections.pages(BENCHMARKS, {}, PAGE_SIZE):
                yield BENCHMARKS, readable(BENCHMARKS, benchmarks, self.location)

    async def of_experiment(self, uid: Any) -> AsyncIterator[Page]:
        """Iterate over the records of one experiment."""
        found = await self._collections.find(EXPERIMENTS, {"_id": uid})
        for config in readable(EXPERIMENTS, found, self.location):
            async for page in self._of(config):
                yield page

    async def _of(self, config: Document) -> AsyncIterator[Page]:
        yield EXPERIMENTS, [config]
        owned = {"experiment": config["_id"]}
        # first: an algorithm can continue from a state that is older than the trials
        locks = await self._collections.find(ALGO, owned)
        readable(ALGO, locks, self.location)
        if locks:
            # `orion db upgrade` adds a second one, an empty one, to a MongoDB that has one
            yield ALGO, [next((o for o in locks if o.get("state") is not None), locks[0])]
        async for trials in self._collections.pages(TRIALS, owned, PAGE_SIZE):
            yield TRIALS, readable(TRIALS, trials, self.location)

    async def _experiments(self) -> list[Document]:
        found = await self._collections.find(EXPERIMENTS, {})
        readable(EXPERIMENTS, found, self.location)
        if self._names is None:
            return found
        return [one for one in found if not self._names.isdisjoint(_names_of(one))]


def _names_of(config: Document) -> tuple[Any, str]:
    """Return the name of an experiment, and the name with the version."""
    name, version = config.get("name"), config.get("version")
    return name, f"{name}@{FIRST_VERSION if version is None else version}"


class DumpSource:
    """The records of a dump."""

    orphans: int = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self.location: str = str(path)

    async def count(self) -> int | None:
        """Return None: the number of records stands at the end of the file."""
        return None

    async def pages(self) -> AsyncIterator[Page]:
        """Iterate over all records. The file is known to be complete after the last page.

        Raises
        ------
        NotADatabaseError
            The file is damaged, or no dump.
        SchemaVersionError
            A newer aiostorage has made it.
        ConfigurationError, PermissionDenied
            There is no such file, or it cannot be read.
        """
        file = DumpFile(self._path)
        decoder = DumpDecoder(str(self._path))
        try:
            await anyio.to_thread.run_sync(_begin, file, decoder)
            while pages := await anyio.to_thread.run_sync(_next_pages, file, decoder):
                for page in pages:
                    yield page
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(file.close)


def _begin(file: DumpFile, decoder: DumpDecoder) -> None:
    file.open()
    line = file.line(MAX_HEADER_BYTES)
    if not line and file.is_compressed:
        raise NotADatabaseError(f"{file.path} is damaged: nothing of it can be decompressed")
    try:
        decoder.header(line)
    except NotADatabaseError as error:
        if line[:1] != b"{":
            raise NotADatabaseError(f"{error}; it is {kind_at(file.path)}") from None
        raise


def _next_pages(file: DumpFile, decoder: DumpDecoder) -> list[Page]:
    """Return the next records; none at the end of the file, which is checked then."""
    pages: list[Page] = []
    for _ in range(PAGE_SIZE):
        line = file.line()
        if not line:
            decoder.end()
            return pages
        found = decoder.record(line)
        if found is None:
            continue
        collection, document = found
        if collection != EXPERIMENTS and pages and pages[-1][0] == collection:
            pages[-1][1].append(document)
        else:
            pages.append((collection, [document]))
    return pages
