"""Options of engines: calls that name the known ones, and URLs that may be shown."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiostorage.errors import ConfigurationError

__all__ = ["call_with_options", "hide_credentials", "upgrade_command"]

T = TypeVar("T")


def call_with_options(make: Callable[..., T], name: str, options: Mapping[str, Any]) -> T:
    """Return ``make(**options)``.

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
        raise ConfigurationError(f"{name}: {error}; its options are {', '.join(known)}") from None
    return make(**options)


def hide_credentials(url: str) -> str:
    """Return a URL, even a mistyped one, with ``***`` in place of its user name and password."""
    return re.sub(r"[^/@]*@", "***@", url)


def upgrade_command(url: str) -> str:
    """Return the command that upgrades the store of a URL without secrets, for a shell."""
    return f"aiostorage upgrade {shlex.quote(url)}"
