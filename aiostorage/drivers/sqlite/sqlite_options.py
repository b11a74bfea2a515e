"""The SQLite engine that a URL or options ask for."""

from __future__ import annotations

import os
import sqlite3
from typing import Any, Final

from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.files.path_options import options_in_url, path_of_url, split_url
from aiostorage.drivers.sqlite.driver import SQLiteDriver
from aiostorage.errors import ConfigurationError

__all__ = ["LIBRARY_VERSION", "driver_from_options"]

LIBRARY_VERSION: Final = sqlite3.sqlite_version
"""The version of SQLite itself."""

_IN_URL: Final = ("synchronous", "busy_timeout")
"""Options that may stand in the query of a URL."""


def driver_from_options(
    *,
    url: str | None = None,
    path: str | os.PathLike[str] | None = None,
    synchronous: str | None = None,
    busy_timeout: float | str | None = None,
) -> SQLiteDriver:
    """Return the driver for the file that either a URL or a path names.

    Parameters
    ----------
    url
        ``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``; the other options may
        stand in its query, and are overridden by those passed here.
    path, synchronous, busy_timeout
        See `SQLiteDriver`.

    Raises
    ------
    ConfigurationError
        No file is named, or two; or an option cannot work.
    """
    options: dict[str, Any] = {}
    if url is not None:
        where, options = _path_and_options(url)
        if path is not None:
            raise ConfigurationError("sqlite: pass a URL or a path, not both")
        path = where
    if path is None or path == "":
        raise ConfigurationError("sqlite: which file? write sqlite:///tune.db, or pass a path")
    if synchronous is not None:
        options["synchronous"] = synchronous
    if busy_timeout is not None:
        options["busy_timeout"] = busy_timeout
    if "synchronous" in options:
        options["synchronous"] = str(options["synchronous"]).upper()
    return SQLiteDriver(path, **options)


def _path_and_options(url: str) -> tuple[str, dict[str, Any]]:
    parts, shown = split_url("sqlite", url), hide_credentials(url)
    if parts.netloc:
        path = hide_credentials(f"{parts.netloc}{parts.path}")
        raise ConfigurationError(
            f"{shown!r} has a file name where a host would stand; a relative path has three "
            f"slashes ({parts.scheme}:///{path}), an absolute one four"
        )
    if parts.fragment:
        raise ConfigurationError(f"{shown!r}: write %23 for a # in a path")
    options = options_in_url(shown, parts.query, _IN_URL)
    return path_of_url("sqlite", url, parts.path[1:]), options
