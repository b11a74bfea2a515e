"""The MongoDB engine that a URL or options ask for."""

from __future__ import annotations

from typing import Any, Final

from aiostorage._core.driver_options import STORAGE_OPTIONS, call_with_options, taken_from_query
from aiostorage._core.kinds import TEXT, URL, WHOLE, Kind, check_values, option, optional
from aiostorage.drivers.mongodb.driver import MongoDBDriver
from aiostorage.errors import ConfigurationError

__all__ = ["driver_from_options"]


def _is_port(value: object) -> bool:
    return WHOLE.accepts(value) or TEXT.accepts(value)


_SECONDS: Final = ("timeout", "connect_timeout")

_IN_URL: Final = ("client", *_SECONDS)
"""Options of the engine that may stand in the query of a URL, beside those of MongoDB."""


_KINDS: Final = {
    **dict.fromkeys(("url", "host"), optional(URL)),
    "port": option(optional(Kind("the number of a port", _is_port))),
    "name": option(optional(TEXT)),
}
"""What the options may be that the driver does not have."""


def driver_from_options(
    *,
    url: str | None = None,
    host: str | None = None,
    port: int | str | None = None,
    name: str | None = None,
    client: str | None = None,
    **options: Any,
) -> MongoDBDriver:
    """Return the driver for a URL, or for what Oríon says of a database: host, port and name.

    Parameters
    ----------
    url
        The URL; `client`, ``timeout`` and ``connect_timeout`` may stand in its query, and are
        overridden by those passed here.
    host, port
        The server, if there is no `url`. Default: ``localhost``. `host` may itself be a URL.
    name
        The database, if there is no option ``database``.
    client, options
        See `MongoDBDriver`.

    Raises
    ------
    ConfigurationError
        An option is unknown, or cannot work.
    """
    check_values("mongodb", _KINDS, {"url": url, "host": host, "port": port, "name": name})
    if url is None:
        host = host or "localhost"
        where = host if "://" in host else f"mongodb://{host}"
        url = f"{where}:{port}" if port and where is not host else where
    elif host or port:
        raise ConfigurationError("mongodb: pass a URL or a host and port, not both")
    url, given = taken_from_query(url, _IN_URL)
    options = {**given, **options}
    if client is not None:
        options["client"] = client
    if name is not None:
        options.setdefault("database", name)
    for option_name in options.keys() & set(_SECONDS):
        try:
            options[option_name] = float(options[option_name])
        except (OverflowError, TypeError, ValueError):
            raise ConfigurationError(
                f"mongodb: {option_name} is a number of seconds, not {options[option_name]!r}"
            ) from None
    return call_with_options(
        MongoDBDriver,
        "mongodb",
        {"url": url, **options},
        beside=STORAGE_OPTIONS,
        hint="; those that PyMongo understands stand in the URL",
    )
