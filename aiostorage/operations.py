"""The interface of an engine: conditions on documents, and operations on collections.

All of these are frozen records. The core builds them, and drivers carry them out; neither knows
more about the other. Queries written by people are parsed into conditions by
``aiostorage._core.query.parse``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from aiostorage._core.frozen_records import FrozenRecord, frozen_record
from aiostorage.errors import EncodingError

__all__ = [
    "EVERYTHING",
    "After",
    "And",
    "Collection",
    "Compare",
    "Comparison",
    "Condition",
    "Count",
    "Delete",
    "Document",
    "ElementMatch",
    "Field",
    "Find",
    "FollowUp",
    "Index",
    "Insert",
    "InsertNext",
    "Layout",
    "LogPage",
    "Logged",
    "NotedChange",
    "Operation",
    "Or",
    "OutboxNote",
    "Receipt",
    "SortBy",
    "StoreTime",
    "Take",
    "UnreadableDocument",
    "Update",
    "only_reads",
]

Document: TypeAlias = dict[str, Any]
Comparison: TypeAlias = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists"]

T_co = TypeVar("T_co", covariant=True)


class UnreadableDocument(dict[str, Any]):
    """The readable fields of a document that an engine cannot decode as a whole.

    It takes the place of that document, so that one damaged record does not hide the others. A
    field that it does not contain may exist all the same: `get` raises for such a field.

    Parameters
    ----------
    fields
        The fields that could be read.
    reason
        Why the rest could not be read.
    """

    def __init__(self, fields: Mapping[str, Any], reason: str) -> None:
        super().__init__(fields)
        self.reason = reason

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002  it may be wrong
        """Return the value of a field; EncodingError if it could not be read."""
        if key in self:
            return self[key]
        raise EncodingError(self.reason)


@frozen_record
class StoreTime(FrozenRecord):
    """The store's own clock at the moment the operation is carried out, plus `offset` seconds.

    It takes the place of a datetime in the value of a `Compare`, and in the top-level values of
    `changes` and of inserted documents, always of a declared field of kind ``time``.
    """

    offset: float = 0.0

    def at(self, now: datetime) -> datetime:
        """Return the moment that is meant when the store's clock shows `now`."""
        return now + timedelta(seconds=self.offset) if self.offset else now


# ------------------------------------------------------------------------------- conditions


@frozen_record
class Compare(FrozenRecord):
    """A comparison of the value at a dotted `path` with `value`, as MongoDB means it.

    `value` is a storable value; a tuple of them for ``in`` and ``nin``; a bool for ``exists``.
    """

    path: str
    op: Comparison
    value: Any


@frozen_record
class And(FrozenRecord):
    """All of `conditions` hold; an empty one always does."""

    conditions: tuple[Condition, ...]


@frozen_record
class Or(FrozenRecord):
    """At least one of `conditions` holds."""

    conditions: tuple[Condition, ...]


@frozen_record
class ElementMatch(FrozenRecord):
    """The value at the dotted `path` is a list with an element that meets the whole `condition`.

    It is MongoDB's ``$elemMatch``. The paths in `condition` begin at the element, which is a dict;
    an element that is a list counts as a dict with the keys ``0``, ``1`` and so on. Or all of them
    are empty: then `condition` is one comparison of the element itself, or an `And` of several,
    each with another `op`. No value in `condition` is a `StoreTime`.
    """

    path: str
    condition: Condition

    @property
    def of_itself(self) -> bool:
        """Whether `condition` is about the element itself, not about its content."""
        return _is_of_itself(self.condition)


def _is_of_itself(condition: Condition) -> bool:
    if isinstance(condition, And | Or):
        return any(map(_is_of_itself, condition.conditions))
    return not condition.path


Condition: TypeAlias = Compare | And | Or | ElementMatch

EVERYTHING = And(())


# ------------------------------------------------------------------------------- operations


@frozen_record
class Operation(FrozenRecord, Generic[T_co]):
    """One thing to do on one collection; the type parameter is the type of its result."""

    collection: str


@frozen_record
class Insert(Operation[None]):
    """Add `documents`, all or none; each has its ``_id``. A taken key raises `DuplicateKeyError`.

    The documents belong to the caller, who may read and change them afterwards: a driver does not
    change them, and keeps copies. The same is true of the values in `changes` of other operations.

    `repeated` says that an earlier attempt may have inserted them. If it may have inserted only
    some of them, the engine keeps those and inserts the others.
    """

    documents: tuple[Document, ...]
    repeated: bool = False


