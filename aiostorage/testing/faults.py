"""A clock that moves by hand, and an engine that fails on demand."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import anyio

from aiostorage.errors import TemporaryBackendError
from aiostorage.operations import Document, Find, Layout, LogPage, Operation
from aiostorage.protocols import Driver

__all__ = ["FakeClock", "Fault", "FaultyDriver"]

T = TypeVar("T")

Fault: TypeAlias = Literal["before", "lost", "after"]
"""What happens to a call; see `FaultyDriver`."""

Operations = Sequence[Operation[Any]]
"""The operations of one call of a driver; none where it only asks for the time."""


class FakeClock:
    """A clock that stands still until its `advance` is called.

    It is called like ``datetime.now(UTC)``, so it fits the `clock` option of the drivers.

    Parameters
    ----------
    start
        The time that it shows at first; an aware datetime. Default: now.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if start is None else start.astimezone(UTC)

    def __call__(self) -> datetime:
        """Return the time, in UTC."""
        return self._now

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._now.isoformat()})"

    def advance(self, seconds: float) -> datetime:
        """Move by so many seconds, back if negative; return the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now


@dataclass(slots=True)
class _Planned:
    when: Fault
    matching: Callable[[Operations], bool]


class FaultyDriver:
    """A driver around another one that fails at times.

    Errors are `TemporaryBackendError`. One that is raised *before* an operation says that nothing
    happened; one raised *after* it stands for a lost answer: the operation happened, and the error
    is ``ambiguous``. A *lost* request has the same error, but nothing happened.

    Parameters
    ----------
    driver
        The engine that does the work.
    before, lost, after
        The probability of each fault, for each call.
    latency
        Seconds that every call waits before it does anything.
    seed
        Makes the same faults at the same calls.
    losable
        Deprecated: which operations may lose their answers by chance. A storage finds out what
        became of every write, so all of them may. Will be removed in aiostorage 0.3.

    Attributes
    ----------
    calls : int
        How many calls there were.
    faults : int
        How many of them failed on demand.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        before: float = 0.0,
        after: float = 0.0,
        latency: float = 0.0,
        seed: int = 0,
        lost: float = 0.0,
        losable: Callable[[Operations], bool] | None = None,
    ) -> None:
        if losable is not None:
            warnings.warn(
                "FaultyDriver(losable=...) goes away in aiostorage 0.3: the answer of every "
                "operation may get lost",
                DeprecationWarning,
                stacklevel=2,
            )
        self.driver = driver
        self.before = before
        self.lost = lost
        self.after = after
        self._losable = losable or _any_call
        self.latency = latency
        self.calls: int = 0
        self.faults: int = 0
        self._random = random.Random(seed)  # noqa: S311  chance, not secrets
        self._planned: list[_Planned] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.driver!r})"

    def fail_next(
        self,
        when: Fault = "after",
        *,
        count: int = 1,
        matching: Callable[[Operations], bool] | None = None,
    ) -> None:
        """Make the next calls fail for certain.

        Parameters
        ----------
        when
            ``before``: nothing happens. ``lost``: nothing happens, and the caller cannot know.
            ``after``: it happens, and its answer is lost.
        count
            How many calls.
        matching
            Which calls; any without it.
        """
        self._planned += [_Planned(when, matching or _any_call) for _ in range(count)]

    @property
    def planned(self) -> int:
        """How many of the calls that `fail_next` announced have not come yet."""
        return len(self._planned)

    def cancel_planned(self) -> None:
        """Forget the failures of `fail_next` that have not come yet."""
        self._planned.clear()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.driver.name

    @property
    def resolution(self) -> timedelta:
        """The inner driver's resolution of times."""
        return self.driver.resolution

    @property
    def location(self) -> str:
        """Where the engine's data is."""
        return self.driver.location

    async def open(self, layout: Layout) -> None:
        """Open the engine."""
        await self.driver.open(layout)

    async def aclose(self) -> None:
        """Close the engine."""
        await self.driver.aclose()

    async def execute(self, operation: Operation[T]) -> T:
        """Carry out one operation, or fail."""
        lost = await self._fail_before((operation,))
        result = await self.driver.execute(operation)
        self._fail_after(lost)
        return result

    async def transact(self, operations: Operations) -> list[Any]:
        """Carry out all operations or none, or fail."""
        lost = await self._fail_before(operations)
        results = await self.driver.transact(operations)
        self._fail_after(lost)
        return results

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether the engine never began the operation, whose caller was cancelled."""
        never_began = getattr(self.driver, "never_began", None)
        return never_began is not None and bool(never_began(operation))

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """Return one page, or fail."""
        lost = await self._fail_before((find,))
        result = await self.driver.page(find, after, size)
        self._fail_after(lost)
        return result

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """Return a page of a log, or fail."""
        lost = await self._fail_before(())
        page: LogPage = await self.driver.read_log(log, owner, after, limit)  # type: ignore[attr-defined]
        self._fail_after(lost)
        return page

    async def now(self) -> datetime:
        """Return the time by the engine's clock, or fail."""
        lost = await self._fail_before(())
        result = await self.driver.now()
        self._fail_after(lost)
        return result

    async def wait_for_change(
        self,
        collection: str,
        since: object | None,
        timeout: float,
    ) -> object:
        """Wait for the engine; this never fails on demand."""
        return await self.driver.wait_for_change(collection, since, timeout)

    async def _fail_before(self, operations: Operations) -> bool:
        """Fail before the call, or return whether its answer gets lost."""
        self.calls += 1
        if self.latency:
            await anyio.sleep(self.latency)
        when = self._fault(operations)
        if when == "before":
            self.faults += 1
            raise TemporaryBackendError("injected: nothing happened")
        if when == "lost":
            self.faults += 1
            raise TemporaryBackendError("injected: the request was lost", ambiguous=True)
        return when == "after"

    def _fault(self, operations: Operations) -> Fault | None:
        for planned in self._planned:
            if planned.matching(operations):
                self._planned.remove(planned)
                return planned.when
        chance = self._random.random()
        if chance < self.before:
            return "before"
        if chance < self.before + self.after:
            return "after" if self._losable(operations) else None
        return "lost" if chance < self.before + self.after + self.lost else None

    def _fail_after(self, lost: bool) -> None:
        if lost:
            self.faults += 1
            raise TemporaryBackendError("injected: the answer was lost", ambiguous=True)


def _any_call(_operations: Operations) -> bool:
    return True
