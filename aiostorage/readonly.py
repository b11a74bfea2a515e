"""Views that cannot write."""

from __future__ import annotations

from typing import Any, Final

from aiostorage._core.kinds import having
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.sync.base_protocol import BaseStorageProtocol

__all__ = ["ReadOnlyStorage", "ReadOnlyStorageProtocol"]


_READABLE: Final = having("a storage", "fetch_experiments", "get_trial")


class _View:
    """What the async and the synchronous view have in common."""

    __slots__ = ("_storage",)

    valid_attributes: Final = frozenset(
        {
            "best_trial",
            "count_broken_trials",
            "count_completed_trials",
            "count_trials",
            "fetch_experiments",
            "fetch_lost_trials",
            "fetch_noncompleted_trials",
            "fetch_pending_trials",
            "fetch_trials",
            "fetch_trials_by_status",
            "get_trial",
            "iter_trials",
            "summary",
            "to_arrow",
            "to_dataframe",
        }
    )
    """The methods that the view has."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        if name not in self.valid_attributes:
            raise AttributeError(
                f"{name!r} is not an attribute of a {type(self).__name__}, which only reads: "
                f"{', '.join(sorted(self.valid_attributes))}"
            )
        return getattr(self._storage, name)

    def __dir__(self) -> list[str]:
        return sorted(self.valid_attributes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._storage,)


class ReadOnlyStorage(_View):
    """A view of an async storage that has only the methods that read.

    Any other attribute raises `AttributeError`.

    Parameters
    ----------
    storage
        The storage to read; the view does not close it.
    """

    __slots__ = ()

    def __init__(self, storage: AsyncStorageProtocol) -> None:
        _READABLE.check("ReadOnlyStorage", "storage", storage)
        super().__init__(storage)


class ReadOnlyStorageProtocol(_View):
    """A view of a synchronous storage that has only the methods that read.

    Any other attribute raises `AttributeError`.

    Parameters
    ----------
    protocol
        The storage to read; the view does not close it.
    """

    __slots__ = ()

    def __init__(self, protocol: BaseStorageProtocol) -> None:
        _READABLE.check("ReadOnlyStorageProtocol", "protocol", protocol)
        super().__init__(protocol)
