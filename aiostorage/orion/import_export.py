"""Coming over from Oríon's own databases, and going back to them.

`import_orion` copies a PickledDB file or a MongoDB database into any storage; `export_orion` makes
such a file of one. Both need Oríon, of which nothing is imported before they are called.
"""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.state import PickleCodec
from aiostorage._core.storage import Storage
from aiostorage.errors import BackendError, ConfigurationError, EncodingError, NotADatabaseError
from aiostorage.operations import Document
from aiostorage.orion.conversion import (
    Study,
    benchmarks_of,
    listed,
    naive,
    renumbered,
    studies_of,
    with_references,
)
from aiostorage.orion.importer import Importer
from aiostorage.orion.progress import Count, Counts, Progress

__all__ = [
    "Count",
    "Counts",
    "Progress",
    "export_orion",
    "import_orion",
    "is_url",
    "location_of",
]

_Documents: TypeAlias = dict[str, list[Document]]
"""What a store of Oríon's holds, by collection."""

_COLLECTIONS: Final = (EXPERIMENTS, BENCHMARKS, ALGO, TRIALS)
_PICKLE: Final = b"\x80"
"""The first byte of what `pickle` has written since its protocol 2."""


_SCHEMES: Final = ("mongodb", "mongodb+srv")
"""Of the URLs of databases."""

PAGE: Final = 1000
"""Documents of a database that are read in one go."""


