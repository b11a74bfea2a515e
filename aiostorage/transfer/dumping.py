"""`dump_storage` writes a store into a file, one record per line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, cast

import anyio
import anyio.to_thread

from aiostorage._core.kinds import check_values, shown
from aiostorage._core.storage import Storage
from aiostorage.errors import InvalidArgument
from aiostorage.transfer.dump_files import DraftFile
from aiostorage.transfer.dump_format import DumpEncoder
from aiostorage.transfer.record_sources import StoreSource
from aiostorage.transfer.transfer_reports import MOVES, DumpReport, MoveProgress

__all__ = ["drafted", "dump_storage", "path_of"]


async def dump_storage(
    storage: Storage,
    file: str | os.PathLike[str] | IO[bytes],
    *,
    experiments: Collection[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> DumpReport:
    """Write a store, or some of its experiments, into a file.

    The file has one record per line (JSON Lines), with every value as it is stored; the states of
    algorithms are bytes, which are never unpickled. It is compressed if its name ends with ``.gz``
    or ``.zst`` (extra ``zstd``), and gets its name when it is complete. Only one page of records is
    in memory at a time.

    Workers may keep running. Then the dump has each record as it was when it was read: the state
    of an algorithm before the trials of its experiment, so that the dump has all trials that the
    state knows of.

    Parameters
    ----------
    storage
        The store to dump.
    file
        The file, or a stream of bytes, which is not compressed.
    experiments
        Which experiments: a name means all its versions, ``"name@2"`` one of them. Default: all of
        them, and the benchmarks.
    overwrite
        Replace a file that exists.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    DumpReport
        The numbers of records in the dump.

    Raises
    ------
    InvalidArgument
        An argument is of the wrong kind, or there is no experiment with one of the names.
    ConfigurationError
        The file cannot be written, exists, or needs a library that is not installed.
    EncodingError
        A record cannot be read, or has a value that no engine can store. The message names it.
    """
    given = {"storage": storage, "experiments": experiments, "overwrite": overwrite}
    check_values("dump_storage", MOVES, {**given, "progress": progress})
    target = path_of("dump_storage", file)
    report = progress or (lambda _: None)
    source, encoder = StoreSource(storage, experiments), DumpEncoder()
    async with drafted(target, overwrite) as write:
        await source.check_names()
        total = await source.count()
        report(MoveProgress("reading", 0, total))
        await write(partial(encoder.header, source.location, datetime.now(UTC), _version()))
        async for collection, documents in source.pages():
            await write(partial(encoder.records, collection, documents))
            report(MoveProgress("reading", sum(encoder.counts.values()), total))
        sha256 = encoder.sha256
        await write(encoder.footer)
    return DumpReport(
        source=source.location,
        destination=str(target) if isinstance(target, Path) else None,
        orphans=source.orphans,
        sha256=sha256,
        **encoder.counts,
    )


def path_of(call: str, file: object) -> Path | IO[bytes]:
    """Return the file or the stream that an argument names.

    Raises
    ------
    InvalidArgument
        It is neither.
    """
    if isinstance(file, str | os.PathLike):
        return Path(file)
    if not hasattr(file, "write"):
        raise InvalidArgument(
            f"{call}: file is a path or a stream of bytes, not {shown(file)}",
            call=call,
            argument="file",
        )
    return cast(IO[bytes], file)


@asynccontextmanager
async def drafted(
    target: Path | IO[bytes], overwrite: bool
) -> AsyncIterator[Callable[[Callable[[], bytes]], Awaitable[None]]]:
    """Yield a function that writes into a file, which is either completed or removed at the end."""
    draft = DraftFile(target, overwrite=overwrite)

    async def write(make: Callable[[], bytes]) -> None:
        await anyio.to_thread.run_sync(lambda: draft.write(make()))

    try:
        await anyio.to_thread.run_sync(draft.open)
        yield write
        await anyio.to_thread.run_sync(draft.commit)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(draft.discard)


def _version() -> str:
    import aiostorage  # noqa: PLC0415  it is being imported when this module is

    return aiostorage.__version__
