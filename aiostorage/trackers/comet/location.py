"""Which mirror in Comet a URL names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.files.path_options import checked_path, path_of_url, split_url
from aiostorage._core.kinds import URL
from aiostorage.errors import ConfigurationError
from aiostorage.trackers.comet.offline import CometArchives
from aiostorage.trackers.comet.online import Comet
from aiostorage.trackers.protocol import Tracker

__all__ = ["tracker_from_url"]

_ONLINE: Final = "comet://workspace/project"
_OFFLINE: Final = "comet+offline:///directory"


def tracker_from_url(url: str, **options: Any) -> Tracker:
    """Make the tracker of a URL.

    Parameters
    ----------
    url
        ``comet://workspace/project``, with the API key from ``COMET_API_KEY`` or ``.comet.config``;
        or ``comet+offline:///directory``, with four slashes for an absolute path. The latter takes
        ``?workspace=…&project=…``, for the archives.
    options
        There are none.

    Raises
    ------
    ConfigurationError
        The URL is none of these, an option was given, or ``comet_ml`` is not installed.
    """
    URL.check("tracker_from_url", "url", url)
    shown = hide_credentials(url)
    if options:
        raise ConfigurationError(f"{shown}: a mirror in Comet has no option {next(iter(options))}")
    parts = split_url("comet", url)
    if "@" in parts.netloc:
        raise ConfigurationError(f"{shown}: the API key belongs in COMET_API_KEY, not in the URL")
    if parts.fragment:
        raise ConfigurationError(f"{shown}: write '#' as %23")
    if parts.scheme == "comet":
        tracker: Tracker = _online(shown, parts.netloc, parts.path, parts.query)
    elif parts.scheme == "comet+offline":
        tracker = _offline(shown, parts.netloc, parts.path, parts.query)
    else:
        raise ConfigurationError(f"{shown}: a mirror in Comet is {_ONLINE} or {_OFFLINE}")
    if find_spec("comet_ml") is None:
        raise ConfigurationError(
            f"{shown} needs comet_ml, which is not installed: pip install 'aiostorage-orion[comet]'"
        )
    return tracker


def _online(shown: str, workspace: str, path: str, query: str) -> Comet:
    project = path.strip("/")
    if not workspace or not project or "/" in project or query:
        raise ConfigurationError(f"{shown}: expected {_ONLINE}")
    return Comet(unquote(workspace), unquote(project))


def _offline(shown: str, netloc: str, path: str, query: str) -> CometArchives:
    directory = path_of_url("comet", shown, path.removeprefix("/"))
    if netloc or not directory:
        raise ConfigurationError(
            f"{shown}: expected {_OFFLINE}, or comet+offline:////directory for an absolute path"
        )
    given = dict(parse_qsl(query, keep_blank_values=True))
    workspace, project = given.pop("workspace", None), given.pop("project", None)
    if given:
        name, value = next(iter(given.items()))
        raise ConfigurationError(
            f"{shown}: unknown {name if value else '***'!r}; archives take workspace and project"
        )
    checked = checked_path("comet", Path(directory))
    return CometArchives(checked, workspace or None, project or None)
