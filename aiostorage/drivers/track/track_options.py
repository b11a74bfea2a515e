"""The Track engine that a URL or options ask for."""

from __future__ import annotations

import os
from typing import Any, Final

from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.files.path_options import options_in_url, path_of_url, split_url
from aiostorage.drivers.track.driver import TrackDriver
from aiostorage.errors import ConfigurationError

__all__ = ["driver_from_options"]

_IN_URL: Final = ("objective", "busy_timeout")
"""Options that may stand in the query of a URL."""


def driver_from_options(
    *,
    url: str | None = None,
    uri: str | None = None,
    path: str | os.PathLike[str] | None = None,
    objective: str | None = None,
    busy_timeout: float | str | None = None,
) -> TrackDriver:
    """Return the driver for the file that a URL, a URI or a path names.

    Parameters
    ----------
    url
        ``track:///relative/path.json`` or ``track:////absolute/path.json``; the other options may
        stand in its query, and are overridden by those passed here.
    uri
        As Track itself has it: ``file://relative.json`` or ``file:///absolute/path.json``.
    path, objective, busy_timeout
        See `TrackDriver`.

    Raises
    ------
    ConfigurationError
        No file is named, or two; or an option cannot work.
    """
    given = [name for name, value in (("url", url), ("uri", uri), ("path", path)) if value]
    if len(given) != 1:
        what = f"{' and '.join(given)}, which is too much" if given else "none"
        raise ConfigurationError(
            "track: which file? write track:///tune.json, or pass one of `url`, `uri` and `path`; "
            f"there is {what}"
        )
    options: dict[str, Any] = {}
    if path is None:
        path, options = _path_and_options(url or uri or "")
    if objective is not None:
        options["objective"] = objective
    if busy_timeout is not None:
        options["busy_timeout"] = busy_timeout
    return TrackDriver(path, **options)


def _path_and_options(url: str) -> tuple[str, dict[str, Any]]:
    parts, shown = split_url("track", url), hide_credentials(url)
    scheme = parts.scheme.lower()
    if scheme not in ("track", "file", ""):
        raise ConfigurationError(f"track: {shown!r} names no file; write file://tune.json")
    path = path_of_url("track", url, parts.path)
    if scheme == "track":
        if parts.netloc:
            path = hide_credentials(f"{parts.netloc}{parts.path}")
            raise ConfigurationError(
                f"{shown!r} has a file name where a host would stand; a relative path has three "
                f"slashes (track:///{path}), an absolute one four"
            )
        path = path[1:]
    else:
        path = path_of_url("track", url, parts.netloc) + path  # a host is a file, as in Track
    if not path:
        raise ConfigurationError(f"{shown!r} names no file; write track:///tune.json")
    if parts.fragment:
        raise ConfigurationError(f"{shown!r}: write %23 for a # in a path")
    options = options_in_url(shown, parts.query, _IN_URL)
    return path, options
