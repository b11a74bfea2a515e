"""A sorted list of keys that may be long: kept in blocks, so that a change moves few of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

__all__ = ["Key", "SortedKeys"]

Key: TypeAlias = tuple[Any, ...]
"""Values that can be compared; no two keys of a list are equal."""

MAX_BLOCK_SIZE: Final = 512
"""How many keys a block has before it is divided."""


class SortedKeys:
    """Distinct keys in ascending order."""

    __slots__ = ("_blocks", "_lasts")

    def __init__(self) -> None:
        self._blocks: list[list[Key]] = []
        self._lasts: list[Key] = []
        """The last key of each block."""

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __iter__(self) -> Iterator[Key]:
        for block in self._blocks:
            yield from block

    def add(self, key: Key) -> None:
        """Put a key in its place."""
        place = bisect_left(self._lasts, key)
        if place == len(self._lasts):  # behind all others
            if place and len(self._blocks[-1]) < MAX_BLOCK_SIZE:
                self._blocks[-1].append(key)
                self._lasts[-1] = key
            else:
                self._blocks.append([key])
                self._lasts.append(key)
            return
        block = self._blocks[place]
        insort(block, key)
        if len(block) > MAX_BLOCK_SIZE:
            half = MAX_BLOCK_SIZE // 2
            self._blocks[place : place + 1] = [block[:half], block[half:]]
            self._lasts.insert(place, block[half - 1])

    def remove(self, key: Key) -> None:
        """Take out a key, which has to be there."""
        place = bisect_left(self._lasts, key)
        block = self._blocks[place]
        index = bisect_left(block, key)
        if block[index] != key:
            raise KeyError(key)
        del block[index]
        if not block:
            del self._blocks[place], self._lasts[place]
        elif index == len(block):
            self._lasts[place] = block[-1]

    def between(self, low: Key, high: Key) -> Iterator[Key]:
        """Yield the keys from `low` on, as far as they are less than `high`."""
        for place in range(bisect_left(self._lasts, low), len(self._blocks)):
            block = self._blocks[place]
            begin = bisect_left(block, low)
            if self._lasts[place] < high:
                yield from block[begin:] if begin else block
                continue
            yield from block[begin : bisect_left(block, high)]
            return
