"""Bytes that are too large for a document, in GridFS, with a reference in their place.

A blob is written before the document that refers to it, and what it replaces is deleted after
that: whatever happens in between, the document refers to a whole blob, the old one or the new one.
What a crash leaves over is swept up by the next large write, a day later.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import gridfs.errors
from bson import ObjectId

from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import Table
from aiostorage.operations import Document, Insert, Operation, Take, Update

__all__ = ["BUCKET", "INLINE", "Blobs"]

log: logging.Logger = logging.getLogger("aiostorage")

BUCKET: Final = "aiostorage_blobs"
"""Name of the GridFS bucket."""

INLINE: Final = 12 * 2**20
"""Bytes that stay in the document, at most; MongoDB refuses documents of more than 16 MiB."""

CHUNK: Final = 2**20
"""Bytes of one chunk."""

SWEEP: Final = timedelta(days=1)
"""How old a blob is that nothing refers to before it is deleted."""

_FILE: Final = "gridfs"


class Blobs:
    """The blobs of one database.

    Parameters
    ----------
    inline
        Bytes that stay in the document, at most.
    """

    def __init__(self, client: Client, inline: int = INLINE) -> None:
        self._client = client
        self._inline = inline

    def is_large(self, table: Table, operation: Operation[Any]) -> bool:
        """Tell whether an operation writes bytes that do not stay in their document."""
        return any(self._large(table, values) for values in _written(operation))

    async def taken_out(
        self, table: Table, operation: Operation[Any], files: list[str]
    ) -> Operation[Any]:
        """Write the large bytes of an operation into blobs, `files`; answer it with references."""
        match operation:
            case Insert(documents=documents):
                made = [await self._taken_out(table, document, files) for document in documents]
                return replace(operation, documents=tuple(made))
            case Update(changes=changes) | Take(changes=changes):
                return replace(operation, changes=await self._taken_out(table, changes, files))
            case _:
                return operation

    def _large(self, table: Table, values: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in table.blobs
            if values.get(name).__class__ is bytes and len(values[name]) > self._inline
        ]

    async def _taken_out(
        self, table: Table, values: Mapping[str, Any], files: list[str]
    ) -> dict[str, Any]:
        taken_out = dict(values)
        for name in self._large(table, values):
            # by the server's clock, for `sweep`; GridFS itself puts in that of this machine
            place = {"collection": table.name, "field": name, "at": await self._client.now()}
            file = ObjectId()
            files.append(str(file))
            await self._client.bucket(BUCKET, CHUNK).upload_from_stream_with_id(
                file, f"{table.name}.{name}", io.BytesIO(values[name]), metadata=place
            )
            taken_out[name] = {_FILE: file, "length": len(values[name])}
        return taken_out

    async def filled(self, table: Table, documents: list[Document]) -> list[Document]:
        """Read the blobs that documents refer to into them."""
        for document in documents if table.blobs else ():
            for name in table.blobs:
                value = document.get(name)
                if value.__class__ is dict:
                    document[name] = await self._read(table, document, name, value)
        return documents

    async def _read(
        self, table: Table, document: Document, name: str, reference: Mapping[str, Any]
    ) -> Any:
        while True:
            data = io.BytesIO()
            try:
                await self._client.bucket(BUCKET, CHUNK).download_to_stream(
                    ObjectId(reference[_FILE]), data
                )
            except (gridfs.errors.NoFile, gridfs.errors.CorruptGridFile):
                # it was replaced since we read the document: what is there now?
                uid = table.references_of([document["_id"]])[0]
                found = await self._client.collection(table.name).find_one({"_id": uid}, {name: 1})
                value = (found or {}).get(name)
                if value == reference:
                    raise
                if value.__class__ is not dict:
                    return value
                reference = value
            else:
                return data.getvalue()

    @staticmethod
    def references(names: Sequence[str]) -> dict[str, Any]:
        """Answer the projection that has references, and no bytes."""
        return {
            name: {"$cond": [{"$eq": [{"$type": f"${name}"}, "object"]}, f"${name}", None]}
            for name in names
        }

    @staticmethod
    def in_document(table: Table, document: Mapping[str, Any] | None) -> list[str]:
        """Answer which blobs a document refers to."""
        values = [(document or {}).get(name) for name in table.blobs]
        return [value[_FILE] for value in values if value.__class__ is dict]

    async def referred(self, table: Table, where: dict[str, Any], session: Any) -> list[str]:
        """Answer which blobs the matching documents refer to."""
        held: dict[str, Any] = {"$or": [{name: {"$type": "object"}} for name in table.blobs]}
        cursor = self._client.collection(table.name).find(
            {"$and": [where, held]}, self.references(table.blobs), session=session
        )
        return [
            file for found in await cursor.to_list(None) for file in self.in_document(table, found)
        ]

    async def delete(self, files: Iterable[str]) -> None:
        """Delete blobs, those that are gone already included."""
        bucket = self._client.bucket(BUCKET, CHUNK)
        for file in files:
            try:
                await bucket.delete(ObjectId(file))
            except gridfs.errors.NoFile:
                log.debug("the blob %s was deleted already", file)

    async def sweep(self, tables: Mapping[str, Table]) -> None:
        """Delete what was written a while ago and never referred to."""
        old = {"metadata.at": {"$lt": await self._client.now() - SWEEP}}
        cursor = self._client.collection(f"{BUCKET}.files").find(old)
        for file in await cursor.to_list(None):
            place = file.get("metadata") or {}
            table, name = tables.get(place.get("collection", "")), place.get("field")
            if table is None or name not in table.blobs:
                continue  # it is not ours
            refers = {f"{name}.{_FILE}": ObjectId(file["_id"])}
            if await self._client.collection(table.name).find_one(refers, {"_id": 1}) is None:
                await self.delete([file["_id"]])


def _written(operation: Operation[Any]) -> Sequence[Mapping[str, Any]]:
    match operation:
        case Insert(documents=documents):
            return documents
        case Update(changes=changes) | Take(changes=changes):
            return (changes,)
        case _:
            return ()
