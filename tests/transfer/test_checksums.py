"""Hashes of documents: what counts as equal on every engine, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostorage.transfer.checksums import Checksum, content_of, digest_of

MILLISECOND, MICROSECOND = timedelta(milliseconds=1), timedelta(microseconds=1)
TIME = datetime(2026, 2, 28, 12, 0, 0, 123456, tzinfo=UTC)


def digest(resolution: timedelta = MICROSECOND, **fields: Any) -> int:
    return digest_of("trials", {"_id": 1, **fields}, resolution)


def test_what_is_equal() -> None:
    assert digest(worker=None) == digest()  # a declared field
    assert digest(a=1, b=2) == digest(b=2, a=1)
    cut = TIME.replace(microsecond=123000)
    assert digest(MILLISECOND, end_time=TIME) == digest(MILLISECOND, end_time=cut)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"note": None}, {}),
        ({"note": b"a"}, {"note": b"b"}),
        ({"note": b"a"}, {"note": "a"}),
        ({"note": b"a"}, {"note": "61"}),
        ({"note": 1}, {"note": 1.0}),
        ({"note": 1}, {"note": True}),
        ({"note": 0.0}, {"note": -0.0}),
        ({"note": TIME}, {"note": TIME.isoformat()}),
        ({"note": TIME}, {"note": TIME.replace(microsecond=123000)}),
    ],
)
def test_what_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(**one) != digest(**other)


def test_the_sum_does_not_depend_on_the_order() -> None:
    documents = [{"_id": number} for number in range(3)]
    sums = []
    for order in (documents, documents[::-1], documents[:2]):
        checksum = Checksum(MICROSECOND)
        for document in order:
            checksum.add("trials", [document])
        sums.append(checksum)
    assert sums[0] == sums[1] != sums[2]
    assert [one.count for one in sums] == [3, 3, 2]


def test_what_only_says_where_a_record_is() -> None:
    assert content_of("trials", {"_id": 1, "experiment": 2, "id": "t"}) == {"id": "t"}
    refers: dict[str, Any] = {"root_id": 1, "parent_id": None, "adapter": []}
    assert content_of("experiments", {"_id": 1, "version": 1, "name": "e", "refers": refers}) == {
        "name": "e",
        "refers": {"adapter": []},
    }