@frozen_record
class SortBy(FrozenRecord):
    """A value to sort by. Documents without it come last, in both directions.

    Attributes
    ----------
    path
        The name of a declared field; with an `element`, of a field that holds a list.
    descending
        Whether the greatest values come first.
    element
        A condition on the elements of the list, as in an `ElementMatch`. Documents are sorted by
        the field ``value`` of the first dict in the list that meets it, if that is a number; a bool
        or NaN does not count as one.
    """

    path: str
    descending: bool = False
    element: Compare | None = None


@frozen_record
class After(FrozenRecord):
    """A place in the order of a `Find`: right behind a document.

    The documents behind it are those whose values come later in the order; and of those with equal
    values, the ones that were inserted after the document. If the document no longer exists, no
    document with equal values counts as behind it.

    Attributes
    ----------
    uid
        The ``_id`` of the document.
    values
        The values of the document when it was read, for each item of the order; None for a missing
        one.
    """

    uid: Any
    values: tuple[Any, ...] = ()


@frozen_record
class Find(Operation[list[Document]]):
    """Return the documents that match, in order, as fresh copies.

    Attributes
    ----------
    selection
        Field paths to keep (values true) or to leave out (values false); None keeps all.
    order
        Names of declared fields to sort by, ascending: None first, then ints, then texts by their
        code points (``"10"`` comes before ``"9"``, and both after 9), then times; or `SortBy`.
        Ties, and an empty `order`, go by insertion, the oldest first.
    limit
        The maximum number of documents; None for all.
    majority
        Whether to see only data that a majority of the servers has, which no failover undoes.
    after
        The place behind which to begin; None for the beginning. With it, `order` has no clocked
        fields.
    """

    where: Condition = EVERYTHING
    selection: Mapping[str, bool] | None = None
    order: tuple[str | SortBy, ...] = ()
    limit: int | None = None
    majority: bool = False
    after: After | None = None


@frozen_record
class Count(Operation[int]):
    """Return the number of documents that match; `majority` as in `Find`."""

    where: Condition = EVERYTHING
    majority: bool = False


def only_reads(operations: Sequence[Operation[Any]]) -> bool:
    """Return whether operations change nothing: an engine need not block writers for them."""
    return all(isinstance(operation, Find | Count) for operation in operations)


@frozen_record
class Update(Operation[int]):
    """Set `changes` (dotted paths to values) in every match; return how many matched.

    `applied` matches when the update is in place already: after an attempt whose answer was lost,
    the retry layer checks it before it concludes that nothing matched.

    `reason` is written into the rows that an engine logs for the update; see `Logged`.
    """

    where: Condition
    changes: Mapping[str, Any]
    applied: Condition | None = None
    reason: str | None = None


@frozen_record
class Take(Operation[list[Document]]):
    """Atomically set `changes` in the first `limit` matches by `order`; return them.

    The documents are returned as they are after the change. A `limit` of None takes all matches.

    `applied` matches the documents that this operation itself changed (by its token); `reason` is
    as in an `Update`.
    """

    where: Condition
    changes: Mapping[str, Any]
    order: tuple[str, ...] = ()
    limit: int | None = 1
    applied: Condition | None = None
    reason: str | None = None


@frozen_record
class Delete(Operation[int]):
    """Remove every match; return how many there were."""

    where: Condition


@frozen_record
class FollowUp(Operation[None]):
    """Insert documents that depend on the results of the operations before it.

    It comes after other operations of a `transact`. An engine carries out the insertion that
    `aiostorage.engine.insertion_of` makes from it and these results, together with the others or
    not at all. The insertion may be empty.
    """


@frozen_record
class Receipt(FollowUp):
    """Store the results of the operations before it under a key.

    A caller who did not get the answer of that `transact` finds it there. Two attempts with the
    same key cannot both happen: the second one raises `DuplicateKeyError`. If no operation did
    anything (all results are 0 or empty), nothing is stored, and a repetition does no harm.

    Attributes
    ----------
    key
        Becomes the ``_id`` of the record.
    expires
        When the record may be deleted.
    repeated
        Whether an earlier attempt may have happened, or may still happen. If so, the key is always
        taken, so that the earlier attempt cannot happen afterwards.
    skipped
        How many operations at the beginning are not the caller's; their results are not stored.
    """

    key: str
    expires: StoreTime
    repeated: bool = False
    skipped: int = 0


@frozen_record
class InsertNext(FollowUp):
    """Insert `documents` under the next free keys, such as consecutive numbers.

    It comes right after the `Find` that returns which of these keys are taken. The documents get
    the keys behind the last one that is taken, in order. If there are too few, nothing is inserted.
    Without transactions another caller may take a key at the same time, which raises
    `DuplicateKeyError`, as for an `Insert`.

    Attributes
    ----------
    documents
        As in an `Insert`, without their keys.
    key
        The field that has the key.
    places
        What a document gets with its key, in the order of the keys: dotted paths to values, as the
        `changes` of an `Update`. One of the paths is `key`.
    """

    documents: tuple[Document, ...]
    key: str
    places: tuple[Mapping[str, Any], ...]


