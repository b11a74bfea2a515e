"""Changes of trials and experiments, noted in the outbox together with the change itself.

`NotingDriver` stands between the gateway and the engine of a storage that has a tracker. Whatever
reaches the engine passes here: calls, their repetitions, and compensations. What is in place when
an answer was lost is in place with its rows, so that `lost_answers` need not know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast

from aiostorage._core.layout import EXPERIMENTS, OUTBOX, TRIALS
from aiostorage._core.queries.matching import conjuncts
from aiostorage._core.slices import find_slices
from aiostorage.operations import (
    Compare,
    Condition,
    Delete,
    Document,
    Find,
    Insert,
    InsertNext,
    Layout,
    LogPage,
    NotedChange,
    Operation,
    OutboxNote,
    Receipt,
    Take,
    Update,
)
from aiostorage.protocols import Driver
from aiostorage.values import TrialStatus

__all__ = ["Noted", "NotingDriver", "noted"]

T = TypeVar("T")

NAMES: Final[Mapping[str, tuple[str, ...]]] = {TRIALS: ("experiment", "id"), EXPERIMENTS: ("_id",)}
"""The fields that name the experiment, or the experiment and the trial."""

UNTOLD: Final = frozenset({"heartbeat"})
"""Fields whose changes are not noted: a tracker has no use for them."""

RESERVED: Final = TrialStatus.RESERVED.value


@dataclass(frozen=True, slots=True)
class Noted:
    """Operations, together with those that note what they change.

    Attributes
    ----------
    operations
        All operations for the engine.
    first
        The place of the caller's first operation among them.
    """

    operations: tuple[Operation[Any], ...]
    first: int


def noted(operations: Sequence[Operation[Any]]) -> Noted | None:
    """Add a note to operations that change trials or experiments; None if they change none.

    If neither an operation nor its result names the records that it changes, they are looked up
    before it.
    """
    looks: list[Find] = []
    changes: list[NotedChange] = []
    gone = _deleted_experiment(operations)
    for position, operation in enumerate(operations):
        fields = NAMES.get(operation.collection)
        if fields is None:
            continue
        match operation:
            case Insert(documents=documents):
                changes += (_inserted(position, document, fields) for document in documents)
            case InsertNext(documents=documents):
                changes += (
                    replace(
                        _inserted(position, document, fields),
                        named=None,
                        fields=fields,
                        inserted=(operation, number),
                    )
                    for number, document in enumerate(documents)
                )
            case Take():
                changes += _taken(position, operation, fields, looks)
            case Update():
                changes += _updated(position, operation, fields, looks)
            case Delete():
                changes.append(_deleted(position, operation, fields, looks, gone))
            case _:
                pass
    return _with_note(operations, looks, changes, gone) if changes else None


# A negative position means one of the look-ups: -1 the first one.


def _taken(
    position: int, take: Take, fields: tuple[str, ...], looks: list[Find]
) -> Iterator[NotedChange]:
    new = take.changes
    if new.keys() <= UNTOLD:
        return
    change, worker = _kind(take.where, new), new.get("worker")
    if not new.keys().isdisjoint(fields):  # the result has the new ids alone
        look = Find(take.collection, take.where, _selected(fields), take.order, take.limit)
        looks.append(look)
        yield NotedChange(-len(looks), change, None, fields, None, worker)
    yield NotedChange(position, change, None, fields, None, worker)


def _updated(
    position: int, update: Update, fields: tuple[str, ...], looks: list[Find]
) -> Iterator[NotedChange]:
    where, new = update.where, update.changes
    if new.keys() <= UNTOLD:
        return
    change, worker = _kind(where, new), new.get("worker", _bound(where).get("worker"))
    moved = {name: new[name] for name in fields if name in new} or None
    named = _named(where, fields) if moved is None else None
    if named is None:
        looks.append(Find(update.collection, where, _selected(fields)))
        position = -len(looks)
    yield NotedChange(position, change, named, fields, moved, worker)


def _deleted(
    position: int, delete: Delete, fields: tuple[str, ...], looks: list[Find], gone: Any
) -> NotedChange:
    named = _named(delete.where, fields)
    if gone is not None and _bound(delete.where).get(fields[0]) == gone:
        named = (gone, None)  # the tracker deletes the whole experiment
    if named is None:
        looks.append(Find(delete.collection, delete.where, _selected(fields)))
        position = -len(looks)
    return NotedChange(position, "deleted", named, fields)


def _with_note(
    operations: Sequence[Operation[Any]],
    looks: Sequence[Find],
    changes: Sequence[NotedChange],
    gone: Any,
) -> Noted:
    first = len(looks)
    placed = tuple(
        replace(
            change,
            position=change.position + first if change.position >= 0 else -1 - change.position,
        )
        for change in changes
    )
    asked = (
        replace(operation, skipped=first) if first and isinstance(operation, Receipt) else operation
        for operation in operations
    )
    rows_of_gone = () if gone is None else (Delete(OUTBOX, Compare("experiment", "eq", gone)),)
    note = OutboxNote(OUTBOX, placed)
    return Noted((*looks, *asked, *rows_of_gone, note), first)


def _deleted_experiment(operations: Sequence[Operation[Any]]) -> Any:
    """Return the id of an experiment that is deleted together with all its trials, else None."""
    whole = [operation for operation in operations if isinstance(operation, Delete)]
    for one in whole:
        if one.collection == EXPERIMENTS:
            named = _named(one.where, NAMES[EXPERIMENTS])
            for other in whole:
                if (
                    named is not None
                    and other.collection == TRIALS
                    and conjuncts(other.where) == (Compare("experiment", "eq", named[0]),)
                ):
                    return named[0]
    return None


def _inserted(position: int, document: Document, fields: tuple[str, ...]) -> NotedChange:
    experiment, trial = (*(document.get(name) for name in fields), None)[:2]
    reserved = len(fields) > 1 and document.get("status") == RESERVED
    change = "reserved" if reserved else "inserted"
    return NotedChange(position, change, (experiment, trial), worker=document.get("worker"))


def _kind(where: Condition, changes: Mapping[str, Any]) -> str:
    """Return ``reserved`` for a new reservation, and ``changed`` for any other change."""
    if changes.get("status") != RESERVED:
        return "changed"
    held = "worker" not in changes and _bound(where).get("status") == RESERVED
    return "changed" if held else "reserved"


def _selected(fields: tuple[str, ...]) -> dict[str, bool]:
    return dict.fromkeys(fields, True)


def _bound(where: Condition) -> dict[str, Any]:
    """Return the fields that must equal one key."""
    return {
        part.path: part.value
        for part in conjuncts(where)
        if isinstance(part, Compare) and part.op == "eq" and part.value.__class__ in (str, int)
    }


def _named(where: Condition, fields: tuple[str, ...]) -> tuple[Any, Any] | None:
    bound = _bound(where)
    if not all(name in bound for name in fields):
        return None
    return bound[fields[0]], bound[fields[1]] if len(fields) > 1 else None


def _nothing() -> None:
    """Do nothing."""


class NotingDriver:
    """A driver that notes every change of a trial or an experiment in the outbox.

    Parameters
    ----------
    driver
        The engine.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.changed: Callable[[], object] = _nothing
        """Called in the event loop after the driver was opened, and after a change was noted."""

    def __getstate__(self) -> dict[str, Any]:
        return {"driver": self.driver}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # `changed` is not copied

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.driver!r})"

    @property
    def name(self) -> str:
        """See `aiostorage.protocols.Driver.name`."""
        return self.driver.name

    @property
    def location(self) -> str:
        """See `aiostorage.protocols.Driver.location`."""
        return self.driver.location

    @property
    def resolution(self) -> timedelta:
        """See `aiostorage.protocols.Driver.resolution`."""
        return self.driver.resolution

    @property
    def client_key(self) -> Hashable | None:
        """A key that drivers of one client have in common; None without a shared client."""
        key: Hashable | None = getattr(self.driver, "client_key", None)
        return key

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        await self.driver.open(layout)
        self.changed()

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        await self.driver.aclose()

    async def execute(self, operation: Operation[T]) -> T:
        """Carry out an operation, and note what it changes."""
        plan = noted((operation,))
        if plan is None:
            return await self.driver.execute(operation)
        results = await self.driver.transact(plan.operations)
        self.changed()
        return cast(T, results[plan.first])

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Carry out operations, and note what they change."""
        plan = noted(operations)
        if plan is None:
            return await self.driver.transact(operations)
        results = await self.driver.transact(plan.operations)
        self.changed()
        return results[plan.first : plan.first + len(operations)]

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether the engine never began the operation, whose caller was cancelled."""
        never_began = getattr(self.driver, "never_began", None)
        return never_began is not None and bool(never_began(operation))

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        return await self.driver.page(find, after, size)

    async def slices(self, find: Find, size: int) -> Iterator[list[Document]]:
        """See `aiostorage.protocols.SlicingDriver.slices`."""
        return await find_slices(self.driver, find, size)

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """See `aiostorage.protocols.LoggingDriver.read_log`; not for an engine without a log."""
        page: LogPage = await self.driver.read_log(log, owner, after, limit)  # type: ignore[attr-defined]
        return page

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`."""
        return await self.driver.now()

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        return await self.driver.wait_for_change(collection, since, timeout)
