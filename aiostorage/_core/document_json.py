"""Documents as JSON text, for engines that store text.

`dump_document` and `load_document` are exact: what was dumped loads as an equal document. They are
plain JSON as far as JSON goes. A value that JSON lacks is an object with a single key, a *tag*::

    {"$date": "2024-02-29T12:00:00.000001+00:00"}     a datetime
    {"$bytes": "AAEC"}                                bytes, in base64
    {"$float": "nan"}                                 a float that is no number: nan, inf, -inf
    {"$escape": {"$date": "today"}}                   a dict that only looks like a tag
"""

from __future__ import annotations

import binascii
import json
import math
import reprlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NoReturn

from aiostorage._core.normalise import to_utc, type_name
from aiostorage.errors import EncodingError

__all__ = ["dump_document", "load_document"]


def dump_document(document: dict[str, Any]) -> str:
    """Write a document as JSON text that `load_document` reads back exactly.

    Parameters
    ----------
    document : dict
        A normalised document.

    Returns
    -------
    str
        Valid JSON without needless whitespace, not restricted to ASCII; the keys keep their order.
    """
    tags = 0

    def tag(value: Any) -> dict[str, str]:
        nonlocal tags
        tags += 1
        return _tag(value)

    encoder = json.JSONEncoder(**_STYLE, default=tag)
    try:
        text = encoder.encode(document)
    except ValueError:  # nan or inf
        pass
    else:
        # Within a JSON string, a quote follows a backslash. So this is exactly the start of a
        # dict whose first key has a dollar, and all of them should be our own.
        if text.count('{"$') == tags:
            return text
    return _ENCODER.encode(_spell(document))


def load_document(text: str) -> dict[str, Any]:
    """Read a document from the text that `dump_document` wrote.

    Parameters
    ----------
    text : str
        JSON text.

    Returns
    -------
    dict
        The document.

    Raises
    ------
    EncodingError
        The text is no JSON object, or has a tag that makes no sense.
    """
    try:
        # Somebody may have edited the text, so there may be a space after the brace.
        if '"$escape"' in text:
            document = _unspell(_READER.decode(text))
        elif '"$' in text:
            document = _TAG_READER.decode(text)
        else:
            document = _READER.decode(text)
    except EncodingError:
        raise
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"the text of a document is no JSON: {error}") from error
    if type(document) is not dict:
        raise EncodingError(
            f"the text of a document is a JSON {type_name(document)}, not an object"
        )
    return document


def _tag(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$date": value.isoformat(timespec="microseconds")}
    if isinstance(value, bytes):
        return {"$bytes": binascii.b2a_base64(value, newline=False).decode("ascii")}
    raise TypeError(f"{type_name(value)} in a document that is not normalised")


def _spell(value: Any) -> Any:
    """Say in plain JSON what the encoder alone cannot."""
    if isinstance(value, dict):
        spelled = {key: _spell(item) for key, item in value.items()}
        if len(spelled) == 1 and not _UNTAG.keys().isdisjoint(spelled):
            return {"$escape": spelled}
        return spelled
    if isinstance(value, list):
        return [_spell(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, (datetime, bytes)):
        return _tag(value)
    return value


def _unspell(value: Any) -> Any:
    """Take plain JSON back; from the outside in, for what ``$escape`` wraps is no tag."""
    if isinstance(value, list):
        return [_unspell(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if isinstance(escaped := value.get("$escape"), dict):
            return {key: _unspell(item) for key, item in escaped.items()}
        if (plain := _untag(value)) is not value:
            return plain
    return {key: _unspell(item) for key, item in value.items()}


def _untag(value: dict[str, Any]) -> Any:
    """Answer what a tag stands for, and any other dict as it is."""
    if len(value) == 1:
        for key, text in value.items():
            if key in _UNTAG:
                try:
                    return _UNTAG[key](text)
                except (KeyError, TypeError, ValueError):
                    raise EncodingError(f"{{{key!r}: {reprlib.repr(text)}}} is no tag") from None
    return value


def _refuse(found: object) -> NoReturn:
    raise ValueError(f"{found!r} does not belong there")


_UNTAG: Final[dict[str, Callable[[Any], Any]]] = {
    "$date": lambda text: to_utc(datetime.fromisoformat(text)),
    "$bytes": lambda text: binascii.a2b_base64(text, strict_mode=True),
    "$float": {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.__getitem__,
    "$escape": _refuse,  # no dict within
}
_STYLE: Final[dict[str, Any]] = {
    "ensure_ascii": False,
    "check_circular": False,
    "allow_nan": False,
    "separators": (",", ":"),
}
_ENCODER: Final = json.JSONEncoder(**_STYLE)
_READER: Final = json.JSONDecoder(parse_constant=_refuse)
_TAG_READER: Final = json.JSONDecoder(parse_constant=_refuse, object_hook=_untag)
