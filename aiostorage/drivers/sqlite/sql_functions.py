"""The functions that SQL statements call: conditions and changes that SQL cannot express."""

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

    def match(self, key: int, doc: str) -> bool:
        """Return whether a document matches."""
        try:
            text, document = self._loaded
            if text != doc:
                try:
                    document = load_document(doc)
                except EncodingError:  # damaged: it is found by its columns alone
                    return False
                self._loaded = doc, document
            return cast(bool, self.kept[key](document))
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
