"""Options of engines that keep a file: its path, the URL that names it, and times to wait."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from aiostorage._core.driver_options import STORAGE_OPTIONS, hide_credentials
from aiostorage.errors import ConfigurationError

__all__ = [
    "checked_path",
    "checked_seconds",
    "not_there",
    "options_in_url",
    "path_of_url",
    "split_url",
]

_URL: Final = re.compile(r"[A-Za-z][\w+.-]*:(//|/.*@)")

LONGEST_NAME: Final = 255
"""Bytes that file systems allow in the name of a file."""


def checked_path(engine: str, path: object, *, beside: int = 0) -> Path:
    """Return the path of a file that an engine is to keep.

    Parameters
    ----------
    engine
        Its name, for messages.
    path
        What a caller has passed.
    beside
        Bytes that the longest name of the files beside it has in addition.

    Raises
    ------
    ConfigurationError
        It is neither a text nor a path, or no file can have that name.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise ConfigurationError(f"{engine}: path is a str or a Path, not {path!r}")
    if isinstance(path, str) and (text == ":memory:" or text.startswith("file:")):
        raise ConfigurationError(
            f"{engine}: {text!r} is not a path here, but a name with a special meaning in SQLite; "
            "for a storage in memory write memory://, for a file of that name ./"
            f"{text}"
        )
    if isinstance(path, str) and re.match(r"[A-Za-z]:\\", text):
        raise ConfigurationError(
            f"{engine}: {text!r} is a path of Windows, where aiostorage does not run; for a file "
            f"of that name here write ./{text}"
        )
    if isinstance(path, str) and _URL.match(text):  # perhaps with a password
        raise ConfigurationError(
            f"{engine}: the path {hide_credentials(text)!r} is a URL: pass it as `url`; for a file "
            "of that name write ./ before it"
        )
    if not text:
        raise ConfigurationError(f"{engine}: path is empty; name a file")
    try:
        name = os.fsencode(os.path.basename(text))  # noqa: PTH119  a Path drops a last slash
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{engine}: the path {text!r} has characters that no file name has: {error.reason}"
        ) from None
    if "\0" in text:
        raise ConfigurationError(f"{engine}: the path {text!r} has a NUL, which no file name has")
    if len(name) + beside > LONGEST_NAME:
        raise ConfigurationError(
            f"{engine}: the file name {text[-40:]!r} (its end) has {len(name)} bytes; at most "
            f"{LONGEST_NAME - beside} leave room for the files beside it"
        )
    return Path(text)


def not_there(path: Path, *, directory: bool = False) -> ConfigurationError:
    """Return the error that says that a file, or the directory of one, is missing."""
    path = path.absolute()
    what = f"there is no file {path}"
    if directory:
        what = f"the directory {path} does not exist; create it first"
    if any(part.startswith("~") for part in path.parts):
        what += " (a ~ is not replaced by a home directory; write that out)"
    return ConfigurationError(what)


def checked_seconds(engine: str, name: str, value: Any) -> float:
    """Return a number of seconds that was passed as a number or as text.

    Raises
    ------
    ConfigurationError
        It is neither, or none between 0 and 3600.
    """
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds < 3600:
        raise ConfigurationError(
            f"{engine}: {name} is a number of seconds, not {value!r} (from 0 to below 3600)"
        )
    return seconds


def split_url(engine: str, url: object) -> SplitResult:
    """Return the parts of a URL.

    Raises
    ------
    ConfigurationError
        It is not text, or it cannot be taken apart.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{engine}: a URL is a str, not {url!r}")
    if any(character in url for character in "\t\n\r"):  # they would be dropped silently
        raise ConfigurationError(
            f"{engine}: {hide_credentials(url)!r}: write %0A for a newline, %0D for a return, "
            "and %09 for a tab"
        )
    try:
        return urlsplit(url)
    except ValueError:  # its text may contain a password
        wrong = (
            "Invalid IPv6 URL" if "[" in url or "]" in url else "its host has invalid characters"
        )
        raise ConfigurationError(f"{engine}: {hide_credentials(url)!r}: {wrong}") from None


def options_in_url(shown: str, query: str, known: Collection[str]) -> dict[str, str]:
    """Return the options in the query of a URL.

    Parameters
    ----------
    shown
        The URL without secrets, for messages.

    Raises
    ------
    ConfigurationError
        One is not among those that are known, or has no name.
    """
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(
        name if value else "***" for name, value in options.items() if name not in known
    ):
        ours = [name for name in unknown if name in STORAGE_OPTIONS]
        hint = f"; {', '.join(ours)}: pass it as a keyword, beside the URL" if ours else ""
        raise ConfigurationError(
            f"{shown!r}: unknown {', '.join(unknown)}; the options are {', '.join(known)}{hint}"
        )
    return options


def path_of_url(engine: str, url: str, encoded: str) -> str:
    """Return the path that a URL has in percent-encoding.

    Raises
    ------
    ConfigurationError
        It is not UTF-8 when it is decoded.
    """
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{engine}: {hide_credentials(url)!r} has percent-encoded bytes that are not UTF-8"
        ) from None
