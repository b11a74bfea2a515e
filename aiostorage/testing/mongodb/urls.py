"""URLs of MongoDB servers: put together, and pointed to a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

__all__ = ["make_url", "url_for_database"]


def make_url(
    addresses: Sequence[str],
    *,
    login: tuple[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> str:
    """Return the URL of a deployment.

    Parameters
    ----------
    addresses
        Where its members listen, each as ``host:port``.
    login
        A user of the database ``admin``, and the password.
    options
        What stands behind the question mark.
    """
    options = dict(options or {})
    user = ""
    if login is not None:
        user = f"{quote_plus(login[0])}:{quote_plus(login[1])}@"
        options["authSource"] = "admin"
    query = f"?{urlencode(options)}" if options else ""
    return f"mongodb://{user}{','.join(addresses)}/{query}"


def url_for_database(url: str, database: str) -> str:
    """Return the URL with this database in its path, in place of the one that stands there.

    The user is looked up where it was before: without ``authSource`` that is the database in the
    path, or ``admin``.
    """
    parts = urlsplit(url)
    query = parts.query
    named = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    if "@" in parts.netloc and not named & {"authsource", "authmechanism"}:
        source = urlencode({"authSource": parts.path.strip("/") or "admin"})
        query = f"{query}&{source}" if query else source
    return urlunsplit(parts._replace(path=f"/{quote(database, safe='')}", query=query))
