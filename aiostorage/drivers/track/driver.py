"""Track: one JSON file that people can read, and that Delaunay's Track reads as well.

The file is replaced as a whole, under a lock beside it: whoever reads it sees the old file or the
new one. Operations that wait at the same time share one replacement. Nothing is held open between
two operations, and everything that blocks happens in threads.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.to_thread

from aiostorage._core.cancellation import run_to_completion, shielded
from aiostorage._core.files.path_options import checked_path, checked_seconds
from aiostorage._core.in_memory.steady_clock import BootClock, utc_now
from aiostorage._core.process.abandoned import warn_unclosed
from aiostorage.drivers.track.data_file import MAX_ADDED_BYTES, DataFile
from aiostorage.drivers.track.shared_writes import SharedWrites
from aiostorage.drivers.track.store import TrackStore
from aiostorage.drivers.track.track_examination import examine_file, repair_file
from aiostorage.drivers.track.track_upgrade import upgrade
from aiostorage.drivers.track.watchers import Watchers
from aiostorage.errors import ConfigurationError, PermissionDenied, StorageClosedError
from aiostorage.findings import EngineReport, Finding, Repair
from aiostorage.operations import Count, Document, Find, Layout, LogPage, Operation, only_reads
from aiostorage.upgrades import UpgradeProgress, UpgradeReport, UpgradeStep, silent

__all__ = ["TrackDriver"]

T = TypeVar("T")

MIN_POLL_INTERVAL: Final = 0.005
MAX_POLL_INTERVAL: Final = 0.05
"""Seconds between two checks of the file for changes of other processes: at first, and later."""


class TrackDriver:
    """Documents in one JSON file, in the format of Delaunay's Track.

    Parameters
    ----------
    path
        The file; made with mode 0600 when it is missing. Its directory must exist.
    objective
        The name of the metric that is the objective of a trial whose metrics another program has
        logged. None: the one that the file names, else a metric called ``objective``, else the only
        one.
    busy_timeout
        Seconds that one attempt waits for other processes that write; the retry policy decides
        about further attempts.
    clock
        Returns the time, in UTC. It then decides what the machine's own clock decides by default:
        which heartbeats, leases and tickets are old. All who share a file take the same clock.

    Attributes
    ----------
    creates
        Whether opening it makes the file when it is missing.
    objective
        See the parameter.
    logs
        See `aiostorage.protocols.LoggingDriver`.
    """

    name = "track"
    default_history: Final = "1000"
    """The file is written as a whole each time, with its history."""

    resolution: timedelta = timedelta(microseconds=1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        objective: str | None = None,
        busy_timeout: float = 5.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.objective: str | None = _checked_name(objective)
        self._path = checked_path(self.name, path, beside=MAX_ADDED_BYTES)
        self._busy_timeout = checked_seconds(self.name, "busy_timeout", busy_timeout)
        self._clock = BootClock(clock)
        self.on_group: Callable[[int, int], None] | None = None
        """Called before each write: how many share it, and how many wait."""
        self.creates: bool = True
        self._logs = True
        self._reads_only = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._store: TrackStore | None = None
        self._writer: SharedWrites | None = None
        self._watchers = Watchers()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path.absolute(),  # a copy may be opened in another directory
            "objective": self.objective,
            "busy_timeout": self._busy_timeout,
            "creates": self.creates,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        creates = state.pop("creates", True)
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew
        self.creates = creates

    def __del__(self) -> None:
        if getattr(self, "_writer", None) is not None and self._pid == os.getpid():
            self._writer = None  # now, since whoever records warnings keeps this object
            warn_unclosed(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def logs(self) -> bool:  # noqa: D102  see the class
        return self._logs

    @logs.setter
    def logs(self, value: bool) -> None:
        self._logs = value
        if self._store is not None:
            self._store.logs = value

    # ------------------------------------------------------------------------ open and close

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        if self._pid != os.getpid():  # the threads and locks of the parent are not here
            self._reset()
        if self._writer is not None:
            return
        self._path = await anyio.to_thread.run_sync(self._path.absolute)

        def make() -> TrackStore:
            file = DataFile(self._path)
            return TrackStore(file, layout, self._clock, self.objective, self._busy_timeout)

        store = await anyio.to_thread.run_sync(make)
        opening = partial(anyio.to_thread.run_sync, store.open, self.creates)
        await run_to_completion(opening, store.give_up)
        self.creates = False  # a file that is gone later was lost
        store.logs = self._logs
        writer = SharedWrites(store, self._watchers.wake, self.on_group)
        self._store, self._writer = store, writer

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        if self._pid != os.getpid():
            return
        writer, self._writer, self._store = self._writer, None, None
        self.creates = True
        self._watchers.wake()
        if writer is not None:
            await shielded(None, partial(anyio.to_thread.run_sync, writer.drain))

    def reader(self) -> TrackDriver:
        """See `aiostorage.protocols.ExaminableDriver.reader`."""
        other = TrackDriver(
            self._path,
            objective=self.objective,
            busy_timeout=self._busy_timeout,
            clock=self._clock.wall,
        )
        other.creates, other._reads_only = False, True
        return other

    async def examine(self, layout: Layout) -> EngineReport:
        """See `aiostorage.protocols.ExaminableDriver.examine`."""
        examining = partial(examine_file, self._path, layout)
        return await anyio.to_thread.run_sync(examining)

    async def repair(self, layout: Layout, findings: Sequence[Finding]) -> list[Repair]:  # noqa: ARG002  as of all engines
        """See `aiostorage.protocols.ExaminableDriver.repair`."""
        repairing = partial(repair_file, self._path, self._busy_timeout, findings)
        return await anyio.to_thread.run_sync(repairing)

    async def upgrade(
        self,
        layout: Layout,
        steps: Sequence[UpgradeStep],
        *,
        backup: bool | str | os.PathLike[str] = True,
        dry_run: bool = False,
        progress: UpgradeProgress = silent,
    ) -> UpgradeReport:
        """See `aiostorage.protocols.UpgradableDriver.upgrade`."""
        path = await anyio.to_thread.run_sync(self._path.absolute)
        carry_out = partial(
            upgrade,
            path,
            layout,
            steps,
            self._clock,
            self._busy_timeout,
            backup=backup,
            dry_run=dry_run,
            progress=progress,
        )
        return await anyio.to_thread.run_sync(carry_out)

    # ---------------------------------------------------------------------------- operations

    def execute(self, operation: Operation[T]) -> Awaitable[T]:
        """See `aiostorage.protocols.Driver.execute`."""
        store, writer = self._opened()
        if isinstance(operation, Find | Count):
            return cast(Awaitable[T], _in_thread(partial(store.read, operation)))
        self._check_writable()
        return cast(Awaitable[T], writer.write((operation,), single=True))

    def transact(self, operations: Sequence[Operation[Any]]) -> Awaitable[list[Any]]:
        """See `aiostorage.protocols.Driver.transact`."""
        store, writer = self._opened()
        if only_reads(operations):
            return _in_thread(partial(store.read_all, operations))
        self._check_writable()
        return writer.write(operations)

    def _check_writable(self) -> None:
        if self._reads_only:
            raise PermissionDenied(f"{self._path} was opened for reading alone")

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether the operation of a caller that was cancelled never began."""
        return self._writer is not None and self._writer.never_began(operation)

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        store, _ = self._opened()
        return await _in_thread(partial(store.page, find, cast(int, after or 0), size))

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """See `aiostorage.protocols.LoggingDriver.read_log`."""
        store, _ = self._opened()
        return await _in_thread(partial(store.read_log, log, owner, after, limit))

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock.wall()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  one version for all
        since: object | None,
        timeout: float,
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`: looks for changes of any process."""
        deadline = anyio.current_time() + timeout
        delay = MIN_POLL_INTERVAL
        with self._watchers.watching() as changed:
            while True:
                store, _ = self._opened()
                version = await _in_thread(store.version)
                left = deadline - anyio.current_time()
                if version != since or left <= 0:
                    return version
                with anyio.move_on_after(min(delay, left)):
                    await changed.wait()
                delay = min(delay * 1.5, MAX_POLL_INTERVAL)

    def _opened(self) -> tuple[TrackStore, SharedWrites]:
        if self._store is None or self._writer is None:
            raise StorageClosedError(f"{self!r} is not open")
        return self._store, self._writer


def _checked_name(objective: object) -> str | None:
    if objective is None or (isinstance(objective, str) and objective):
        return objective
    raise ConfigurationError(f"track: the objective is the name of a metric, not {objective!r}")


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function that only reads in a thread; a caller that is cancelled leaves it there."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)
