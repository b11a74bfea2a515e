"""Dotted paths into documents, as filters, selections and changes use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage.errors import UnsupportedQuery

__all__ = ["array_index", "check_collisions", "split_path"]

_MAX_NAMES: Final = 100  # as deep as documents may nest


def split_path(path: Any) -> list[str]:
    """Split a dotted path into its names.

    Raises
    ------
    UnsupportedQuery
        `path` is not a str, or a name in it is empty, starts with ``$`` or contains a NUL.
    """
    if not isinstance(path, str):
        raise UnsupportedQuery(f"field names are strings, not {path!r}")
    names = path.split(".")
    if len(names) > _MAX_NAMES:
        raise UnsupportedQuery(f"the path {path[:40]!r}... has more than {_MAX_NAMES} names")
    for name in names:
        if not name or name.startswith("$") or "\0" in name:
            raise UnsupportedQuery(
                f"the path {path!r} is not supported: its names, which dots separate, may not be "
                f"empty, start with '$' or contain a NUL"
            )
    return names


def array_index(name: str) -> int | None:
    """Read a name of a path as an index; None if it is not one, such as ``01``."""
    if len(name) <= 10 and name.isascii() and name.isdigit() and (name[0] != "0" or name == "0"):
        return int(name)
    return None


def check_collisions(paths: Mapping[str, Any], what: str) -> None:
    """Refuse a path together with another one inside it.

    Parameters
    ----------
    paths : mapping
        Its keys are valid dotted paths.
    what : str
        What names the paths, for the error.

    Raises
    ------
    UnsupportedQuery
        There are two such paths.
    """
    for path in paths:
        parent = path
        while (dot := parent.rfind(".")) >= 0:
            parent = parent[:dot]
            if parent in paths:
                raise UnsupportedQuery(
                    f"the {what} names both {parent!r} and {path!r} inside of it"
                )
