"""Names of attributes as names of fields, which a dotted path can reach.

Each attribute has a field of its own, which is set by the path that leads to it, so that two
processes can set two attributes of one study at the same time. Such a path cannot name every text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from aiostorage.errors import EncodingError

__all__ = ["attributes_of", "field_name", "fields_of", "name_of_field"]

_UNFIT: Final = re.compile(r"[%.$\x00]|^0(?=[0-9])")
"""What a name in a path cannot have, and the mark that stands for it; ``01`` may be an index."""

_MARKED: Final = re.compile(r"%([0-9a-f]{2})")

_EMPTY: Final = "%"


@lru_cache(maxsize=4096)  # each trial of a study has the same few
def field_name(name: str) -> str:
    """Return the name of the field for an attribute: the same, unless a path cannot have it.

    Raises
    ------
    EncodingError
        It is not Unicode text.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise EncodingError(
            f"the name of a param or an attribute has to be Unicode text, and {name!r} is not"
        ) from None
    return _UNFIT.sub(lambda match: f"%{ord(match[0]):02x}", name) or _EMPTY


def name_of_field(field: str) -> str:
    """Return the name of the attribute that has this field."""
    if field == _EMPTY:
        return ""
    return _MARKED.sub(lambda match: chr(int(match[1], 16)), field) if "%" in field else field


def fields_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes by the names of their fields."""
    return {field_name(name): value for name, value in attributes.items()}


def attributes_of(fields: Any) -> dict[str, Any]:
    """Return attributes by their own names; none if there are no fields."""
    if not fields or not isinstance(fields, Mapping):
        return {}
    return {name_of_field(field): value for field, value in fields.items()}
