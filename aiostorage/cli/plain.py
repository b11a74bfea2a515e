"""Stored values in the form of JSON, for ``--json``."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Return a stored value in a form that JSON can represent.

    A time becomes text in ISO 8601, in UTC; bytes become base64; a float that is not finite
    becomes ``NaN``, ``Infinity`` or ``-Infinity`` as text.
    """
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case datetime():
            return value.astimezone(UTC).isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case _:
            return value
