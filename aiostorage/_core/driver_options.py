"""Options of engines: calls that name the known ones, and URLs that may be shown."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from aiostorage.errors import ConfigurationError

__all__ = [
    "STORAGE_OPTIONS",
    "STORE_SETTINGS",
    "call_with_options",
    "hide_credentials",
    "hide_credentials_in",
    "taken_from_query",
    "upgrade_command",
]

STORAGE_OPTIONS: Final = (
    *("retry", "lost_after", "lock_lease", "state_codec", "nan", "fill_version"),
    "max_inflated_state",
    *("tracker", "objective", "deliver_on_close", "history", "telemetry"),
)
"""Options that a storage has on every engine."""

STORE_SETTINGS: Final = ("history",)
"""Those of them that a store keeps, for all who use it: they may stand in the query of a URL."""

T = TypeVar("T")


def call_with_options(
    make: Callable[..., T],
    name: str,
    options: Mapping[str, Any],
    *,
    beside: Sequence[str] = (),
    hint: str = "",
) -> T:
    """Return ``make(**options)``.

    Parameters
    ----------
    make
        What has the options as its parameters.
    name
        What it makes, for messages.
    options
        What a caller has passed.
    beside
        Options that the caller could have passed as well, and that `make` does not take.
    hint
        What else to say of a wrong option.

    Raises
    ------
    ConfigurationError
        An option is unknown or missing; the message begins with `name` and lists the known ones.
    """
    signature = inspect.signature(make)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = [
            p.name
            for p in signature.parameters.values()
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        others = f", and of every storage {', '.join(beside)}" if beside else ""
        raise ConfigurationError(
            f"{name}: {error}; its options are {', '.join(known)}{others}{hint}"
        ) from None
    return make(**options)


_PLACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")
"""What a URL begins with, up to what may be a user and a password."""

_HOSTS: Final = re.compile(r"(?:[^:/?#\[\]]|\[[\dA-Fa-f:.]*(?:%\w*)?\]|:\d+(?=[,/?#]|$))*")
"""Hosts with their ports; a colon before anything else may begin a password."""

_QUERY: Final = re.compile(r"(?P<name>[?&#;](?:[^=&#;]*=)?)(?P<value>[^&#;]+)")

_SHOWN: Final = frozenset(
    name.lower()
    for name in (
        *("client", "synchronous", "busy_timeout", "connect_timeout", "objective"),
        *STORE_SETTINGS,
        *("authSource", "directConnection", "readPreference", "replicaSet", "ssl", "tls", "w"),
    )
)
"""Options whose values are not secrets, and are needed to reach the store."""


def hide_credentials(url: str) -> str:
    """Return a URL, even a mistyped one, with ``***`` for what may be a secret.

    That is what stands before the last ``@``, or behind a colon that no port follows; and the
    values in the query, except those of a few options that are not secrets.

    >>> hide_credentials("mongodb:u:x/y@h/d"), hide_credentials("sqlite:///a.db?password=x")
    ('***@h/d', 'sqlite:///a.db?password=***')
    """
    found = _PLACE.match(url)
    begin = found[0] if found else ""
    user, at, rest = url[len(begin) :].rpartition("@")
    if at and re.search("[?#]", user):  # the @ may be a part of a value
        return f"{begin}***"
    if at:
        return f"{begin}***@{_QUERY.sub(_without_value, rest)}"
    hosts = _HOSTS.match(rest)
    end = hosts.end() if hosts else 0
    if rest[end:] and rest[end] not in "/?#":
        return f"{begin}{rest[:end]}{':' if rest[end] == ':' else ''}***"
    path = re.split("[?#]", rest[end:], maxsplit=1)[0]
    misplaced = begin.endswith("://") or (not begin and "//" in path)
    if misplaced and ":" in path:  # perhaps a name and a password
        return f"{begin}{rest[:end]}/***"
    return begin + _QUERY.sub(_without_value, rest)


def _without_value(option: re.Match[str]) -> str:
    name, value = option["name"], option["value"]
    is_known = name[1:].rstrip("=").lower() in _SHOWN and re.fullmatch(r"[\w.,-]{1,64}", value)
    return f"{name}{value if is_known else '***'}"


def taken_from_query(url: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """Take options out of the query of a URL; return the rest as it is, and their values by name.

    >>> taken_from_query("sqlite:///a.db?x=1&history=30d", ["history"])
    ('sqlite:///a.db?x=1', {'history': '30d'})
    """
    from urllib.parse import unquote  # noqa: PLC0415  a process may open nothing

    place, mark, query = url.partition("?")
    parts = [part for part in query.split("&") if part]
    taken = {k: unquote(v) for k, _, v in (p.partition("=") for p in parts) if k in names}
    if not taken:
        return url, {}
    left = "&".join(part for part in parts if part.partition("=")[0] not in names)
    return (f"{place}{mark}{left}" if left else place), taken


def hide_credentials_in(text: str) -> str:
    """Return a text with ``***`` in place of the user names and passwords of URLs in it."""
    return re.sub(r"[^/@\s]*@", "***@", text)


def upgrade_command(url: str) -> str:
    """Return the command that upgrades the store of a URL without secrets, for a shell."""
    return f"aiostorage upgrade {shlex.quote(url)}"
