"""MongoDB: the engine for many machines, on motor or on PyMongo's own asynchronous client."""

from aiostorage.drivers.mongodb.driver import MongoDBDriver

__all__ = ["MongoDBDriver"]
