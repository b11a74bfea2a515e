"""A database type for Oríon: the collections of a storage.

Oríon's commands use it beside the storage protocol, and ``orion db test`` tests it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orion.core.io.database as orion_database

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.event_log import EventLog
from aiostorage._core.projection import check_selection, select
from aiostorage.errors import AioStorageError
from aiostorage.orion.configuration import shared_storage, storage_options
from aiostorage.orion.conversion import orion_document, plain_document
from aiostorage.orion.error_translation import orion_errors
from aiostorage.sync.collection_calls import call_collections

__all__ = ["AioStorageDB"]

events: Final = EventLog("connection")

T = TypeVar("T")


if TYPE_CHECKING:

    class OrionDatabase:
        """Oríon's base class, which has no types of its own."""

        def __init__(self, host: str, name: str | None, *options: object) -> None: ...

else:
    OrionDatabase = orion_database.Database


class AioStorageDB(OrionDatabase):
    """The collections of a storage, as one of Oríon's databases.

    Oríon's commands find it as a storage's ``_db``. As the database type ``aiostoragedb`` it lets
    ``orion db test`` test the storage of the configuration::

        storage:
          type: aiostorage
          database:
            type: aiostoragedb
            url: sqlite:///tune.db

    or, in the environment, ``ORION_DB_TYPE=aiostoragedb`` beside ``ORION_DB_ADDRESS``.

    Parameters
    ----------
    host
        The URL, if `url` is not given; see `AioStorage`.
    name
        The database, where `host` is the URL of a MongoDB server and names none.
    port, username, password
        Accepted because Oríon passes them. The URL contains all that is needed.
    options
        As in `AioStorage`.
    """

    def __init__(
        self,
        host: str | None = None,
        name: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        self._storage = shared_storage(storage_options({"host": host, "name": name, **options}))
        super().__init__(self._storage.location, name, port, username, password)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage.location!r})"

    @classmethod
    def get_defaults(cls) -> dict[str, Any]:
        """Return no defaults."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether the storage answers."""
        try:
            self.count("experiments", {"name": ""})
        except AioStorageError as error:
            events.warning(
                "no_answer", "%(store)s does not answer: %(error)s", store=self, error=error
            )
            return False
        return True

    def initiate_connection(self) -> None:
        """Do nothing: the first call connects."""

    def close_connection(self) -> None:
        """Do nothing: the connection is shared."""

    def ensure_index(self, collection_name: str, keys: Any, unique: bool = False) -> None:
        """Do nothing: the storage has its indexes."""

    def index_information(self, collection_name: str) -> dict[str, bool]:  # noqa: ARG002
        """Return the indexes that Oríon made, of which there are none."""
        return {}

    def drop_index(self, collection_name: str, name: str) -> None:
        """Refuse to drop an index of the storage.

        Raises
        ------
        DatabaseError
            Always: Oríon has made no indexes.
        """
        raise orion_database.DatabaseError(f"{collection_name} has no index {name} of Oríon's")

    def write(self, collection_name: str, data: Any, query: Any = None) -> int:
        """Insert `data`, one document or several; with a query, set it in the documents that match.

        Returns
        -------
        int
            The number of documents that were inserted or matched.
        """
        if query is None:
            given = data if isinstance(data, list | tuple) else [data]
            documents = [plain_document(collection_name, document) for document in given]
            count = self._call(CollectionAccess.insert, collection_name, documents)
            for document, stored in zip(given, documents, strict=True):
                document["_id"] = stored["_id"]
            return count
        query, data = plain_document(collection_name, query), plain_document(collection_name, data)
        return self._call(CollectionAccess.update, collection_name, query, data)

    def read(self, collection_name: str, query: Any = None, selection: Any = None) -> Any:
        """Return the documents that match."""
        query = plain_document(collection_name, query)
        found = self._call(CollectionAccess.find, collection_name, query, selection)
        return orion_document(found)

    def read_and_write(
        self, collection_name: str, query: Any, data: Any, selection: Any = None
    ) -> Any:
        """Set `data` in the first document that matches, and return that; None if none matches."""
        query, data = plain_document(collection_name, query), plain_document(collection_name, data)
        taken = self._call(CollectionAccess.take, collection_name, query, data)
        return None if taken is None else select(orion_document(taken), check_selection(selection))

    def count(self, collection_name: str, query: Any = None) -> int:
        """Return the number of documents that match."""
        return self._call(
            CollectionAccess.count, collection_name, plain_document(collection_name, query)
        )

    def remove(self, collection_name: str, query: Any) -> int:
        """Delete the documents that match; return their number."""
        return self._call(
            CollectionAccess.delete, collection_name, plain_document(collection_name, query)
        )

    def _call(self, method: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a method of `CollectionAccess`; raise Oríon's exceptions."""
        with orion_errors():
            return call_collections(self._storage, method, *args)