@frozen_record
class NotedChange(FrozenRecord):
    """The possible change by one of the operations before an `OutboxNote`.

    Attributes
    ----------
    position
        The position of the operation in its `transact`. It has changed something unless its result
        is 0 or empty.
    change
        ``inserted``, ``reserved``, ``changed`` or ``deleted``.
    named
        The ids of the experiment and of the trial, if they are known; that of a trial is None if
        the experiment itself changes. None: the documents in the result have the ids.
    fields
        The fields of these documents that have the ids: of the experiment and of the trial, or of
        the experiment alone.
    replaced
        The new values of these fields, if the operation changes them.
    worker
        The token of the reservation, if the change is made under one.
    inserted
        The operation at `position`, and which of its documents has the ids, if these are known only
        when it is carried out.
    """

    position: int
    change: str
    named: tuple[Any, Any] | None = None
    fields: tuple[str, ...] = ()
    replaced: Mapping[str, Any] | None = None
    worker: str | None = None
    inserted: tuple[InsertNext, int] | None = None


@frozen_record
class OutboxNote(FollowUp):
    """Note what the operations before it have changed, each trial and experiment once.

    If nothing has changed, nothing is noted.

    Attributes
    ----------
    changes
        What each operation changes.
    """

    changes: tuple[NotedChange, ...]


@frozen_record
class LogPage(FrozenRecord):
    """Some rows of a log, in the order in which the changes took effect.

    Attributes
    ----------
    rows
        The rows, each with the cursor behind it.
    cursor
        The place behind all rows that were read.
    """

    rows: tuple[tuple[str, Document], ...]
    cursor: str


# ----------------------------------------------------------------------------------- layout


@frozen_record
class Field(FrozenRecord):
    """A top-level field that queries, indexes or sorts use; an engine may give it a real column.

    Attributes
    ----------
    kind
        The type of its values besides None: ``key`` is a str or a 64-bit int, ``time`` a datetime,
        ``bytes`` bytes. The int 1 and the text ``"1"`` are different keys, and all ints sort before
        all texts.
    required
        Whether every document has it, not None.
    clocked
        Whether it decides who is alive: a time that is compared with `StoreTime` and sorted by. An
        engine whose wall clock may be set keeps its own measure of time beside it, and uses that
        measure in such comparisons and sorts.
    """

    name: str
    kind: Literal["key", "time", "bytes"]
    required: bool = False
    clocked: bool = False


@frozen_record
class Index(FrozenRecord):
    """Fields that are looked up or sorted by together.

    Attributes
    ----------
    unique
        No two documents are equal in all of these fields; a missing field counts as None.
    where
        Only documents that match are in the index.
    descending
        An engine whose keys have a direction makes this index descend, so that another program's
        index on the same fields can exist beside it.
    """

    fields: tuple[str, ...]
    unique: bool = False
    where: Condition | None = None
    descending: bool = False


@frozen_record
class Logged(FrozenRecord):
    """Which changes of the documents in a collection an engine logs, and where.

    At most one collection of a layout is logged.

    A row is a document of another collection, whose fields are ``_id``, ``kind``, ``owner``,
    ``name``, ``before``, ``after``, ``holder``, ``attempt``, ``time`` and ``reason``. The engine
    writes it in the transaction of the change; `aiostorage.engine.log_rows` says what it contains.

    Attributes
    ----------
    log
        The collection of the rows.
    owner, name
        The fields that together name a document; a row has their values as ``owner`` and ``name``.
    state
        The field whose changes are all logged.
    holder
        The field with the token of the current or last holder.
    content
        The field whose changes are logged if the state stays as it is.
    taken
        The state in which a document has a holder. Each time that a document enters this state, or
        gets another holder in it, its number of attempts grows by one.
    """

    log: str
    owner: str
    name: str
    state: str
    holder: str
    content: str
    taken: str


@frozen_record
class Collection(FrozenRecord):
    """A named set of documents. ``_id`` is implied: a required, unique ``key``.

    Attributes
    ----------
    logged
        Which changes of its documents are logged; None for none.
    references
        Dotted paths that hold the ``_id`` of another record, for engines with a type of their own
        for ids.
    """

    name: str
    fields: tuple[Field, ...]
    indexes: tuple[Index, ...] = ()
    references: tuple[str, ...] = ()
    logged: Logged | None = None


@frozen_record
class Layout(FrozenRecord):
    """All collections of a store, and the version of their shape."""

    version: int
    collections: tuple[Collection, ...]
