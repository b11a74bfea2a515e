"""BSON as every engine's documents: pure functions, no connection."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

import bson
from bson import DBRef, Int64, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry

__all__ = ["AS_DOCUMENTS", "AS_LIBRARY", "as_stored", "packed", "unpacked"]


class _Decoder(TypeDecoder):
    """Turns a type that only BSON has into what every other engine has in its place."""

    def __init__(self, bson_type: type, transform: Callable[[Any], Any]) -> None:
        self._type = bson_type
        self._transform = transform

    @property
    def bson_type(self) -> type:
        return self._type

    def transform_bson(self, value: Any) -> Any:
        return self._transform(value)


_TIMES: Final[dict[str, Any]] = {
    "tz_aware": True,
    "tzinfo": UTC,
    # BSON has years beyond 9999; one such time must not keep the other documents from being read
    "datetime_conversion": DatetimeConversion.DATETIME_CLAMP,
}

AS_LIBRARY: Final[CodecOptions[dict[str, Any]]] = CodecOptions(**_TIMES)
"""Decodes BSON with BSON's own types."""

AS_DOCUMENTS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    **_TIMES,
    type_registry=TypeRegistry(
        [
            _Decoder(Int64, int),
            _Decoder(ObjectId, str),
            _Decoder(DBRef, lambda ref: dict(ref.as_doc())),
        ]
    ),
)
"""Decodes BSON as documents that are the same on every engine."""


def as_stored(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as the server would return it, with times cut to the millisecond."""
    return unpacked(packed(document))


def packed(document: dict[str, Any]) -> bytes:
    """Return a document as BSON."""
    return bson.encode(document)


def unpacked(data: bytes) -> dict[str, Any]:
    """Return the document that `packed` made BSON of."""
    return bson.decode(data, AS_DOCUMENTS)
