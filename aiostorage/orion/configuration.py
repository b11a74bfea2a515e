"""The options in Oríon's configuration, and the storage that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import orion.core

from aiostorage.errors import ConfigurationError
from aiostorage.factory import setup_storage
from aiostorage.sync.facade import SyncStorage

__all__ = ["lost_after", "shared_storage", "storage_options"]

LOST_AFTER_HEARTBEATS: Final = 5
"""The number of Oríon's heartbeats without one after which a reserved trial counts as lost."""

_shared: Final[WeakValueDictionary[Any, SyncStorage]] = WeakValueDictionary()
"""The storages in use, by working directory and options. What is no longer in use is closed."""

_in_memory: Final[dict[Any, SyncStorage]] = {}
"""Storages whose data is nowhere else: they last as long as the process."""


def storage_options(
    database: Mapping[str, Any] | None = None, url: str | None = None, **options: Any
) -> dict[str, Any]:
    """Return the options of a storage, with the defaults that Oríon needs.

    Parameters
    ----------
    database
        What stands under ``storage.database`` in Oríon's configuration: ``url`` and options, and
        what Oríon adds for its own databases.
    url
        The URL, if it is not in `database`.
    options
        Further options, which take precedence.

    Raises
    ------
    ConfigurationError
        There is no URL.
    """
    given = dict(database or {})
    host = given.pop("host", None)
    for key in ("type", "port"):  # Oríon adds defaults for its own databases
        given.pop(key, None)
    name = given.pop("name", None)
    url = url or given.pop("url", None) or (host if "://" in str(host or "") else None)
    if url is None:
        raise ConfigurationError(
            "which storage? write `storage: {type: aiostorage, database: {url: "
            "sqlite:///tune.db}}` into Oríon's configuration, or put the URL into "
            "ORION_DB_ADDRESS"
        )
    if name is not None and _needs_database_name(url):
        given["database"] = name
    return {
        "state_codec": "pickle",
        "nan": "completed",
        "fill_version": False,  # what Oríon stores comes back as it was
        **given,
        **options,
        "url": url,
    }


def lost_after() -> float:
    """Return the seconds after which Oríon's own storage takes a trial as lost, at this moment."""
    return float(LOST_AFTER_HEARTBEATS * orion.core.config.worker.heartbeat)


def shared_storage(options: Mapping[str, Any]) -> SyncStorage:
    """Return this process's storage with these options; make it if none is in use.

    The directory of a file is made with it, as Oríon's PickledDB makes that of its file.
    """
    key = Path.cwd(), repr(sorted(options.items()))  # a path may be relative
    storage = _shared.get(key)
    if storage is None:
        made = SyncStorage(
            setup_storage({"lost_after": lost_after, **options}), in_running_loop=True
        )
        scheme = str(options["url"]).partition(":")[0].lower()
        if scheme in ("sqlite", "track"):
            with suppress(OSError):  # opening the file says what is wrong
                Path(made.location).parent.mkdir(parents=True, exist_ok=True)
        storage = _shared.setdefault(key, made)  # another thread may have been faster
        if scheme == "memory":
            _in_memory[key] = storage
    return storage


def _needs_database_name(url: str) -> bool:
    """Return whether a URL is that of a server and names no database."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("mongodb", "mongodb+srv"):
        return False
    return not rest.partition("?")[0].rpartition("@")[2].partition("/")[2]
