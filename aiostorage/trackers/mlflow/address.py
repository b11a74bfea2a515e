"""The URLs of MLflow trackers."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.file_options import checked_path
from aiostorage.errors import ConfigurationError

__all__ = ["Address", "address_of", "require_packages"]

_FORMS: Final = "mlflow+http://HOST:PORT, mlflow+https://HOST or mlflow+sqlite:///FILE"

_REFUSED: Final = {
    "file": "MLflow 3 does not open folders of files any more; use mlflow+sqlite:///FILE, or copy "
    "the folder into a database with MLflow's own `mlflow migrate-filestore`",
    "databricks": "aiostorage was never tried with Databricks and does not connect to it",
    "databricks-uc": "aiostorage was never tried with Databricks and does not connect to it",
    "postgresql": "run `mlflow server` on that database, and use mlflow+http://HOST:PORT",
    "mysql": "run `mlflow server` on that database, and use mlflow+http://HOST:PORT",
    "mssql": "run `mlflow server` on that database, and use mlflow+http://HOST:PORT",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where MLflow is.

    Attributes
    ----------
    uri
        As MLflow's own client takes it, without secrets: its ``MLFLOW_TRACKING_URI``.
    user, password
        From the URL; empty if that has none, and MLflow's own variables and files count.
    """

    uri: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a database in a file."""
        return self.uri.startswith("sqlite:")

    @property
    def location(self) -> str:
        """For people to read; without secrets."""
        return self.uri


def address_of(url: str) -> Address:
    """Return the address in a URL ``mlflow+...``.

    Raises
    ------
    ConfigurationError
        The URL is invalid, or its kind is not supported.
    """
    scheme, _, rest = url.partition(":")
    kind = scheme.lower().partition("+")[2]
    shown = hide_credentials(url)
    if kind in ("http", "https"):
        return _server(f"{kind}:{rest}", shown)
    if kind == "sqlite":
        return _file(rest, shown)
    if kind.partition("+")[0] in _REFUSED:
        raise ConfigurationError(f"{shown!r}: {_REFUSED[kind.partition('+')[0]]}")
    raise ConfigurationError(f"{shown!r} is not a URL of MLflow; write {_FORMS}")


def _server(uri: str, shown: str) -> Address:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may contain a password
        raise ConfigurationError(
            f"{shown!r} is not a URL of MLflow: its host or its port cannot be read; write {_FORMS}"
        ) from None
    if not host or any(c.isspace() for c in uri):
        raise ConfigurationError(f"{shown!r} names no host; write {_FORMS}")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{shown!r}: the URL of MLflow ends with its path")
    if parts.username and parts.password is None:
        raise ConfigurationError(
            f"{shown!r} has a user name without a password; a token goes into the environment "
            "variable MLFLOW_TRACKING_TOKEN"
        )
    name = f"[{host}]" if ":" in host else host
    place = f"{parts.scheme}://{name}{f':{port}' if port is not None else ''}"
    return Address(
        f"{place}{parts.path.rstrip('/')}",
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def _file(rest: str, shown: str) -> Address:
    path = rest.removeprefix("///")
    if path == rest or not path or path.endswith("/"):
        raise ConfigurationError(f"{shown!r} names no file; write mlflow+sqlite:///FILE")
    if "?" in path or "#" in path:
        raise ConfigurationError(f"{shown!r}: the URL of MLflow ends with the file's name")
    checked = checked_path("mlflow", Path(path), beside=len("-journal"))
    return Address(f"sqlite:///{checked.absolute()}")


def require_packages(address: Address) -> None:
    """Check that the packages are there, without importing them.

    Raises
    ------
    ConfigurationError
        One is missing; the message says what to install.
    """
    needed = ("mlflow", "sqlalchemy", "alembic") if address.is_file else ("mlflow",)
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"{address.location} needs {', '.join(missing)}, which is not installed: "
            "pip install 'aiostorage-orion[mlflow]'"
        )
