"""Names that MLflow takes, and texts that fit into its tags."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from hashlib import md5
from typing import Final

__all__ = ["NAME_TAG", "PREFIX", "experiment_name", "key_of", "pieces", "without_pieces"]

PREFIX: Final = "aiostorage."
"""What the tags of ours begin with."""

NAME_TAG: Final = f"{PREFIX}name."
"""Before a changed name: the tag with the name as it was."""

MAX_KEY: Final = 250
MAX_EXPERIMENT_NAME: Final = 500
MAX_TAG: Final = 5000
"""Characters; MLflow 3 keeps 8000 of a tag, older servers 5000."""

MAX_PIECES: Final = 40
"""Into how many tags a text is divided, at most."""

_KEPT: Final = 200
"""Characters of a name that are kept if it has to be changed."""

_GOOD: Final = re.compile(r"[/\w.\- :]+")
_BAD: Final = re.compile(r"[^\w.\- ]")


def key_of(name: str) -> str:
    """Return the name of a param or metric as MLflow takes it.

    A name is changed if it has characters other than letters, digits, ``_ - . : /`` and space, if
    it is not a plain path, or if it has more than 250 characters: other characters become ``_``,
    and a hyphen and eight digits of the name's md5 follow, so that different names stay different.
    """
    if _GOOD.fullmatch(name) and len(name) <= MAX_KEY and _is_plain_path(name):
        return name
    digest = md5(name.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    kept = _BAD.sub("_", name)[:_KEPT].lstrip(".")
    return f"{kept or 'unnamed'}-{digest}"


def _is_plain_path(name: str) -> bool:
    return posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))


def experiment_name(name: str, version: object, uid: object = None) -> str:
    """Return the name of an experiment, with its id at the end if one is given."""
    end = f"-v{version}" if uid is None else f"-v{version}-{uid}"
    start = name[: MAX_EXPERIMENT_NAME - len(end)]
    return f"{start}{end}"


def pieces(key: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield tags that have a text of any length up to 200,000 characters; the rest is cut off.

    One that fits into a tag is ``key`` itself, others are ``key.1``, ``key.2`` and so on.
    """
    if len(text) <= MAX_TAG:
        yield key, text
        return
    for index in range(min(-(-len(text) // MAX_TAG), MAX_PIECES)):
        yield f"{key}.{index + 1}", text[index * MAX_TAG : (index + 1) * MAX_TAG]


def without_pieces(key: str, tags: Mapping[str, str]) -> str | None:
    """Return the text that `pieces` has divided; None if there is none."""
    if key in tags:
        return tags[key]
    found: list[str] = []
    while (piece := tags.get(f"{key}.{len(found) + 1}")) is not None:
        found.append(piece)
    return "".join(found) if found else None
