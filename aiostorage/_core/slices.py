"""Many documents a few at a time, so that neither the event loop nor the collector has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from aiostorage.operations import Document, Find
from aiostorage.protocols import Driver

__all__ = ["SLICE_SIZE", "consumed", "find_slices"]

T = TypeVar("T")

SLICE_SIZE: Final = 200
"""Documents that are handled in one turn of the event loop, at most."""


async def find_slices(driver: Driver, find: Find, size: int) -> Iterator[list[Document]]:
    """Find documents, as `aiostorage.protocols.SlicingDriver.slices` does, in any driver."""
    slices: Callable[..., object] | None = getattr(driver, "slices", None)
    if slices is None:
        return consumed(await driver.execute(find), size)
    found: Iterator[list[Document]] = await slices(find, size)  # type: ignore[misc]
    return found


def consumed(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield the items of a list slice by slice, and empty it: to free all at once takes long."""
    items.reverse()
    while items:
        part = items[-size:]
        del items[-size:]
        part.reverse()
        yield part
