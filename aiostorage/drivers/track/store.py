"""A Track file and its documents in memory: read again when it has changed, written as a whole.

Everything here blocks, and runs in threads. Readers take no lock of the file. Writers that wait at
the same time share one replacement of the file, and each of their jobs happens wholly or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from aiostorage._core.boot import boot_id
from aiostorage._core.event_log import EventLog
from aiostorage._core.projection import select
from aiostorage._core.query import compile_condition
from aiostorage._core.steady_clock import BootClock
from aiostorage._core.table import tables_of
from aiostorage._core.table_log import read_table_log
from aiostorage._core.table_operations import AllOrNone, run, run_all
from aiostorage.drivers.track.contents import SECTION, TOO_DEEP, TRIALS, Contents, parts_of
from aiostorage.drivers.track.data_file import DataFile, Signature
from aiostorage.drivers.track.exact import OURS
from aiostorage.drivers.track.file_lock import FileLock
from aiostorage.drivers.track.file_text import text_of
from aiostorage.drivers.track.pending_write import PendingWrite
from aiostorage.drivers.track.records import Records
from aiostorage.drivers.track.section import boot_of, version_of
from aiostorage.errors import (
    BackendError,
    DuplicateKeyError,
    NotADatabaseError,
    TemporaryBackendError,
)
from aiostorage.operations import Document, Find, Layout, LogPage, Operation
from aiostorage.upgrades import UpgradeStep, steps_from

__all__ = ["TrackStore"]

LARGE_FILE_TRIALS: Final = 5000
"""Trials beyond which a warning says that each write writes them all."""

MAX_ATTEMPTS: Final = 10
"""How often a write starts again because a program without the lock has changed the file."""

events: Final = EventLog("track")
_warned: Final[set[Path]] = set()


class TrackStore:
    """The documents of one file.

    Parameters
    ----------
    file
        The file.
    layout
        The collections.
    clock
        Tells the moment; it gets the number of the boot from the file.
    objective
        The name of the metric that is the objective, if it is known.
    timeout
        Seconds to wait for the lock of the file.

    Attributes
    ----------
    logs
        Whether changes are logged where the layout says so.
    """

    def __init__(
        self,
        file: DataFile,
        layout: Layout,
        clock: BootClock,
        objective: str | None,
        timeout: float,
    ) -> None:
        self.logs: bool = True
        self._file = file
        self._layout = layout
        self._clock = clock
        self._timeout = timeout
        self._records = Records(layout, objective)
        self._file_lock = FileLock(file.path)
        self._boot = boot_id()
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self._oldest = layout.version  # the oldest layout that is read; an upgrade reads all
        self._contents = Contents()
        self._data: bytes | None = None
        self._signature: Signature | None = None
        self._tells = False
        self._reset()

    def open(self, creates: bool) -> None:
        """Read the file, or make it."""
        if self._file.check():
            with self._lock:
                data, *_ = self._file.read()
            if data or not creates:
                with self._fresh():
                    return
        elif not creates:
            raise self._file.missing_error()
        self.commit((), lays_out=True)

    def give_up(self) -> None:
        """Have `open` wait for the lock no longer: it is not wanted any more."""
        self._given_up.set()

    def read(self, operation: Operation[Any]) -> Any:
        """Carry out an operation that only reads."""
        with self._fresh():
            return run(self._tables[operation.collection], operation, self._clock(), [])

    def read_all(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Carry out operations that only read, on one state of the file."""
        with self._fresh():
            now = self._clock()
            return [run(self._tables[one.collection], one, now, []) for one in operations]

    def page(self, find: Find, after: int, size: int) -> tuple[list[Document], int | None]:
        """Return a page of documents, and the cursor for the next one."""
        with self._fresh():
            table = self._tables[find.collection]
            match = compile_condition(table.clocked.resolved(find.where, self._clock()))
            rest = (
                (seq, document)
                for seq in range(after + 1, table.last + 1)
                if (document := table.documents.get(seq)) is not None and match(document)
            )
            found = list(islice(rest, size))
            documents = [table.clocked.hide(select(d, find.selection)) for _, d in found]
            return documents, found[-1][0] if len(found) == size else None

    def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """Return a page of a log; see `aiostorage.protocols.LoggingDriver.read_log`."""
        with self._fresh():
            return read_table_log(self._tables[log], owner, after, limit)

    def version(self) -> object:
        """Return the version of the present state of the file."""
        return self._file.signature()

    def commit(self, jobs: Sequence[PendingWrite], *, lays_out: bool = False) -> bool:
        """Carry out jobs, and write the file once; return whether another process waits.

        Parameters
        ----------
        lays_out
            Whether the file may be missing or empty, and is written in any case.
        """
        self._acquire_file_lock(jobs)
        try:
            with self._lock:
                for _ in range(MAX_ATTEMPTS):
                    if self._is_done(jobs, lays_out):
                        break
                else:
                    raise TemporaryBackendError(
                        f"{self._file.path} was changed again and again while it was written, by "
                        "a program that does not lock it"
                    )
        finally:
            waits = self._file_lock.release()
        return waits

    def upgrade(
        self,
        steps: Sequence[UpgradeStep],
        back_up: Callable[[int, bytes], None],
        *,
        dry_run: bool,
    ) -> tuple[int | None, list[str]]:
        """Bring the file to the layout; return the version that it had, and notes for the user.

        Parameters
        ----------
        back_up
            Called with that version and the bytes of the file, before they are replaced.
        """
        self._acquire_file_lock()
        notes: list[str] = []
        try:
            with self._lock:
                self._oldest = 0
                self._refresh()
                found, now = self._contents.version, self._clock()
                if found is not None and found < self._layout.version:
                    for step in steps_from(steps, found, self._layout.version):
                        plan = step.plan(
                            run(self._tables[step.find.collection], step.find, now, [])
                        )
                        notes += plan.notes
                        run_all(self._tables, plan.operations, now, [], logs=False)
                    if not dry_run:
                        back_up(found, self._data or b"")
                        self._write()
        except _ChangedMeanwhileError:
            raise TemporaryBackendError(f"{self._file.path} was changed meanwhile") from None
        finally:
            self._file_lock.release()
        return found, notes

    # ------------------------------------------------------------------------------ the file

    def _acquire_file_lock(self, jobs: Sequence[PendingWrite] = ()) -> None:
        def unwanted() -> bool:
            if jobs:
                return all(job.future.cancelled() for job in jobs)
            return self._given_up.is_set()

        self._file_lock.acquire(self._timeout, self._file.mode & 0o666, unwanted)

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """Hold the documents as the file has them now, for a reader."""
        with self._lock:
            try:
                self._refresh()
            except NotADatabaseError:
                if not self._file_lock.path.exists():
                    raise
                # a program may be writing it in place, under the lock
            else:
                yield
                return
        self._acquire_file_lock()
        try:
            with self._lock:
                self._refresh()
                yield
        finally:
            self._file_lock.release()

    def _is_done(self, jobs: Sequence[PendingWrite], lays_out: bool) -> bool:
        """Carry out jobs; return False if the file was changed meanwhile, so that nothing was."""
        if lays_out and self._signature is None:
            self._begin()
        else:
            self._refresh()
        now = self._clock()
        try:
            with AllOrNone() as undo:
                for job in jobs:
                    if not job.begin():
                        continue
                    try:
                        with AllOrNone() as mine:
                            job.results = run_all(
                                self._tables, job.operations, now, mine, logs=self.logs
                            )
                    except Exception as error:  # noqa: BLE001  its caller gets it
                        job.error = error
                    else:
                        undo.extend(mine)
                if undo or lays_out:
                    self._write()
        except _ChangedMeanwhileError:
            for job in jobs:
                job.results = job.error = None
            self._tells = False
            return False
        return True

    def _begin(self) -> None:
        """Be ready to make a file; or read the one that another process has made."""
        signature = self._file.signature()
        if signature is None or signature.size == 0:
            self._reset()
            self._signature, self._tells = signature, True
            self._number_boot(None)
        else:
            self._refresh()

    def _write(self) -> None:
        documents = {name: table.documents for name, table in self._tables.items()}
        boot = (self._clock.boot or 0, self._boot) if self._boot else None
        try:
            contents = self._records.write(self._contents, documents, self._layout.version, boot)
            data = text_of(contents)
        except RecursionError:
            raise BackendError(f"{self._file.path} cannot be written: {TOO_DEEP}") from None
        except ValueError as error:  # another program wrote no JSON, such as 1e999
            raise BackendError(f"{self._file.path} cannot be written: {error}") from error
        written = self._file.replace(data, self._signature) if self._file_lock.holds else None
        if written is None:
            raise _ChangedMeanwhileError
        self._contents, self._data = contents, data
        self._signature, self._tells = written, True
        self._warn_of_many()

    def _refresh(self) -> None:
        """Read the file if it has changed."""
        found = self._file.signature()
        if found is None:
            raise self._file.missing_error()
        if found == self._signature and self._tells:
            return
        for pause in (0.01, 0.03, 0.1, None):
            data, signature, tells = self._file.read()
            try:
                if data != self._data:
                    self._load(data)
            except NotADatabaseError:
                if tells or pause is None:
                    raise
                time.sleep(pause)  # an editor may be about to write it
            else:
                self._data, self._signature, self._tells = data, signature, tells
                return

    def _load(self, data: bytes) -> None:
        try:
            self._take_over(data)
        except RecursionError:
            self._reset()
            raise NotADatabaseError(
                f"{self._file.path} cannot be read, and was left as it is: {TOO_DEEP}"
            ) from None

    def _take_over(self, data: bytes) -> None:
        parts = parts_of(data, self._file.path, repeats=self._data is None)
        path, known = self._file.path, self._layout.version
        version = version_of(parts.section.get("layout"), path, self._oldest, known)
        boot = boot_of(parts.section.get("boot"), path)
        self._number_boot(boot)
        contents = self._records.read(parts, version, boot, self._contents, self._clock())
        head = contents.heads.get(SECTION, {}).get("metadata")
        if isinstance(head, dict) and isinstance(head.get(OURS), dict):
            head[OURS].pop("collections", None)  # they are items now
        try:
            for name, table in self._tables.items():
                items = contents.items.get(name, {})
                table.load({seq: item.document for seq, item in items.items() if item.document})
        except DuplicateKeyError as error:
            self._reset()
            raise NotADatabaseError(f"{path} is damaged, and was left as it is: {error}") from error
        self._contents = contents
        self._warn_of_many()

    def _reset(self) -> None:
        """Have no documents, until the file is read."""
        self._tables = tables_of(self._layout)
        self._contents = Contents()
        self._data = self._signature = None
        self._tells = False

    def _number_boot(self, last: tuple[int, str] | None) -> None:
        """Find the number of this boot: that of the file, or the next one."""
        if not self._boot:
            return
        number, name = last or (0, "")
        self._clock.boot = number if name == self._boot else number + 1

    def _warn_of_many(self) -> None:
        count, path = len(self._contents.items.get(TRIALS, ())), self._file.path
        if count > LARGE_FILE_TRIALS and path not in _warned:
            _warned.add(path)
            events.warning(
                "large_file",
                "%(store)s has %(trials)d trials, and each write writes them all; copy them to "
                "SQLite for more",
                store=path,
                trials=count,
            )


class _ChangedMeanwhileError(Exception):
    """The file is another one than that which was read."""
