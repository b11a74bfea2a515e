"""Subclasses of plain types, and other classes whose values a test tries to store."""

from __future__ import annotations

import enum
import re
from collections import namedtuple
from datetime import datetime
from pprint import pformat
from typing import Any


def named(value: object) -> str:
    """Name a test the same in every process: without addresses, and sets in order."""
    text = " ".join(pformat(value, width=1, sort_dicts=False).split())
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 -- its str() is another one
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1
    HUGE = 2**70


class Plain(enum.Enum):
    THING = 1


class Ratio(float):
    pass


class Blob(bytes):
    pass


class Row(list[Any]):
    pass


class Moment(datetime):
    pass


Point = namedtuple("Point", "x y")  # noqa: PYI024 -- any will do
