"""The facade behind the async protocol, so that one contract serves both kinds of code."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import anyio.to_thread
import pytest
from anyio import CapacityLimiter

from aiostorage._core.storage import Storage
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.sync.facade import SyncStorage
from aiostorage.testing.contract.fixtures import StorageFixtures
from aiostorage.testing.contract.helpers import Open, PassTime
from aiostorage.testing.contract.storage import StorageContract

__all__ = ["FacadeContract", "OpensFacade", "ThroughFacade"]

_END = object()


class ThroughFacade:
    """The methods of the async protocol, each of which calls the facade's in a worker thread.

    A thread cannot be cancelled. A caller that is cancelled waits until the facade returns.

    Parameters
    ----------
    facade
        The facade to call.
    threads
        How many calls may wait at the same time.
    """

    def __init__(self, facade: SyncStorage, threads: int = 200) -> None:
        self._facade = facade
        self._limiter = CapacityLimiter(threads)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "aclose":
            return partial(self._run, self._facade.close)
        method = getattr(self._facade, name)
        twin = getattr(Storage, name)
        if not callable(method):
            return method
        if inspect.iscoroutinefunction(twin):

            @wraps(method)
            async def call(*args: Any, **kwargs: Any) -> Any:
                return await self._run(partial(method, *args, **kwargs))

            return call
        if name in ("iter_trials", "watch_trials"):
            return wraps(method)(
                lambda *args, **kwargs: self._items(partial(method, *args, **kwargs))
            )
        return wraps(method)(
            lambda *args, **kwargs: _ManagerInThreads(self._run, partial(method, *args, **kwargs))
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._facade!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"facade": self._facade}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    async def _items(self, make: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
        items = await self._run(make)
        while (item := await self._run(partial(next, items, _END))) is not _END:
            yield item


class _ManagerInThreads:
    """A context manager of the facade, entered and left in worker threads."""

    def __init__(
        self,
        run: Callable[[Callable[[], Any]], Any],
        make: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._run = run
        self._make = make
        self._manager: AbstractContextManager[Any]

    async def __aenter__(self) -> Any:
        self._manager = await self._run(self._make)
        return await self._run(self._manager.__enter__)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        leave = partial(self._manager.__exit__, exc_type, exc, traceback)
        with anyio.CancelScope(shield=True):
            ended: bool | None = await self._run(leave)
        return ended


class OpensFacade(StorageFixtures):
    """Opens a storage behind its facade, for a contract of a storage.

    Examples
    --------
    >>> class TestMyArguments(OpensFacade, ApiContract):
    ...     def make_storage(self, tmp_path, **settings):
    ...         return Storage(MyDriver(tmp_path), **settings)
    """

    cancels: bool = False

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        """Make the storage behind the facade, not opened; see `open_storage`."""
        raise NotImplementedError

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        """Make a storage and the facade before it."""
        facade = SyncStorage(self.make_storage(tmp_path, **settings))
        return cast(AsyncStorageProtocol, ThroughFacade(facade))


class FacadeContract(OpensFacade, StorageContract):
    """The contract of a storage once more, through the synchronous facade.

    Two things differ there: a waiting thread cannot be cancelled, and a body that blocks its thread
    does not block the loop that renews the lease.

    Examples
    --------
    >>> class TestMineThroughTheFacade(FacadeContract):
    ...     def make_storage(self, tmp_path, **settings):
    ...         return Storage(MyDriver(tmp_path), **settings)
    """

    @pytest.mark.usefixtures("needs_second_storage")
    async def test_an_expired_lease_is_taken_over(self, opening: Open, pass_time: PassTime) -> None:
        """Show that a body which blocks its thread does not keep the lease from being renewed."""
        await self.test_the_lease_is_renewed(opening, self.clock)
