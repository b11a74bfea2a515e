"""Who holds a reservation, a lock or a lease, in words that any reader may see.

A token proves who the holder is, so whoever reads one could act in its place. It is never shown:
messages have a short fingerprint of it, and the host and the process that it was made in.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["fingerprint", "named_holder", "process_of"]

_TOKEN: Final = re.compile(r"([\w.-]{1,255}):(\d{1,10}):[0-9a-f]{16}", re.ASCII)
"""A token as `aiostorage._core.ids.new_token` makes it: host, process and a random part."""


def fingerprint(token: str) -> str:
    """Return eight hex digits that distinguish tokens, and from which no token can be derived."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def process_of(token: object) -> str:
    """Return the name of the process that made a token, or else the token itself, as text."""
    made = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    return f"{made[1]}:{made[2]}" if made else str(token)


def named_holder(token: object) -> str:
    """Return where the holder of a token runs, if the token says so, and a fingerprint of it."""
    if not isinstance(token, str):
        return "an unknown process"
    made = _TOKEN.fullmatch(token)
    where = f"process {made[2]} on {made[1]}" if made else "an unknown process"
    return f"{where} (fingerprint {fingerprint(token)})"
