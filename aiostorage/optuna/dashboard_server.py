"""optuna-dashboard over a store, served over HTTP."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna_dashboard import wsgi

from aiostorage.errors import ConfigurationError
from aiostorage.optuna.dashboard_storage import DashboardStorage
from aiostorage.optuna.study_ids import parts_of_trial_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["dashboard_app", "dashboard_server", "is_loopback"]

_READING: Final = ("GET", "HEAD")

_NAMED: Final = re.compile(r"/api/(studies|trials|artifacts)/(\d+)")
"""The path of a request that is about a study, or about a trial."""


def dashboard_app(
    storage: DashboardStorage, *, read_only: bool = False, hosts: Iterable[str] | None = None
) -> WSGIApplication:
    """Return optuna-dashboard as a WSGI application over a store.

    Parameters
    ----------
    read_only
        Refuse every change. Otherwise only changes of experiments that are not studies are refused.
    hosts
        The names by which browsers may call this server, with the port; None for any name.
    """
    app: WSGIApplication = wsgi(storage)
    names = None if hosts is None else frozenset(hosts)

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        origin = environ.get("HTTP_ORIGIN")
        # another page in the same browser could connect, too, also by a name that it controls
        if (names is not None and host not in names) or (
            origin is not None and urlsplit(origin).netloc != host
        ):
            return _refusal(start_response, "only pages of this server may connect")
        if environ["REQUEST_METHOD"] not in _READING:
            if read_only:
                return _refusal(start_response, "this dashboard was started with --read-only")
            if _is_foreign(storage, environ.get("PATH_INFO", "")):
                return _refusal(
                    start_response,
                    "this experiment is not a study of Optuna, and cannot be changed here",
                )
        return app(environ, start_response)

    return guarded


def _is_foreign(storage: DashboardStorage, path: str) -> bool:
    found = _NAMED.match(path)
    if found is None:
        return False
    study_id = int(found[2])
    if found[1] == "trials":
        study_id, _ = parts_of_trial_id(study_id)
    return storage.is_foreign(study_id)


def _refusal(start_response: StartResponse, reason: str) -> list[bytes]:
    """Return a refusal in the form of the dashboard's own, which it shows in the page."""
    body = json.dumps({"reason": reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("403 Forbidden", headers)
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    """A server that answers several requests at the same time."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called, which may take long."""
        TCPServer.server_bind(self)
        address = self.socket.getsockname()
        self.server_name, self.server_port = str(address[0]), int(address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as its base calls it
        pass


def dashboard_server(
    storage: DashboardStorage, host: str, port: int, *, read_only: bool = False
) -> WSGIServer:
    """Return a server that listens already; ``serve_forever`` answers.

    Parameters
    ----------
    host
        The address, or the name, of an interface of this machine.
    port
        0 for any free port; ``server_port`` says which.
    read_only
        As for `dashboard_app`.

    Raises
    ------
    ConfigurationError
        The address cannot be used.
    """
    server_class = _Server6 if ":" in host else _Server
    try:
        server = server_class((host, port), _QuietHandler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{host} port {port} cannot be used: {reason}") from error
    names = None
    if is_loopback(host):
        names = [
            f"{name}:{server.server_port}" for name in ("127.0.0.1", "localhost", "[::1]", host)
        ]
    server.set_app(dashboard_app(storage, read_only=read_only, hosts=names))
    return server


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
