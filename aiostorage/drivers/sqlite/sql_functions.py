"""What SQL statements call back: conditions that SQL cannot express, and changes of documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from aiostorage._core.document_json import dump_document, load_document
from aiostorage.operations import Document

__all__ = ["SQLFunctions"]


@dataclass(slots=True, eq=False)
class SQLFunctions:
    """The functions of one connection.

    Attributes
    ----------
    kept
        What the functions of the running statement need; the statement has its place in the list.
    """

    kept: list[Any] = field(default_factory=list)
    _error: Exception | None = None
    _loaded: tuple[str, Document] = ("", {})

    def cause_of(self, error: Exception) -> Exception:
        """Return the error of a function, if it was one: SQLite does not pass it on."""
        cause, self._error = self._error, None
        return cause or error

    def match(self, key: int, doc: str) -> bool:
        """Return whether a document meets a condition."""
        try:
            text, document = self._loaded
            if text != doc:
                document = load_document(doc)
                self._loaded = doc, document
            return cast(bool, self.kept[key](document))
        except Exception as error:
            self._error = error
            raise

    def change(self, key: int, doc: str) -> str:
        """Return a document as a function changes it."""
        try:
            document = load_document(doc)
            self.kept[key](document)
            return dump_document(document)
        except Exception as error:
            self._error = error
            raise
