"""The version of an experiment that has none: it is the first one.

aiostorage stores a version with every experiment. Oríon may store experiments without one, in the
same database or through its storage type here; they are read as version 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage._core.queries.query import matches
from aiostorage.operations import And, Compare, Condition, Document, Or

__all__ = ["FIRST_VERSION", "selects_version", "version_as_read", "version_of", "with_version"]

FIRST_VERSION: Final = 1


def version_of(config: Mapping[str, Any]) -> int:
    """Return the version of an experiment as it is read."""
    version = config.get("version")
    return version if isinstance(version, int) else FIRST_VERSION


def with_version(config: Document) -> Document:
    """Return a config, which may be the same object, with its version."""
    if config.get("version") is None:
        config["version"] = FIRST_VERSION
    return config


def selects_version(selection: Mapping[str, bool] | None) -> bool:
    """Return whether documents that are read with this selection have their version."""
    if not selection:
        return True
    others = [kept for name, kept in selection.items() if name != "_id"]
    includes = all(others or selection.values())
    return selection.get("version", not includes)


def version_as_read(condition: Condition) -> Condition:
    """Return the condition that takes a missing version for the first one.

    A condition that itself names None, or asks whether there is a version, means what is stored.
    """
    match condition:
        case And(conditions):
            return And(tuple(map(version_as_read, conditions)))
        case Or(conditions):
            return Or(tuple(map(version_as_read, conditions)))
        case Compare("version", op, value) if op != "exists" and not _names_none(value):
            wanted = matches({"version": FIRST_VERSION}, condition)
            if wanted == matches({}, condition):
                return condition
            if wanted:
                return Or((condition, Compare("version", "eq", None)))
            return And((condition, Compare("version", "ne", None)))
        case _:
            return condition


def _names_none(value: Any) -> bool:
    return value is None or (isinstance(value, tuple) and None in value)
