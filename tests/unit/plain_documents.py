"""Documents of plain values, at random and by hand, and whether two are the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

NOON = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)

# What looks like our tags, and what looks like what looks like them.
texts = st.text(max_size=8) | st.sampled_from(
    ["$date", "$bytes", "$float", "$escape", "$", "a.b", "", "\0", '"$', '{"$date":"', "nan", "\\"]
)
keys = texts.filter(lambda text: "\0" not in text)  # no key has one
moments = st.datetimes(timezones=st.just(UTC))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=8)
    | moments
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=20,
)
documents = st.dictionaries(keys, values, max_size=5)


def same(left: Any, right: Any) -> bool:
    """Equal in every type, sign and order, with nan equal to nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, datetime):
        return left == right and left.tzinfo is right.tzinfo is UTC
    return bool(left == right)


def nested(levels: int) -> Any:
    value: Any = []
    for number in range(levels - 1):
        value = {"a": value} if number % 2 else [value]
    return value
