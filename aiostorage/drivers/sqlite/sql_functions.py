"""The functions that SQL statements call, for conditions, orders and changes that SQL lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from aiostorage._core.document_json import dump_document, load_document
from aiostorage.errors import EncodingError
from aiostorage.operations import Document

__all__ = ["DamagedDocument", "SQLFunctions"]


class DamagedDocument(EncodingError):
    """The text of a document that is to be changed cannot be decoded."""


@dataclass(eq=False)
class SQLFunctions:
    """The functions of one connection, to which they do not refer.

    Attributes
    ----------
    kept
        What the functions of the running statement need.
    error
        What a function raised: SQLite does not pass it on.
    """

    kept: list[Any] = field(default_factory=list)
    error: Exception | None = None
    _loaded: tuple[str, Document] = ("", {})

    def _document(self, doc: str) -> Document:
        text, document = self._loaded
        if text != doc:
            document = load_document(doc)
            self._loaded = doc, document
        return document

    def match(self, key: int, doc: str) -> bool:
        """Return whether a document matches."""
        try:
            try:
                document = self._document(doc)
            except EncodingError:  # damaged: it is found by its columns alone
                return False
            return cast(bool, self.kept[key](document))
        except Exception as error:
            self.error = error
            raise

    def value(self, key: int, doc: str) -> Any:
        """Return a value that stands in a document; None if it cannot be decoded."""
        try:
            try:
                document = self._document(doc)
            except EncodingError:
                return None
            return self.kept[key](document)
        except Exception as error:
            self.error = error
            raise

    def set(self, key: int, doc: str) -> str:
        """Return a document as it is after a change."""
        try:
            try:
                document = load_document(doc)
            except EncodingError as error:
                raise DamagedDocument(str(error)) from error
            self.kept[key](document)
            return dump_document(document)
        except Exception as error:
            self.error = error
            raise
