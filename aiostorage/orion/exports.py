"""Export to Oríon: `export_orion` makes a PickledDB file from any storage.

It needs Oríon, of which nothing is imported before it is called.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.kinds import check_values
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.record_reader import TrialReader
from aiostorage._core.storage import Storage
from aiostorage.errors import EncodingError
from aiostorage.operations import Document
from aiostorage.orion.conversion import interrupt_reserved
from aiostorage.orion.pickled_database import (
    COLLECTIONS,
    Documents,
    check_destination,
    write_pickled_database,
)
from aiostorage.orion.progress import TRANSFER, CollectionCounts, Progress, TransferCounts
from aiostorage.orion.references import renumber, replace_ids

__all__ = ["export_orion"]

REPORT_INTERVAL: Final = 1000
"""The number of trials between two reports of progress."""


async def export_orion(
    storage: Storage,
    destination: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TransferCounts:
    """Copy a storage into a PickledDB file with which Oríon's own storage can continue.

    Experiments and trials keep an ``_id`` that is a positive int, as Oríon's own are; the others
    get the next numbers. Algorithms are exported unlocked, with their state pickled, and reserved
    trials interrupted, because no worker has them in the file. The file is written beside the
    destination and renamed at the end, so that an interruption leaves no incomplete file. The
    export may or may not contain what workers write to the storage in the meantime.

    Parameters
    ----------
    storage
        The source. With ``state_codec="pickle"`` its states are unpickled, which runs code
        that they contain.
    destination
        The file. No process of Oríon's may be using it.
    overwrite
        Replace an existing file, if it is a pickle.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    TransferCounts
        What was copied.

    Raises
    ------
    ConfigurationError
        The file exists, its directory does not, or Oríon is not installed.
    NotADatabaseError
        The file to be replaced is not a pickle.
    EncodingError
        The state of an algorithm cannot be decoded or pickled, or a trial cannot be read.
    BackendError
        The final count found that something is missing.
    """
    given = {"destination": destination, "storage": storage, "overwrite": overwrite}
    check_values("export_orion", TRANSFER, {**given, "progress": progress})
    destination = Path(destination)
    await anyio.to_thread.run_sync(check_destination, destination, overwrite)
    documents, orphans, interrupted = await _collect(storage, progress or (lambda _: None))
    await anyio.to_thread.run_sync(
        partial(write_pickled_database, destination, documents, overwrite=overwrite)
    )
    states = sum(record["state"] is not None for record in documents[ALGO])
    return TransferCounts(
        experiments=CollectionCounts(len(documents[EXPERIMENTS])),
        trials=CollectionCounts(len(documents[TRIALS])),
        benchmarks=CollectionCounts(len(documents[BENCHMARKS])),
        algorithms=CollectionCounts(states),
        orphans=orphans,
        interrupted=interrupted,
    )


async def _collect(
    storage: Storage, report: Callable[[Progress], None]
) -> tuple[Documents, int, int]:
    """Return the content of the storage in the form of a PickledDB.

    The numbers of orphans and of interrupted trials come with it; see `TransferCounts`.
    """
    configs = await storage.fetch_experiments({})
    ids = renumber([config["_id"] for config in configs])
    total = await CollectionAccess(storage).count(TRIALS, {})
    documents: Documents = {name: [] for name in COLLECTIONS}
    reader = TrialReader(storage._gateway)  # noqa: SLF001  an adapter of this package
    interrupted = 0
    for done, config in enumerate(configs):
        report(Progress(EXPERIMENTS, done, len(configs)))
        uid = config["_id"]
        documents[EXPERIMENTS].append(replace_ids(config, ids[uid], ids))
        documents[ALGO].append(await _lock_record(storage, config, ids[uid]))
        async for stored in storage.iter_trials(config, selection={}):
            trial = reader.read(stored)  # raises: an unreadable trial must not be lost silently
            document = trial.to_dict()
            interrupted += interrupt_reserved(document)
            documents[TRIALS].append({**document, "_id": trial.id_override, "experiment": ids[uid]})
            if len(documents[TRIALS]) % REPORT_INTERVAL == 0:
                report(Progress(TRIALS, len(documents[TRIALS]), total))
    report(Progress(EXPERIMENTS, len(configs), len(configs)))
    documents[BENCHMARKS] = await storage.fetch_benchmark({})
    report(Progress(BENCHMARKS, len(documents[BENCHMARKS]), len(documents[BENCHMARKS])))
    copied = len(documents[TRIALS])
    report(Progress(TRIALS, copied, copied))
    for name in (BENCHMARKS, TRIALS):
        numbers = renumber([document["_id"] for document in documents[name]])
        for document in documents[name]:
            document["_id"] = numbers[document["_id"]]
    return documents, max(total - copied, 0), interrupted


async def _lock_record(storage: Storage, config: Mapping[str, Any], number: int) -> Document:
    try:
        info = await storage.get_algorithm_lock_info(config)
    except EncodingError as error:
        name = f"{config['name']!r} v{config.get('version')}"
        raise EncodingError(f"the algorithm of experiment {name}: {error}") from error
    state = None if info is None else info.state
    try:
        pickled = None if state is None else await anyio.to_thread.run_sync(pickle.dumps, state)
    except Exception as error:  # pickling calls methods of the state, which can raise anything
        raise EncodingError(
            f"the algorithm's state of {config['name']!r} cannot be pickled: {error}"
        ) from error
    return {
        "_id": number,
        "experiment": number,
        "configuration": config.get("algorithm", {}) if info is None else info.configuration,
        "locked": 0,  # no worker holds the lock of the copy
        "state": pickled,
        "heartbeat": (info and info.heartbeat) or datetime.now(UTC),
    }
