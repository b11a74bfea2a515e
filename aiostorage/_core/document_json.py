"""Documents as JSON text, for engines that store text.

`dump_document` and `load_document` are exact: a dumped document loads as an equal one. The text is
plain JSON wherever JSON has the type. A value that JSON lacks is an object with a single key, a
*tag*::

    {"$date": "2024-02-29T12:00:00.000001+00:00"}     a datetime
    {"$bytes": "AAEC"}                                bytes, in base64
    {"$float": "nan"}                                 a float that is not finite: nan, inf, -inf
    {"$escape": {"$date": "today"}}                   a dict that looks like a tag

orjson does the work where it is exact, which it is not everywhere: it writes a NaN as null, and
reads an int of more than 64 bits as a float. What may contain such a value, and all that it
refuses, goes to Python's `json`.
"""

from __future__ import annotations

import binascii
import json
import math
import reprlib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NoReturn

import orjson

from aiostorage._core.normalise import to_utc, type_name
from aiostorage.errors import EncodingError

__all__ = ["dump_document", "from_tree", "load_document", "to_tree"]


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
        return _encode_tag(value)

    text = ""
    with suppress(TypeError):  # about what cannot be stored at all, `json` says more
        text = orjson.dumps(document, tag, _AS_IT_IS).decode()
    # if each null stands for a None at the top, none stands for a NaN
    if not text or text.count("null") != list(document.values()).count(None):
        tags = 0
        try:
            text = json.JSONEncoder(**_ENCODER_OPTIONS, default=tag).encode(document)
        except ValueError:  # nan or inf
            return _ENCODER.encode(_escape(document))
    # Within a JSON string, a backslash precedes each quote. So this occurs exactly where a dict
    # starts with a key that starts with a dollar; each of them should be a tag made here.
    if text.count('{"$') == tags:
        return text
    return _ENCODER.encode(_escape(document))


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
        The text is not a JSON object, or has an invalid tag.
    """
    try:
        # The text may have been edited by hand, so there may be a space after the brace.
        if "$" not in text or '"$' not in text:
            document = _plain(text)
        elif '"$escape"' in text:
            document = _unescape(_DECODER.decode(text))
        else:
            document = _TAG_DECODER.decode(text)
    except EncodingError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodingError(f"the text of a document is not JSON: {error}") from error
    if type(document) is not dict:
        raise EncodingError(
            f"the text of a document is a JSON {type_name(document)}, not an object"
        )
    return document


def _plain(text: str) -> Any:
    """Read JSON text without tags."""
    try:
        encoded = text.encode()
        if _LONG_NUMBER not in encoded.translate(_DIGITS):
            return orjson.loads(encoded)
    except (
        ValueError
    ):  # a lone surrogate, too large a float, or no JSON, about which `json` says more
        pass
    return _DECODER.decode(text)


def to_tree(value: Any) -> Any:
    """Return a normalised value as a tree of what JSON has; `from_tree` returns an equal value.

    The tree shares nothing that can change with the value.
    """
    return _escape(value)


def from_tree(tree: Any) -> Any:
    """Return the value that `to_tree` made a tree of.

    Raises
    ------
    EncodingError
        There is an invalid tag in it.
    """
    return _unescape(tree)


def _encode_tag(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$date": value.isoformat(timespec="microseconds")}
    if isinstance(value, bytes):
        return {"$bytes": binascii.b2a_base64(value, newline=False).decode("ascii")}
    raise TypeError(f"{type_name(value)} in a document that is not normalised")


def _escape(value: Any) -> Any:
    """Replace what the encoder cannot write by tags, and escape dicts that look like tags."""
    if isinstance(value, dict):
        escaped = {key: _escape(item) for key, item in value.items()}
        if len(escaped) == 1 and not _TAG_DECODERS.keys().isdisjoint(escaped):
            return {"$escape": escaped}
        return escaped
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, (datetime, bytes)):
        return _encode_tag(value)
    return value


def _unescape(value: Any) -> Any:
    """Replace tags by their values, from the outside in: a dict inside ``$escape`` is not a tag."""
    if isinstance(value, list):
        return [_unescape(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if isinstance(escaped := value.get("$escape"), dict):
            return {key: _unescape(item) for key, item in escaped.items()}
        if (plain := _decode_tag(value)) is not value:
            return plain
    return {key: _unescape(item) for key, item in value.items()}


def _decode_tag(value: dict[str, Any]) -> Any:
    """Return the value that a tag stands for, or any other dict as it is."""
    if len(value) == 1:
        for key, text in value.items():
            if key in _TAG_DECODERS:
                try:
                    return _TAG_DECODERS[key](text)
                except (KeyError, TypeError, ValueError):
                    raise EncodingError(f"{{{key!r}: {reprlib.repr(text)}}} is not a tag") from None
    return value


def _refuse(found: object) -> NoReturn:
    raise ValueError(f"{found!r} does not belong there")


_TAG_DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$date": lambda text: to_utc(datetime.fromisoformat(text)),
    "$bytes": lambda text: binascii.a2b_base64(text, strict_mode=True),
    "$float": {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.__getitem__,
    "$escape": _refuse,  # its value is not a dict
}
_ENCODER_OPTIONS: Final[dict[str, Any]] = {
    "ensure_ascii": False,
    "check_circular": False,
    "allow_nan": False,
    "separators": (",", ":"),
}
_ENCODER: Final = json.JSONEncoder(**_ENCODER_OPTIONS)
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
_TAG_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, object_hook=_decode_tag)
_AS_IT_IS: Final = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
)
"""orjson hands on what it would otherwise write in its own way."""

_DIGITS: Final = bytes(ord("0") if chr(byte).isdecimal() else ord(" ") for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19
"""What bytes become so that a long run of digits is found at once, and such a run."""
