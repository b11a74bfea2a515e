"""Which tracker a URL names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final

from aiostorage._core.driver_options import hide_credentials
from aiostorage.errors import ConfigurationError
from aiostorage.trackers.protocol import Tracker

__all__ = ["ENTRY_POINTS", "known_trackers", "tracker_from_url"]

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
    name = url.partition(":")[0].partition("+")[0].lower()
    if name not in known_trackers():
        raise ConfigurationError(
            f"{hide_credentials(url)!r} names no tracker; known are: {', '.join(known_trackers())}"
        )
    return _maker(name)(url, **options)


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
