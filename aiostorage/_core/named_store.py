"""Which storage is meant where a call or a command names none, and who says so."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiostorage._core.driver_options import STORE_SETTINGS, hide_credentials, taken_from_query
from aiostorage.errors import AioStorageError, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "LEGACY",
    "NamedStore",
    "configuration_file",
    "default_path",
    "named_by",
    "named_store",
    "scheme_of",
]

LEGACY: Final = "legacy"
"""The type of a storage that is configured by one of Oríon's databases."""

_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*")

E = TypeVar("E", bound=AioStorageError)


@dataclass(frozen=True, slots=True)
class NamedStore:
    """The configuration of a storage, and where it comes from.

    Attributes
    ----------
    options
        A ``url`` or a ``type``, and options, as `aiostorage.setup_storage` takes them.
    origin
        A clause that says who named it; None for an argument, whose caller knows that.
    is_default
        Whether no store was named.
    """

    options: Mapping[str, Any]
    origin: str | None = None
    is_default: bool = False

    @property
    def of_type(self) -> str:
        """The type, which may be the scheme of the URL.

        Raises
        ------
        ConfigurationError
            There is none.
        """
        of_type, url = self.options.get("type"), self.options.get("url")
        if of_type is not None:
            return str(of_type).lower()
        if url is not None:
            try:
                return scheme_of(url).lower()
            except ConfigurationError as error:
                raise named_by(error, self.origin)  # noqa: B904  the same error
        if "database" in self.options:
            return LEGACY
        nothing = ConfigurationError(
            "a storage configuration needs a `url` or a `type`; it has "
            f"{sorted(map(str, self.options)) or 'nothing'}"
        )
        raise named_by(nothing, self.origin)

    @property
    def engine(self) -> str:
        """The type of the engine that keeps the data; ConfigurationError if there is none."""
        there = self.without_tracker()
        of_type, database = there.of_type, there.options.get("database")
        if of_type != LEGACY or not isinstance(database, Mapping):
            return of_type
        kind = str(database.get("type", "pickleddb")).lower()
        return {"ephemeraldb": "memory", "pickleddb": "sqlite"}.get(kind, kind)

    def without_tracker(self) -> NamedStore:
        """Return the same store for reading, without a tracker."""
        options = dict(self.options)
        if "coordinator" in options:  # the tracker is named by the type
            there = options["coordinator"]
            options = {"url": there} if isinstance(there, str) else dict(there)
        for name in ("tracker", "deliver_on_close"):
            options.pop(name, None)
        return NamedStore(options, self.origin, self.is_default)

    def with_own_options(self) -> NamedStore:
        """Return the same store, to which options of its engine can be added.

        A MongoDB database that is configured as Oríon does it takes none beside it.
        """
        if self.of_type != LEGACY or self.engine != "mongodb":
            return self
        options = {**self.options, **self.options["database"]}
        del options["database"]
        return NamedStore(options, self.origin, self.is_default)

    def for_reading(self) -> NamedStore:
        """Return the same store without what an opening would change: no tracker, no setting."""
        there = self.without_tracker()
        options = {k: v for k, v in there.options.items() if k not in STORE_SETTINGS}
        if isinstance(url := options.get("url"), str):
            options["url"] = taken_from_query(url, STORE_SETTINGS)[0]
        return NamedStore(options, self.origin, self.is_default)


def named_store(argument: Mapping[str, Any] | str | None = None) -> NamedStore:
    """Return the storage that is meant: the one rule of all calls and commands.

    The first of these that there is: the argument; the URL in the environment's ``AIOSTORAGE_URL``;
    the table ``[storage]`` of ``aiostorage.toml`` in the user's configuration directory; a SQLite
    file in the user's data directory. Unless it is the argument, the tracker in
    ``AIOSTORAGE_TRACKER`` belongs to it. Nothing is made, not even a directory.

    Raises
    ------
    ConfigurationError
        The configuration file cannot be read, or has no table ``[storage]``.
    """
    if argument is not None:
        return NamedStore({"url": argument} if isinstance(argument, str) else dict(argument))
    is_default = False
    if url := os.environ.get("AIOSTORAGE_URL"):
        options, origin = {"url": url}, "AIOSTORAGE_URL names this storage"
    else:
        file = configuration_file()
        table = _table_of(file)
        if table is None:
            is_default = True
            options = {"type": "sqlite", "path": str(default_path())}
            origin = f"this is the default; neither AIOSTORAGE_URL nor {file} names a storage"
        else:
            options, origin = table, f"{file} names this storage"
    if tracker := os.environ.get("AIOSTORAGE_TRACKER"):
        options = {**options, "tracker": tracker}
        origin += ", and AIOSTORAGE_TRACKER its tracker"
    return NamedStore(options, origin, is_default)


def named_by(error: E, origin: str | None) -> E:
    """Return an error whose message also says who named the storage."""
    if origin is not None and error.args and origin not in str(error.args[0]):
        error.args = (f"{error.args[0]} ({origin})", *error.args[1:])
    return error


def scheme_of(url: object) -> str:
    """Return the scheme of a URL.

    Raises
    ------
    ConfigurationError
        It has none.
    """
    text = str(url)
    scheme, colon, _ = text.partition("://")
    if not colon or not _SCHEME.fullmatch(scheme):
        shown = hide_credentials(text)
        example = "tune.db"
        if text.strip() and shown == text and ":" not in text:
            example = os.path.expanduser(text)  # noqa: PTH111  which never raises
        raise ConfigurationError(
            f"{shown!r} is not a storage URL; write for example sqlite:///{example}"
        )
    return scheme


def default_path() -> Path:
    """Return the SQLite file that is used where nothing is configured; its directory may lack."""
    import platformdirs  # noqa: PLC0415  a URL needs no directories

    return platformdirs.user_data_path("aiostorage") / "aiostorage.db"


def configuration_file() -> Path:
    """Return the configuration file, which may lack."""
    import platformdirs  # noqa: PLC0415  as above

    return platformdirs.user_config_path("aiostorage") / "aiostorage.toml"


def _table_of(file: Path) -> dict[str, Any] | None:
    """Return the configuration of a storage in a file; None without that file."""
    import tomllib  # noqa: PLC0415  a URL needs no file

    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
            raise ConfigurationError(f"cannot read {file}: it is not a file")
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("storage")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        # not chained: that error holds the text, which may contain a password
        raise ConfigurationError(f"cannot read {file}: {error}") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigurationError(f"{file} needs a table [storage], with a `url` or a `type`")
    return table
