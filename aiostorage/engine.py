"""What an engine from elsewhere may import.

An engine implements `Driver`. The records of `aiostorage.operations` say what it is asked to do,
and the pure functions here say what that means; an engine may call them for everything that its
own library does differently or not at all. The errors that it raises are those of
`aiostorage.errors`.
"""

from aiostorage._core.changes import apply_changes, check_changes, compile_changes
from aiostorage._core.normalise import normalise
from aiostorage._core.ordering import arranged, place_of, position, values_of
from aiostorage._core.projection import copy_tree, select
from aiostorage._core.query import compile_condition, matches
from aiostorage._core.receipts import insertion_of
from aiostorage.errors import (
    BackendError,
    ConfigurationError,
    DuplicateKeyError,
    EncodingError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
    StorageClosedError,
    TemporaryBackendError,
)
from aiostorage.operations import (
    EVERYTHING,
    After,
    And,
    Collection,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    ElementMatch,
    Field,
    Find,
    FollowUp,
    Index,
    Insert,
    Layout,
    Operation,
    Or,
    OutboxNote,
    Receipt,
    SortBy,
    StoreTime,
    Take,
    UnreadableDocument,
    Update,
)
from aiostorage.protocols import Driver, ResultSource, UpgradableDriver
from aiostorage.upgrades import StepPlan, UpgradeReport, UpgradeStep, steps_from

__all__ = [
    "EVERYTHING",
    "After",
    "And",
    "BackendError",
    "Collection",
    "Compare",
    "Condition",
    "ConfigurationError",
    "Count",
    "Delete",
    "Document",
    "Driver",
    "DuplicateKeyError",
    "ElementMatch",
    "EncodingError",
    "Field",
    "Find",
    "FollowUp",
    "Index",
    "Insert",
    "Layout",
    "NotADatabaseError",
    "Operation",
    "Or",
    "OutboxNote",
    "PermissionDenied",
    "Receipt",
    "ResultSource",
    "SchemaVersionError",
    "SortBy",
    "StepPlan",
    "StorageClosedError",
    "StoreTime",
    "Take",
    "TemporaryBackendError",
    "UnreadableDocument",
    "Update",
    "UpgradableDriver",
    "UpgradeReport",
    "UpgradeStep",
    "apply_changes",
    "arranged",
    "check_changes",
    "compile_changes",
    "compile_condition",
    "copy_tree",
    "insertion_of",
    "matches",
    "normalise",
    "place_of",
    "position",
    "select",
    "steps_from",
    "values_of",
]