async def import_orion(
    source: Path | str,
    storage: Storage,
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Counts:
    """Copy a PickledDB file or a MongoDB database of Oríon into a storage.

    Experiments come over with their trials and the state of their algorithm, and benchmarks. To
    read a PickledDB is to unpickle it, and so it is with the states in a database: **that runs code
    which the source contains**. Name only sources that come from people you trust. The source is
    not changed, and not locked.

    Nothing that is in the storage is changed. An experiment of the same name and version is taken
    for the same one if it was created at the same moment (``metadata.datetime``) and has the same
    space, algorithm and parent; the rest of a config is written anew by every worker that starts.
    Only its missing trials are copied then. A trial with the same id is taken for the same one,
    unless it is completed or broken in the file, and not so, or with other results, in the storage.
    So an import that was interrupted goes on when it is called again, even if workers have gone on
    in the storage meanwhile.

    An experiment keeps its ``_id`` unless another one has it. If so it gets a new one, which the
    experiments branched from it and its trials then name. Trials keep their ``_id`` unless it is
    taken. Algorithms come over unlocked; their state is encoded by the storage's codec, and most
    of Oríon's need ``state_codec="pickle"``. Tuples become lists.

    Parameters
    ----------
    source
        The file; or the URL of the database, as it is for `aiostorage.open_storage`:
        ``mongodb://host/orion``.
    storage
        Where it is copied to. Better nobody works there on the same experiments meanwhile.
    overwrite
        Replace what differs instead of refusing it: the whole experiment, with all its trials.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    Counts
        What was copied, replaced, and there already.

    Raises
    ------
    DuplicateKeyError
        An experiment, a trial or a benchmark of the same name is there, but differs. Nothing was
        written.
    EncodingError
        Something cannot be stored here; it is named. Nothing was written.
    NotADatabaseError
        The file is no PickledDB, or the database is not Oríon's.
    ConfigurationError
        There is no such file or database, or Oríon is not installed.
    PermissionDenied
        The server of the database does not let us in.
    BackendError
        The server does not answer; or counting afterwards, something was missing.
    """
    if is_url(source):
        documents = await _read_database(str(source), progress or (lambda _: None))
    else:
        documents = await anyio.to_thread.run_sync(_read, Path(source))
    studies, benchmarks, orphans = await anyio.to_thread.run_sync(_sorted, documents)
    importer = Importer(
        storage, location_of(source), _loaded, overwrite=overwrite, progress=progress
    )
    return await importer.run(studies, benchmarks, orphans)


async def export_orion(
    storage: Storage,
    destination: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Counts:
    """Copy a storage into a PickledDB file on which Oríon's own storage carries on.

    Experiments and trials keep an ``_id`` that is a positive int, as Oríon's own are; others get
    the next one. Algorithms go unlocked, their state pickled. The file is written beside the
    destination and takes its name at the end, so that an interruption leaves nothing half made.
    What others write to the storage meanwhile may come along or not.

    Parameters
    ----------
    storage
        What is copied. With ``state_codec="pickle"`` its states are unpickled, which runs code
        that they contain.
    destination
        The file. No Oríon may be at work on it.
    overwrite
        Replace a file that is there, if it is a pickle.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    Counts
        What was copied.

    Raises
    ------
    ConfigurationError
        The file exists, its directory does not, or Oríon is not installed.
    NotADatabaseError
        The file to be replaced is no pickle.
    EncodingError
        The state of an algorithm cannot be decoded or pickled.
    BackendError
        Counting afterwards, something was missing.
    """
    destination = Path(destination)
    await anyio.to_thread.run_sync(_check_destination, destination, overwrite)
    documents, orphans = await _collected(storage, progress or (lambda _: None))
    await anyio.to_thread.run_sync(partial(_write, destination, documents, overwrite=overwrite))
    states = sum(record["state"] is not None for record in documents[ALGO])
    return Counts(
        experiments=Count(len(documents[EXPERIMENTS])),
        trials=Count(len(documents[TRIALS])),
        benchmarks=Count(len(documents[BENCHMARKS])),
        algorithms=Count(states),
        orphans=orphans,
    )


# ------------------------------------------------------------------------------------- reading


def is_url(source: object) -> bool:
    """Tell whether a source of an import is the URL of a database, and no file."""
    return isinstance(source, str) and source.partition("://")[0].lower() in _SCHEMES


def location_of(source: Path | str) -> str:
    """Answer what people may read of the source of an import: no password is in it."""
    return _database(str(source)).location if is_url(source) else str(source)


def _sorted(documents: _Documents) -> tuple[list[Study], list[Document], int]:
    studies, orphans = studies_of(documents)
    return studies, benchmarks_of(documents), orphans


def _database(url: str) -> Storage:
    from aiostorage.factory import open_storage  # noqa: PLC0415  no engine for a file

    return open_storage(url, read_only=True)


async def _read_database(url: str, report: Callable[[Progress], None]) -> _Documents:
    """Answer what a database holds, by our own engine, which changes nothing in it."""
    if not _names_database(url):
        raise ConfigurationError(
            f"{location_of(url).rpartition('/')[0]}: which database? put its name into the URL; "
            "Oríon's own default is orion"
        )
    documents: _Documents = {name: [] for name in _COLLECTIONS}
    async with _database(url) as storage:
        total = sum([await CollectionAccess(storage).count(name, {}) for name in _COLLECTIONS])
        for name in _COLLECTIONS:
            async for page in CollectionAccess(storage).pages(name, {}, PAGE):
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


def _read(path: Path) -> _Documents:
    """Answer what a PickledDB file holds, with lists for tuples."""
    with _orion_needed():
        from orion.core.io.database.ephemeraldb import EphemeralDB  # noqa: PLC0415
        from orion.core.io.database.pickleddb import PickledDB  # noqa: PLC0415

    try:
        _check_pickle(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"there is no file {path}") from None
    try:
        # Not by way of its lock: the file is replaced as a whole, so nobody has to wait; and where
        # locks are files, one that a killed process left would never open.
        database = PickledDB(str(path))._get_database()  # noqa: SLF001
    except Exception as error:  # unpickling calls anything
        raise NotADatabaseError(
            f"{path} is not a PickledDB of Oríon, or needs classes that are not installed: {error}"
        ) from error
    if not isinstance(database, EphemeralDB):
        raise NotADatabaseError(
            f"{path} is not a PickledDB of Oríon: it holds a {type(database).__name__}"
        )
    return {name: listed(database.read(name)) for name in _COLLECTIONS}


def _check_pickle(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(1) != _PICKLE:
            raise NotADatabaseError(f"{path} is not a PickledDB of Oríon: it is no pickle")


def _loaded(state: Any) -> Any:
    """Answer the state of an algorithm as it was before Oríon, or we, encoded it."""
    return PickleCodec().decode(state) if isinstance(state, bytes) else state


@contextmanager
def _orion_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f'Oríon is needed for this: pip install "aiostorage[orion]" ({error})'
        ) from error


# ------------------------------------------------------------------------------------- writing


async def _collected(
    storage: Storage, report: Callable[[Progress], None]
) -> tuple[_Documents, int]:
    """Answer what the storage holds, as Oríon's PickledDB would have it; and stray trials."""
    configs = await storage.fetch_experiments({})
    ids = renumbered([config["_id"] for config in configs])
    total = await CollectionAccess(storage).count(TRIALS, {})
    documents: _Documents = {name: [] for name in _COLLECTIONS}
    for done, config in enumerate(configs):
        report(Progress(EXPERIMENTS, done, len(configs)))
        uid = config["_id"]
        documents[EXPERIMENTS].append(with_references(config, ids[uid], ids))
        documents[ALGO].append(await _lock_record(storage, config, ids[uid]))
        async for trial in storage.iter_trials(config):
            document = trial.to_dict()
            documents[TRIALS].append({**document, "_id": trial.id_override, "experiment": ids[uid]})
            if len(documents[TRIALS]) % 1000 == 0:
                report(Progress(TRIALS, len(documents[TRIALS]), total))
    report(Progress(EXPERIMENTS, len(configs), len(configs)))
    documents[BENCHMARKS] = await storage.fetch_benchmark({})
    report(Progress(BENCHMARKS, len(documents[BENCHMARKS]), len(documents[BENCHMARKS])))
    copied = len(documents[TRIALS])
    report(Progress(TRIALS, copied, copied))
    for name in (BENCHMARKS, TRIALS):
        numbers = renumbered([document["_id"] for document in documents[name]])
        for document in documents[name]:
            document["_id"] = numbers[document["_id"]]
    return documents, max(total - copied, 0)


async def _lock_record(storage: Storage, config: Mapping[str, Any], number: int) -> Document:
    info = await storage.get_algorithm_lock_info(config)
    state = None if info is None else info.state
    try:
        pickled = None if state is None else await anyio.to_thread.run_sync(pickle.dumps, state)
    except Exception as error:  # pickling calls methods of the state, which raise anything
        raise EncodingError(
            f"the algorithm's state of {config['name']!r} cannot be pickled: {error}"
        ) from error
    return {
        "_id": number,
        "experiment": number,
        "configuration": config.get("algorithm", {}) if info is None else info.configuration,
        "locked": 0,  # nobody holds the copy
        "state": pickled,
        "heartbeat": (info and info.heartbeat) or datetime.now(UTC),
    }


def _check_destination(path: Path, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no directory {path.parent}; create it first")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a directory; name a file")
    if path.exists():
        if not overwrite:
            raise ConfigurationError(f"{path} exists; it was left as it is (overwrite replaces it)")
        _check_pickle(path)  # it might be the very storage that is copied


def _write(path: Path, documents: Mapping[str, list[Document]], *, overwrite: bool) -> None:
    """Make a PickledDB with Oríon's own indexes; it takes its name when it is complete."""
    with _orion_needed():
        from orion.core.io.database.pickleddb import PickledDB  # noqa: PLC0415
        from orion.storage.legacy import Legacy  # noqa: PLC0415

    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        Legacy(database={"type": "pickleddb", "host": str(draft)})
        # all in one go, since it reads and writes the whole file each time
        with PickledDB(str(draft)).locked_database() as database:
            for name in _COLLECTIONS:
                database.write(name, naive(documents[name]))
        written = _read(draft)
        for name, wanted in documents.items():
            if len(written[name]) != len(wanted):
                raise BackendError(
                    f"{len(wanted)} {name} were written, but {len(written[name])} are there"
                )
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        _check_destination(path, overwrite)
        draft.replace(path)
    finally:
        for leftover in (draft, Path(f"{draft}.tmp"), Path(f"{draft}.lock")):
            leftover.unlink(missing_ok=True)
