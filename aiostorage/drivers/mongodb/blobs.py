"""Bytes that are too large for a document, in GridFS, with a reference in their place.

A blob is written before the document that refers to it, and what it replaces is deleted after
that: whatever happens in between, the document refers to a whole blob, the old one or the new one.
What a crash leaves over is swept up by the next large write, a day later.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import gridfs.errors
from bson import ObjectId

from aiostorage._core.event_log import EventLog
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError
from aiostorage.operations import Document, Insert, InsertNext, Operation, Take, Update

__all__ = ["BUCKET", "Blobs"]

events: Final = EventLog("mongodb")

BUCKET: Final = "aiostorage_blobs"
"""Name of the GridFS bucket."""

CHUNK_BYTES: Final = 2**20
"""Bytes of one chunk."""

MIN_SWEPT_AGE: Final = timedelta(days=1)
"""Age from which a blob is deleted that no document refers to."""

_FILE: Final = "gridfs"


class Blobs:
    """The blobs of one database."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def extract(
        self, schema: CollectionSchema, operation: Operation[Any], files: list[str]
    ) -> Operation[Any]:
        """Write the large bytes of an operation into blobs; return it with references to them.

        Parameters
        ----------
        files
            Gets the ids of the blobs as they are written.
        """
        match operation:
            case Insert(documents=documents) | InsertNext(documents=documents):
                made = [await self._extract(schema, document, files) for document in documents]
                return replace(operation, documents=tuple(made))
            case Update(changes=changes) | Take(changes=changes):
                return replace(operation, changes=await self._extract(schema, changes, files))
            case _:
                return operation

    async def _extract(
        self, schema: CollectionSchema, values: Mapping[str, Any], files: list[str]
    ) -> dict[str, Any]:
        extracted = dict(values)
        for name in schema.large_fields(values):
            # by the server's clock, for the sweep; GridFS itself takes that of this machine
            place = {"collection": schema.name, "field": name, "at": await self._client.now()}
            file = ObjectId()
            files.append(str(file))
            await self._client.bucket(BUCKET, CHUNK_BYTES).upload_from_stream_with_id(
                file, f"{schema.name}.{name}", io.BytesIO(values[name]), metadata=place
            )
            extracted[name] = {_FILE: file, "length": len(values[name])}
        return extracted

    async def fill(self, schema: CollectionSchema, documents: list[Document]) -> None:
        """Read the blobs that documents refer to into them."""
        for document in documents:
            for name in schema.blobs:
                value = document.get(name)
                if value.__class__ is dict:
                    document[name] = await self._read(schema, document, name, value)

    async def _read(
        self, schema: CollectionSchema, document: Document, name: str, reference: Mapping[str, Any]
    ) -> Any:
        while True:
            data = io.BytesIO()
            try:
                await self._client.bucket(BUCKET, CHUNK_BYTES).download_to_stream(
                    ObjectId(reference[_FILE]), data
                )
            except (gridfs.errors.NoFile, gridfs.errors.CorruptGridFile):
                # it was replaced after the document was read: read the document again
                uid = schema.references_of([document["_id"]])[0]
                found = await self._client.collections[schema.name].find_one(
                    {"_id": uid}, {name: 1}
                )
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
        """Return the projection that has references, and no bytes."""
        return {
            name: {"$cond": [{"$eq": [{"$type": f"${name}"}, "object"]}, f"${name}", None]}
            for name in names
        }

    @staticmethod
    def in_document(schema: CollectionSchema, document: Mapping[str, Any] | None) -> list[str]:
        """Return the blobs that a document refers to."""
        values = [(document or {}).get(name) for name in schema.blobs]
        return [value[_FILE] for value in values if value.__class__ is dict]

    async def referred(
        self, schema: CollectionSchema, where: dict[str, Any], session: Any
    ) -> list[str]:
        """Return the blobs that the matching documents refer to."""
        held: dict[str, Any] = {"$or": [{name: {"$type": "object"}} for name in schema.blobs]}
        cursor = self._client.collections[schema.name].find(
            {"$and": [where, held]}, self.references(schema.blobs), session=session
        )
        return [
            file for found in await cursor.to_list(None) for file in self.in_document(schema, found)
        ]

    async def discard(
        self, files: Sequence[str], *, sweep: Mapping[str, CollectionSchema] | None = None
    ) -> None:
        """Delete blobs that no document refers to; what fails to be deleted is swept later.

        Parameters
        ----------
        sweep
            The collections in which to look for what crashes have left.
        """
        with (
            suppress(AioStorageError),
            translated(self._client.settings.location, writing=False),
        ):
            if files:
                await self._delete(files)
            if sweep is not None:
                await self._sweep(sweep)

    async def _delete(self, files: Iterable[str]) -> None:
        """Delete blobs; it does not matter if some are deleted already."""
        bucket = self._client.bucket(BUCKET, CHUNK_BYTES)
        for file in files:
            try:
                await bucket.delete(ObjectId(file))
            except gridfs.errors.NoFile:
                events.debug("blob_gone", "the blob %(blob)s was deleted already", blob=file)

    async def _sweep(self, schemas: Mapping[str, CollectionSchema]) -> None:
        await self._delete(await self.left_over(schemas))

    async def left_over(self, schemas: Mapping[str, CollectionSchema]) -> list[str]:
        """Return the blobs that were written a while ago and that no document refers to."""
        files: list[str] = []
        old = {"metadata.at": {"$lt": await self._client.now() - MIN_SWEPT_AGE}}
        cursor = self._client.collections[f"{BUCKET}.files"].find(old)
        for file in await cursor.to_list(None):
            place = file.get("metadata") or {}
            schema, name = schemas.get(place.get("collection", "")), place.get("field")
            if schema is None or name not in schema.blobs:
                continue  # another program wrote it
            refers = {f"{name}.{_FILE}": ObjectId(file["_id"])}
            if await self._client.collections[schema.name].find_one(refers, {"_id": 1}) is None:
                files.append(file["_id"])
        return files

    async def stray_chunks(self) -> list[ObjectId]:
        """Return the ids of interrupted uploads: they have old chunks, but no file."""
        before = await self._client.now() - MIN_SWEPT_AGE
        found = await self._client.aggregated(
            f"{BUCKET}.chunks",
            [
                {"$group": {"_id": "$files_id"}},
                {
                    "$lookup": {
                        "from": f"{BUCKET}.files",
                        "localField": "_id",
                        "foreignField": "_id",
                        "as": "files",
                    }
                },
                {"$match": {"files": []}},
            ],
        )
        ids = [one["_id"] for one in found]
        return [i for i in ids if isinstance(i, ObjectId) and i.generation_time < before]

    async def delete_left_over(self, schemas: Mapping[str, CollectionSchema]) -> int:
        """Delete the blobs and the chunks that are left over; return how many."""
        files, chunks = await self.left_over(schemas), await self.stray_chunks()
        await self._delete(files)
        if chunks:
            await self._client.undecoded[f"{BUCKET}.chunks"].delete_many(
                {"files_id": {"$in": chunks}}
            )
        return len(files) + len(chunks)
