"""Keys in blocks are in the order of a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiostorage._core.in_memory import sorted_keys
from aiostorage._core.in_memory.sorted_keys import Key, SortedKeys

keys = st.tuples(st.integers(0, 3), st.integers(0, 40))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_keys, "MAX_BLOCK_SIZE", 4)


@settings(max_examples=300)
@given(st.lists(keys), st.data())
def test_like_a_sorted_list(changed: list[Key], data: st.DataObject) -> None:
    found, expected = SortedKeys(), set[Key]()
    for key in changed:  # the second time, a key goes away
        if key in expected:
            found.remove(key)
            expected.remove(key)
        else:
            found.add(key)
            expected.add(key)
        assert bool(found) is bool(expected)
    assert list(found) == sorted(expected)
    low, high = data.draw(keys), data.draw(keys)
    assert list(found.between(low, high)) == sorted(k for k in expected if low <= k < high)


def test_a_key_that_is_not_there() -> None:
    found = SortedKeys()
    for number in range(10):
        found.add((number, 0))
    with pytest.raises(KeyError):
        found.remove((3, 1))
    assert len(list(found)) == 10
