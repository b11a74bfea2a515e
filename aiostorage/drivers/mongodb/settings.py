"""Which MongoDB server, by which library: everything that the URL and the options beside it say.

Nothing here connects. A URL that can never work is refused before anything does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri, split_options

from aiostorage._core.driver_options import STORAGE_OPTIONS, upgrade_command
from aiostorage._core.kinds import (
    FLAG,
    INTERVAL,
    TEXT,
    URL,
    Kind,
    check_values,
    choice,
    option,
    optional,
)
from aiostorage.errors import ConfigurationError

__all__ = ["CONNECT_TIMEOUT", "ClientLibrary", "MongoDBSettings", "read_settings"]

ClientLibrary = Literal["motor", "pymongo"]

DEFAULT_DATABASE: Final = "aiostorage"
"""The database, where the URL names none."""

CONNECT_TIMEOUT: Final = 15.0
"""Seconds to look for a server at most, where nothing else is said."""

_CONNECTING: Final = "authmechanism authsource directconnection loadbalanced replicaset tls ssl"
_SHOWN_OPTIONS: Final = frozenset([*_CONNECTING.split(), "tlscafile"])
"""Options of a URL that a client needs to connect, and that are not secrets."""

_INTERVAL: Final = option(
    Kind("a number of seconds, below 3600", lambda v: INTERVAL.accepts(v) and v < 3600)
)

_OPTIONS: Final = {
    "url": URL,
    "client": option(choice("motor", "pymongo")),
    "database": option(optional(TEXT)),
    "timeout": _INTERVAL,
    "connect_timeout": _INTERVAL,
    **dict.fromkeys(("username", "password", "auth_source"), optional(URL)),
    "read_only": option(FLAG),
}
"""What the options of the driver may be."""

_HOST: Final = re.compile(r"(\[[\dA-Fa-f:.]+(?:%\w+)?\]|[^:\[\]]+)(:\d+)?")


@dataclass(frozen=True)
class MongoDBSettings:
    """Which server, by which library.

    Attributes
    ----------
    url
        As it was passed, with its secrets.
    location
        Hosts and database, without secrets.
    timeout
        Seconds that one operation may take.
    connect_timeout
        Seconds after which no server answers, unless the URL says how long to wait for one.
    read_only
        Whether the database is only read.
    """

    url: str = field(repr=False)
    location: str
    database: str
    library: ClientLibrary = "motor"
    timeout: float = 20.0
    connect_timeout: float = CONNECT_TIMEOUT
    credentials: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    read_only: bool = False

    @property
    def upgrade_command(self) -> str:
        """The command that upgrades this database, without secrets."""
        place, _, query = self.url.partition("?")
        options = [
            option
            for option in query.split("&")
            if option.partition("=")[0].lower() in _SHOWN_OPTIONS
        ]
        if self.library != "motor":
            options.append(f"client={self.library}")
        command = upgrade_command("?".join([self.location, *filter(None, ["&".join(options)])]))
        secret = "@" in place or self.credentials
        return f"{command} (with your user and password in the URL)" if secret else command


def read_settings(
    url: str,
    client: ClientLibrary,
    database: str | None,
    timeout: float,
    credentials: Mapping[str, str | None],
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_only: bool,
) -> MongoDBSettings:
    """Return the settings of a driver; see `aiostorage.drivers.mongodb.MongoDBDriver`.

    Raises
    ------
    ConfigurationError
        It cannot work.
    """
    given = {
        "url": url,
        "client": client,
        "database": database,
        "timeout": timeout,
        "connect_timeout": connect_timeout,
        "read_only": read_only,
        "auth_source": credentials.get("authSource"),
    }
    check_values("mongodb", _OPTIONS, {**credentials, **given})
    hosts, named = _hosts_and_database(url)
    place = f"{url.partition('://')[0]}://{hosts}"
    if set(named) & set(":;&="):  # they may begin a password
        raise ConfigurationError(
            f"{place}/***: the part after the host is not the name of a database; options follow "
            "a ?"
        )
    database = database or named or DEFAULT_DATABASE
    location = f"{place}/{database}"
    if set(database) & set('/\\. "$*<>:|?'):
        raise ConfigurationError(f"{location}: {database!r} cannot be the name of a database")
    _check_options(url, location)
    return MongoDBSettings(
        url=url,
        location=location,
        database=database,
        library=client,
        timeout=timeout,
        connect_timeout=connect_timeout,
        credentials=tuple((k, v) for k, v in credentials.items() if v is not None),
        read_only=read_only,
    )


def _hosts_and_database(url: str) -> tuple[str, str]:
    """Return the parts of a connection string that have no secrets."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("mongodb", "mongodb+srv") or not rest:
        raise ConfigurationError(
            "a MongoDB URL reads mongodb://host:port/database or mongodb+srv://host/database"
        )
    place, _, options = rest.partition("?")
    user, _, where = place.rpartition("@")
    if "/" in user or "@" in options:  # what stands before a / or ? might be part of a password
        raise ConfigurationError(
            f"the {scheme}:// URL cannot be read: in a user name, a password and an option write "
            "%2F for a /, %3F for a ? and %40 for an @"
        )
    hosts, _, database = where.partition("/")
    if not hosts:
        raise ConfigurationError(f"{scheme}:// needs a host: {scheme}://localhost/{database}")
    if not all(map(_HOST.fullmatch, hosts.split(","))):  # a password without its @, perhaps
        raise ConfigurationError(
            f"the {scheme}:// URL cannot be read: a host reads name:27017 or [::1]:27017, and an @ "
            "stands between a password and the host"
        )
    return hosts, database


def _check_options(url: str, shown: str) -> None:
    """Refuse a URL that can never work, without connecting.

    Raises
    ------
    ConfigurationError
        It is malformed, reads would go to members that lag behind, or writes would not be answered.
    """
    if url.startswith("mongodb+srv://"):  # all but the hosts can be read without looking them up
        url = re.sub(
            r"(?<=[?&])srv\w+=[^&]*&?", "", url.replace("mongodb+srv", "mongodb", 1)
        ).rstrip("?&")
    try:
        options = parse_uri(url, warn=False)["options"]
    except (PyMongoError, ValueError, OSError) as error:
        raise ConfigurationError(f"{shown}: {_refused_option(url, str(error))}") from None
    if str(options.get("readPreference", "primary")).lower() != "primary":
        raise ConfigurationError(
            f"{shown}: reads go to the primary, since a member that lags behind would answer what "
            "is no longer so; remove readPreference"
        )
    if str(options.get("readConcernLevel")).lower() == "linearizable":
        raise ConfigurationError(
            f"{shown}: transactions know no linearizable reads; majority is the strictest level"
        )
    if options.get("w") == 0:
        raise ConfigurationError(f"{shown}: with w=0 no write is answered; remove it")


def _refused_option(url: str, message: str) -> str:
    """Return a message with the name of the option that makes a URL malformed, not its value."""
    for named in filter(None, url.partition("?")[2].split("&")):
        try:
            split_options(named, warn=False)
        except (PyMongoError, ValueError, OSError):
            name, equals, value = named.partition("=")
            for part in filter(None, re.split("[:,]", unquote(value) if equals else name)):
                message = message.replace(part, "***")
            hint = ", pass it as a keyword, beside the URL" if name in STORAGE_OPTIONS else ""
            return f"{name if equals else '***'}{hint}: {message}"
    return message
