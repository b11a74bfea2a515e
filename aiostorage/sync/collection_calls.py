"""Access to whole collections through the facade, for adapters without an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from aiostorage._core.collection_access import CollectionAccess
from aiostorage.sync.portal_storage import PortalStorage

__all__ = ["call_collections"]

P = ParamSpec("P")
T = TypeVar("T")


def call_collections(
    storage: PortalStorage,
    method: Callable[Concatenate[CollectionAccess, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a method of `CollectionAccess` on the storage behind a facade."""
    access = CollectionAccess(storage._storage)  # noqa: SLF001  an adapter of this package
    return storage._portal.call(method, access, *args, **kwargs)  # noqa: SLF001  as above
