"""``aiostorage dashboard``: the experiments of a storage in a browser, with optuna-dashboard."""

from __future__ import annotations

from contextlib import aclosing, suppress

import anyio
import click

from aiostorage import Storage
from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import connecting, open_existing
from aiostorage.cli.options import debug_option, direction_option, one_url, storage_option
from aiostorage.cli.optuna_needed import optuna_needed
from aiostorage.cli.terminal import echo
from aiostorage.factory import storage_of

__all__ = ["dashboard"]

EPILOG = """\b
Examples:
  aiostorage dashboard sqlite:///tune.db
  aiostorage dashboard mongodb://localhost/tune --read-only --port 9000
"""


@click.command(epilog=EPILOG)
@click.argument("place", metavar="[URL]", required=False)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen on. There is no password, so others can only connect if you name "
    "another one.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="The port to listen on.",
)
@click.option("--read-only", is_flag=True, help="Refuse every change of studies, too.")
@direction_option
@storage_option
@debug_option
def dashboard(
    *,
    place: str | None,
    host: str,
    port: int,
    read_only: bool,
    direction: str | None,
    url: str | None,
) -> None:
    """Show the experiments of a storage in a browser, with optuna-dashboard.

    Studies of Optuna look and work as in Optuna: notes can be written and studies deleted, unless
    --read-only is given. All other experiments are shown as studies, and cannot be changed;
    --direction says which of their objectives are the best ones. Ctrl-C ends it.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune; without URL, it is the
    configured storage, as for `aiostorage status`.

    It needs optuna-dashboard: pip install 'aiostorage-orion[dashboard]'.
    """
    with optuna_needed("dashboard"):
        from aiostorage.optuna.dashboard_server import (  # noqa: PLC0415  an extra
            dashboard_server,
            is_loopback,
        )
        from aiostorage.optuna.dashboard_storage import (  # noqa: PLC0415  an extra
            DashboardStorage,
            direction_named,
        )
    named = named_store(one_url(place, url)).with_own_options()
    options = connecting(named)
    anyio.run(_open_once, open_existing(named, **options))
    store = open_existing(named, **options) if read_only else storage_of(named, **options)
    storage = DashboardStorage(store, direction_named(direction or "minimize"))
    try:
        server = dashboard_server(storage, host, port, read_only=read_only)
        shown = f"[{host}]" if ":" in host else host
        if not is_loopback(host):
            what = "read all" if read_only else "read all, and change studies"
            warning = f"there is no password: whoever can connect to {shown}:{port} can {what}"
            echo(f"aiostorage dashboard: {warning}", err=True)
        echo(f"the dashboard is at http://{shown}:{port} (Ctrl-C ends it)", err=True)
        with server, suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        storage.close()


async def _open_once(storage: Storage) -> None:
    """Open a storage, which raises the errors that it has; a server is asked only then."""
    async with aclosing(storage):
        await storage.open()
