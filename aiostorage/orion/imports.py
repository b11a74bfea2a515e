"""Import of Oríon's own databases: `import_orion` copies one into any storage.

It needs Oríon, of which nothing is imported before it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.kinds import check_values
from aiostorage._core.layout import EXPERIMENTS
from aiostorage._core.storage import Storage
from aiostorage.errors import ConfigurationError, NotADatabaseError
from aiostorage.operations import Document
from aiostorage.orion.imported_experiment import (
    BadRecords,
    ImportedExperiment,
    imported_benchmarks,
    imported_experiments,
)
from aiostorage.orion.importer import Importer
from aiostorage.orion.pickled_database import (
    COLLECTIONS,
    Documents,
    decode_state,
    read_pickled_database,
)
from aiostorage.orion.progress import TRANSFER, Progress, TransferCounts

__all__ = ["import_orion", "is_url", "location_of"]

PAGE_SIZE: Final = 1000
"""The number of documents that are read from a database at a time."""

_DATABASE_SCHEMES: Final = ("mongodb", "mongodb+srv")
"""The schemes of URLs from which an import can read."""


async def import_orion(
    source: Path | str,
    storage: Storage,
    *,
    overwrite: bool = False,
    skip_bad: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TransferCounts:
    """Copy a PickledDB file or a MongoDB database of Oríon into a storage.

    Experiments are copied with their trials and the state of their algorithm, and benchmarks. A
    PickledDB is read by unpickling it, and so are the states in a database: **this runs code that
    the source contains**. Import only from sources that you trust. The source is not changed, and
    not locked.

    Nothing that is in the storage is changed. An experiment of the same name and version counts as
    the same one if it was created at the same time (``metadata.datetime``) and has the same space,
    algorithm and parent; each worker that starts rewrites the rest of a config. Then only its
    missing trials are copied. A trial with the same id counts as the same one, unless it is
    completed or broken in the source and has another status or other results in the storage. An
    import that was interrupted therefore continues when it is called again, even if workers have
    used the storage in the meantime.

    An experiment keeps its ``_id`` unless another experiment has it. Then it gets a new one, and
    its trials and the experiments branched from it refer to the new one. Trials keep their ``_id``
    unless it is taken. Algorithms are copied unlocked. Their state is encoded by the storage's
    codec, and most algorithms of Oríon need ``state_codec="pickle"``. Tuples become lists.

    The workers of the source do not work in the storage: a trial that is reserved in the source is
    interrupted in the storage, and the next worker there takes it up. If they are still at work,
    it is evaluated in both places, and a later import refuses the trial as one that differs. So
    let them finish, or stop them, before the import.

    Parameters
    ----------
    source
        The file; or the URL of the database in the form of `aiostorage.open_storage`:
        ``mongodb://host/orion``.
    storage
        The destination. During the import, workers should not use the same experiments there.
    overwrite
        Replace what differs instead of refusing it: the whole experiment, with all its trials.
    skip_bad
        Leave out the records that cannot be stored instead of refusing the import: a trial, a
        benchmark, the state of an algorithm, or an experiment with all its trials.
        ``TransferCounts.skipped`` lists them. The next import tries them again, except for the
        state of an algorithm whose experiment was copied without it.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    TransferCounts
        What was copied, what was replaced, and what was present already.

    Raises
    ------
    DuplicateKeyError
        The storage has an experiment, a trial or a benchmark of the same name that differs, and
        nothing was written.
    EncodingError
        A document or a state cannot be stored here. The message names the record, the field and the
        value, and nothing was written; unless MongoDB refuses a document as too large, which shows
        when it is written. With `skip_bad`, it is left out.
    NotADatabaseError
        The file is not a PickledDB, or the database is not one of Oríon's.
    ConfigurationError
        There is no such file or database, or Oríon is not installed.
    PermissionDenied
        The server refuses access to the database.
    BackendError
        The server does not answer; or the final count found that something is missing.
    """
    given = {"source": source, "storage": storage, "overwrite": overwrite, "progress": progress}
    check_values("import_orion", TRANSFER, {**given, "skip_bad": skip_bad})
    if is_url(source):
        documents = await _read_database(str(source), progress or (lambda _: None))
    else:
        documents = await anyio.to_thread.run_sync(read_pickled_database, Path(source))
    bad = BadRecords(skip=skip_bad)
    experiments, benchmarks, orphans = await anyio.to_thread.run_sync(_sort, documents, bad)
    importer = Importer(
        storage, location_of(source), decode_state, overwrite=overwrite, progress=progress, bad=bad
    )
    return await importer.run(experiments, benchmarks, orphans)


def is_url(source: object) -> bool:
    """Return whether the source of an import is the URL of a database, not a file."""
    return isinstance(source, str) and source.partition("://")[0].lower() in _DATABASE_SCHEMES


def location_of(source: Path | str) -> str:
    """Return the source of an import in a form for messages, which contains no password."""
    return _open_database(str(source)).location if is_url(source) else str(source)


def _sort(
    documents: Documents, bad: BadRecords
) -> tuple[list[ImportedExperiment], list[Document], int]:
    experiments, orphans = imported_experiments(documents, bad)
    return experiments, imported_benchmarks(documents, bad), orphans


def _open_database(url: str) -> Storage:
    from aiostorage.factory import open_storage  # noqa: PLC0415  a file needs no engine

    return open_storage(url, read_only=True)


async def _read_database(url: str, report: Callable[[Progress], None]) -> Documents:
    """Return the content of a database. Our own engine reads it, and changes nothing in it."""
    if not _names_database(url):
        raise ConfigurationError(
            f"{location_of(url).rpartition('/')[0]}: which database? put its name into the URL; "
            "Oríon's own default is orion"
        )
    documents: Documents = {name: [] for name in COLLECTIONS}
    async with _open_database(url) as storage:
        collections = CollectionAccess(storage)
        total = sum([await collections.count(name, {}) for name in COLLECTIONS])
        for name in COLLECTIONS:
            async for page in collections.pages(name, {}, PAGE_SIZE):
                documents[name] += page
                report(Progress("read", sum(map(len, documents.values())), total))
    nameless = sum(not isinstance(one.get("name"), str) for one in documents[EXPERIMENTS])
    if nameless:
        raise NotADatabaseError(
            f"{location_of(url)} is not a database of Oríon: {nameless} of its experiments "
            "have no name"
        )
    return documents


def _names_database(url: str) -> bool:
    place = url.partition("://")[2].partition("?")[0]
    return bool(place.rpartition("@")[2].partition("/")[2])
