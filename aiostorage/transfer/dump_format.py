"""The format of a dump: JSON Lines. Pure functions and classes without I/O.

The first line describes the file. The last line has the number of records of each kind, and the
hash of all lines before it. Between them, each line is a record: an experiment, its lock, its
trials, the next experiment, and so on; then the benchmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from aiostorage._core.document_json import dump_document, load_document
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, LAYOUT, TRIALS
from aiostorage._core.normalise import normalise
from aiostorage.errors import EncodingError, NotADatabaseError, SchemaVersionError
from aiostorage.operations import Document, UnreadableDocument

__all__ = [
    "FORMAT",
    "KINDS",
    "MAX_HEADER",
    "VERSION",
    "DumpDecoder",
    "DumpEncoder",
    "name_of",
    "readable",
]

FORMAT: Final = "aiostorage dump"
"""The name of the format in the first line."""

VERSION: Final = 1
"""The version of the format."""

MAX_HEADER: Final = 65536
"""Maximum number of bytes in the first line of a dump; other files may not have lines at all."""

KINDS: Final[Mapping[str, str]] = {
    EXPERIMENTS: "experiment",
    ALGO: "lock",
    TRIALS: "trial",
    BENCHMARKS: "benchmark",
}
"""The name of a record of each collection in a line."""

_NONE: Final = object()
"""The experiment before the first one."""

_COLLECTIONS: Final = {kind: collection for collection, kind in KINDS.items()}
_COUNTS: Final = {collection: f"{kind}s" for collection, kind in KINDS.items()}


def name_of(collection: str, document: Mapping[str, Any]) -> str:
    """Return the name of a record for people."""
    fields = dict(document)  # an unreadable one raises for what it lacks
    kind = KINDS.get(collection, collection)
    match collection:
        case "experiments":
            return f"experiment {fields.get('name')!r:.80} v{fields.get('version') or 1}"
        case "benchmarks":
            return f"benchmark {fields.get('name')!r:.80}"
        case "algo":
            return f"the lock of experiment {fields.get('experiment')!r:.60}"
    uid = fields.get("id", fields.get("_id"))
    return f"{kind} {uid!r:.60} of experiment {fields.get('experiment')!r:.60}"


def readable(collection: str, documents: list[Document], location: str) -> list[Document]:
    """Return documents that an engine has read, if it could read all of them.

    Raises
    ------
    EncodingError
        The engine could not read one of them.
    """
    for document in documents:
        if isinstance(document, UnreadableDocument):
            raise EncodingError(
                f"{name_of(collection, document)} in {location} cannot be read: {document.reason}"
            )
    return documents


class DumpEncoder:
    """Makes the lines of a dump, and counts and hashes them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.counts: dict[str, int] = dict.fromkeys(_COUNTS.values(), 0)

    @property
    def sha256(self) -> str:
        """The hash of the lines so far."""
        return self._hash.hexdigest()

    def header(self, location: str, made: datetime, aiostorage: str) -> bytes:
        """Return the first line."""
        return self._line(
            {
                "format": FORMAT,
                "version": VERSION,
                "aiostorage": aiostorage,
                "layout": LAYOUT.version,
                "location": location,
                "made": made,
            }
        )

    def records(self, collection: str, documents: Iterable[Document]) -> bytes:
        """Return the lines of records.

        Raises
        ------
        EncodingError
            A record contains something that no engine can store.
        """
        kind, lines = KINDS[collection], []
        for document in documents:
            try:
                lines.append(self._line({kind: document}))
            except (TypeError, ValueError) as error:
                raise _unfit(collection, document, error) from error
        self.counts[_COUNTS[collection]] += len(lines)
        return b"".join(lines)

    def footer(self) -> bytes:
        """Return the last line."""
        text = dump_document({"end": {**self.counts, "sha256": self.sha256}})
        return f"{text}\n".encode()

    def _line(self, document: Document) -> bytes:
        line = f"{dump_document(document)}\n".encode()
        self._hash.update(line)
        return line


def _unfit(collection: str, document: Document, error: Exception) -> EncodingError:
    name = name_of(collection, document)
    try:
        normalise(document)
    except EncodingError as found:
        return EncodingError(f"{name}: {found}", path=found.path)
    return EncodingError(f"{name}: {error}")


class DumpDecoder:
    """Reads the lines of a dump, one after another, and checks them.

    Parameters
    ----------
    name
        The file, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._hash = hashlib.sha256()
        self._counts = dict.fromkeys(_COUNTS.values(), 0)
        self._number = 0
        self._experiment: Any = _NONE
        self._ended = False

    def header(self, line: bytes) -> Document:
        """Return the content of the first line.

        Raises
        ------
        NotADatabaseError
            This is not a dump.
        SchemaVersionError
            A newer aiostorage has made it.
        """
        self._number = 1
        self._hash.update(line)
        try:
            header = load_document(line.decode())
        except (EncodingError, UnicodeDecodeError):
            header = {}
        if header.get("format") != FORMAT:
            raise NotADatabaseError(
                f"{self._name} is not a dump of aiostorage: its first line does not say so"
            )
        version, layout = header.get("version"), header.get("layout")
        if type(version) is not int or version < 1 or type(layout) is not int or layout < 1:
            raise NotADatabaseError(
                f"{self._name} is damaged: it says that it has version {version!r:.40} of the "
                f"format and layout {layout!r:.40}"
            )
        if version > VERSION or layout > LAYOUT.version:
            made_by = header.get("aiostorage")
            raise SchemaVersionError(
                f"{self._name} was made by a newer aiostorage ({made_by!s:.40}): it has version "
                f"{version} of the format and layout {layout}, and this aiostorage reads up to "
                f"{VERSION} and {LAYOUT.version}; upgrade aiostorage"
            )
        return header

    def record(self, line: bytes) -> tuple[str, Document] | None:
        """Return the collection and the document of a line; None for the last line.

        Raises
        ------
        NotADatabaseError
            The file is damaged.
        """
        self._number += 1
        if self._ended:
            raise self._damaged("it continues after its last line")
        if not line.endswith(b"\n"):
            raise self._damaged("it was cut off in this line")
        try:
            entry = load_document(line.decode())
        except (EncodingError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        (kind, document), *more = entry.items() or [("", None)]
        if more or not isinstance(document, dict) or kind not in ("end", *_COLLECTIONS):
            raise self._damaged("this is none of the records of a dump")
        if kind == "end":
            self._check_end(document)
            return None
        self._hash.update(line)
        collection = _COLLECTIONS[kind]
        self._counts[_COUNTS[collection]] += 1
        if "_id" not in document:
            raise self._damaged("this record has no _id")
        if collection == EXPERIMENTS:
            self._experiment = document["_id"]
        elif collection != BENCHMARKS and document.get("experiment") != self._experiment:
            raise self._damaged("this record does not belong to the experiment before it")
        return collection, document

    def end(self) -> None:
        """Raise NotADatabaseError if the last line was missing."""
        if not self._ended:
            self._number += 1
            raise self._damaged("it was cut off: the last line is missing, so load none of it")

    def _check_end(self, end: Mapping[str, Any]) -> None:
        self._ended = True
        if end.get("sha256") != self._hash.hexdigest() or any(
            end.get(name) != count for name, count in self._counts.items()
        ):
            raise self._damaged(
                "the counts and the hash of the last line are not those of the lines before it, "
                "so the file was changed after it was made"
            )

    def _damaged(self, what: str) -> NotADatabaseError:
        return NotADatabaseError(f"{self._name} is damaged in line {self._number}: {what}")
