"""Dumps of databases that older versions of aiostorage have made."""

from __future__ import annotations

import gzip
from typing import Any

from bson import json_util
from pymongo import IndexModel
from pymongo.database import Database

__all__ = ["indexes_of", "restored"]


def restored(database: Database[dict[str, Any]], dump: bytes) -> None:
    """Fill a database with a dump: documents, their order, and indexes."""
    text = gzip.decompress(dump).decode()
    content: dict[str, Any] = json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
    for name in set(database.list_collection_names()) - set(content):
        database.drop_collection(name)
    for name, part in content.items():
        collection = database[name]
        collection.delete_many({})
        if part["documents"]:
            collection.insert_many(part["documents"])
        models = [
            IndexModel(list(index.pop("key").items()), **_options(index))
            for index in part["indexes"]
            if index["name"] != "_id_"
        ]
        if models:
            collection.create_indexes(models)


def _options(index: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in index.items() if key not in ("v", "ns")}


def indexes_of(database: Database[dict[str, Any]]) -> dict[str, Any]:
    """Return the indexes of all collections."""
    return {
        name: {
            index["name"]: (list(index["key"].items()), index.get("unique", False))
            for index in database[name].list_indexes()
        }
        for name in database.list_collection_names()
    }
