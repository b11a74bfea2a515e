"""For callers without an event loop: the facade, and the original's synchronous protocol."""

from aiostorage.sync.base_protocol import BaseStorageProtocol
from aiostorage.sync.facade import SyncStorage

__all__ = ["BaseStorageProtocol", "SyncStorage"]
