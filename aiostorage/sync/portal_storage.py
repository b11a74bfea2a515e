"""What the generated facade stands on: an async storage, and the portal through which it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiostorage._core.kinds import FLAG, having
from aiostorage._core.storage import Storage
from aiostorage.sync.portal import Portal

__all__ = ["PortalStorage"]

T = TypeVar("T")

_STORAGE: Final = having("a Storage, as open_storage makes it", "_gateway", "aclose")


class PortalStorage:
    """The life of a `SyncStorage`: how it is made, opened, closed and pickled."""

    def __init__(self, storage: Storage, *, in_running_loop: bool = False) -> None:
        _STORAGE.check(type(self).__name__, "storage", storage)
        FLAG.check(type(self).__name__, "in_running_loop", in_running_loop)
        self._storage = storage
        driver = storage._gateway.driver  # noqa: SLF001  what the two classes share is the engine
        self._portal = Portal(
            storage.aclose,
            in_running_loop=in_running_loop,
            shares=getattr(driver, "client_key", None),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self._storage, "in_running_loop": self._portal.in_running_loop}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage!r})"

    @property
    def location(self) -> str:
        """Where the data is, for people to read; without secrets."""
        return self._storage.location

    def close(self) -> None:
        """Close the storage and end its event loop. A second call does nothing.

        Locks and reservations that other threads hold are released, as if those threads had been
        cancelled; they get `StorageClosedError`.
        """
        self._portal.check_caller("close", "aclose")
        self._portal.close()

    def __enter__(self) -> Self:
        self._portal.check_caller("__enter__", "open")
        self._portal.call(self._storage.open)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _iterate(self, method: str, items: AsyncIterator[T], batch_size: int) -> Iterator[T]:
        """Iterate over what an async method iterates over, a batch at a time."""
        while True:
            self._portal.check_caller(method)
            batch = self._portal.call(_next_batch, items, batch_size)
            yield from batch
            if len(batch) < batch_size:
                return


async def _next_batch(items: AsyncIterator[T], count: int) -> list[T]:
    """Return the next `count` items; the iterator keeps the others."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == count:
            break
    return batch
