"""Which tracker a URL names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from aiostorage._core.driver_options import call_with_options, hide_credentials
from aiostorage._core.kinds import PATH, TEXT, URL, option, optional
from aiostorage.errors import ConfigurationError
from aiostorage.trackers.protocol import Tracker

__all__ = [
    "ENTRY_POINTS",
    "known_trackers",
    "mirrored",
    "tracker_from_options",
    "tracker_from_url",
    "tracker_of",
]

ENTRY_POINTS: Final = "aiostorage.trackers"
"""Entry point group of trackers from other packages.

An entry point's name is the URL scheme, up to a ``+``. Its object is called with the whole URL and
keyword options, and returns a `Tracker`.
"""

_BUILT_IN: Final = {
    "comet": "aiostorage.trackers.comet",
    "mlflow": "aiostorage.trackers.mlflow",
}
"""The modules with the trackers of this package; each has a ``tracker_from_url``.

They import the tracker's own library when they open it, not before.
"""


def tracker_from_url(url: str, **options: Any) -> Tracker:
    """Make the tracker that a URL names; nothing is connected yet.

    Parameters
    ----------
    url
        ``mlflow+http://host:port``, ``mlflow+sqlite:///path.db``, ``comet://workspace/project``,
        ``comet+offline:///directory``, or the scheme of an installed tracker.
    options
        Options of the tracker.

    Raises
    ------
    ConfigurationError
        No tracker has that scheme, its package is not installed, or the URL cannot work.
    """
    URL.check("tracker_from_url", "url", url)
    scheme, colon, _ = url.partition(":")
    name, plus, _ = scheme.partition("+")
    name = name.lower()
    # the names of installed packages take 15 ms, which most runs never need
    if not (colon or plus) or (name not in _BUILT_IN and name not in known_trackers()):
        raise ConfigurationError(
            f"{hide_credentials(url)!r} names no tracker; known are: {', '.join(known_trackers())}"
            "; write for example mlflow+http://127.0.0.1:5000 or comet://workspace/project"
        )
    return _maker(name)(url, **options)


def tracker_of(value: Any) -> Tracker | None:
    """Return the tracker that a storage is configured with, in any of the forms that there are.

    Parameters
    ----------
    value
        A tracker, its URL, a mapping with its ``url`` and its options; or None for none.

    Raises
    ------
    ConfigurationError
        It is something else, or as for `tracker_from_url`.
    """
    match value:
        case None | Tracker():
            return value
        case str():
            return tracker_from_url(value)
        case Mapping() if isinstance(value.get("url"), str):
            return tracker_from_url(**value)
    raise ConfigurationError(
        "a tracker is its URL, a mapping with its `url`, or a Tracker, not a "
        f"{type(value).__name__}"
    )


def mirrored(name: str, options: Mapping[str, Any], settings: Collection[str]) -> dict[str, Any]:
    """Return the configuration of a storage that a tracker shows, of that of the tracker.

    Parameters
    ----------
    name
        The name of the tracker.
    options
        The ``coordinator``, options of the tracker, and those of the storage.
    settings
        The names of the latter.

    Raises
    ------
    ConfigurationError
        As for `tracker_from_options`, or the coordinator is none.
    """
    if name not in known_trackers():
        known = ", ".join(known_trackers())
        raise ConfigurationError(
            f"only a tracker has a coordinator, and {hide_credentials(name)!r} is none; "
            f"known are: {known}"
        )
    coordinator = options["coordinator"]
    if isinstance(coordinator, str):
        coordinator = {"url": coordinator}
    if not isinstance(coordinator, Mapping) or "tracker" in {*coordinator, *settings}:
        raise ConfigurationError(
            f"the coordinator of {name} is the URL of a storage, or a mapping without `tracker`"
        )
    ours = {key: value for key, value in options.items() if key in settings}
    others = {
        key: value for key, value in options.items() if key not in settings and key != "coordinator"
    }
    return {**coordinator, **ours, "tracker": tracker_from_options(name, others)}


def tracker_from_options(name: str, options: Mapping[str, Any]) -> Tracker:
    """Make a tracker of its name and options, such as ``mlflow`` and ``tracking_uri``.

    Raises
    ------
    ConfigurationError
        An option is unknown or missing, or as for `tracker_from_url`.
    """
    if "url" in options:
        return tracker_from_url(**options)
    make_url = _URLS.get(name)
    if make_url is None:
        raise ConfigurationError(f"{name} needs its `url`; it has {sorted(options) or 'nothing'}")
    return tracker_from_url(call_with_options(make_url, name, options))


def _mlflow_url(*, tracking_uri: str) -> str:
    URL.check("mlflow", "tracking_uri", tracking_uri)
    return f"mlflow+{tracking_uri}"


def _comet_url(
    *, workspace: str = "", project: str = "", directory: str | Path | None = None
) -> str:
    option(TEXT).check("comet", "workspace", workspace)
    option(TEXT).check("comet", "project", project)
    option(optional(PATH)).check("comet", "directory", directory)
    if directory is None:
        return f"comet://{quote(workspace)}/{quote(project)}"
    named = {"workspace": workspace, "project": project}
    query = urlencode({key: value for key, value in named.items() if value})
    return f"comet+offline:///{quote(str(directory))}{'?' if query else ''}{query}"


_URLS: Final[Mapping[str, Callable[..., str]]] = {"comet": _comet_url, "mlflow": _mlflow_url}
"""What makes the URL of a tracker of this package of its options."""


def known_trackers() -> tuple[str, ...]:
    """Return the names of all trackers, sorted."""
    return tuple(sorted({*_BUILT_IN, *entry_points(group=ENTRY_POINTS).names}))


def _maker(name: str) -> Callable[..., Tracker]:
    make: Callable[..., Tracker]
    if name in _BUILT_IN:
        make = importlib.import_module(_BUILT_IN[name]).tracker_from_url
        return make
    [entry_point] = entry_points(group=ENTRY_POINTS, name=name)
    make = entry_point.load()
    return make
