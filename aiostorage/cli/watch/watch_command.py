"""``aiostorage watch``: the command."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import Any, Final

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import open_existing, open_named
from aiostorage.cli.options import (
    debug_option,
    direction_option,
    lost_after_option,
    storage_option,
    timeout_option,
)
from aiostorage.cli.terminal import echo
from aiostorage.cli.watch.change_lines import COLUMNS, follow_lines, json_line, plain_line
from aiostorage.cli.watch.watch_feed import OpenStorage, WatchFeed
from aiostorage.cli.watch.watch_state import WatchState
from aiostorage.errors import ConfigurationError
from aiostorage.summary import Direction
from aiostorage.trial_change import TrialChange

__all__ = ["watch"]

LOST_AFTER: Final = 120.0
"""Seconds after which a storage counts a trial as lost by default."""

EPILOG = """\b
Examples:
  aiostorage watch tune
  aiostorage watch tune --direction maximize -s mongodb://localhost/tune
  aiostorage watch tune --web 8000
  aiostorage watch tune --json --since oldest | jq -c 'select(.after == "broken")'
"""


@click.command(epilog=EPILOG)
@click.argument("experiment")
@direction_option
@click.option(
    "--web",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    help="Show the screen in a browser of this machine, at http://127.0.0.1:PORT.",
)
@click.option("--plain", is_flag=True, help="Print a line for each change, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each change.")
@click.option(
    "--since",
    metavar="CURSOR",
    help="Print the changes behind this cursor, which a line of JSON had; `oldest` for all that "
    "are kept. Default: from now on.",
)
@click.option("--heartbeats", is_flag=True, help="Print the heartbeats of reserved trials as well.")
@lost_after_option
@storage_option
@timeout_option
@debug_option
def watch(
    *,
    experiment: str,
    direction: Direction | None,
    web: int | None,
    plain: bool,
    as_json: bool,
    since: str | None,
    heartbeats: bool,
    lost_after: float | None,
    url: str | None,
    timeout: float | None,
) -> None:
    """Show what happens in an experiment.

    On a terminal it is a screen: how many trials have which status, the throughput, the best
    objective as a line, the workers with their last heartbeats, the algorithm lock and its queue,
    and the last changes. Keys: s and r sort the workers, Tab changes between the tables, the arrows
    and PageUp and PageDown page them, p freezes the screen, q quits.

    Where standard input, output or error is not a terminal, and with --plain or --json, it prints a
    line for each change until it is interrupted.

    It waits for an experiment that does not exist yet, and for a storage that does not answer for a
    while. Nothing is changed.

    EXPERIMENT is a name (the newest version is meant), NAME@VERSION, an id, or the beginning of an
    id.

    The screen needs textual: pip install 'aiostorage-orion[watch]'.
    """
    lines = plain or as_json
    on_screen = not lines and (web is not None or _has_screen())
    if web is not None and lines:
        raise click.UsageError("--web shows the screen; --plain and --json print lines")
    if on_screen and (since is not None or heartbeats):
        raise click.UsageError("--since and --heartbeats are for --plain and --json")
    opening: OpenStorage = partial(open_named, url, timeout, lost_after=lost_after)
    opening()  # a storage that does not exist is told of before there is a screen
    if web is not None:
        arguments = ["watch", experiment]
        if direction is not None:
            arguments += ["--direction", direction]
        if timeout is not None:
            arguments += ["--timeout", str(timeout)]
        if lost_after is not None:
            arguments += ["--lost-after", str(lost_after)]
        _serve(arguments, web, url, experiment)
    elif on_screen:
        state = WatchState(experiment, direction or "minimize")
        feed = WatchFeed(opening, state, direction_of_study=direction is None)
        _show(feed, url, lost_after)
    else:
        _print(opening, experiment, as_json=as_json, since=since, heartbeats=heartbeats)


def _has_screen() -> bool:
    """Return whether there is a terminal, or a browser that textual serves.

    textual draws on standard error, and reads keys from standard input.
    """
    streams = sys.stdin, sys.stdout, sys.stderr
    on_terminal = all(stream is not None and stream.isatty() for stream in streams)
    return on_terminal or bool(os.environ.get("TEXTUAL_DRIVER"))


def _show(feed: WatchFeed, url: str | None, lost_after: float | None) -> None:
    try:
        from aiostorage.cli.watch.watch_screen import WatchApp  # noqa: PLC0415  an extra
    except ImportError as error:
        raise _missing(error) from error
    location = open_existing(named_store(url)).location
    app = WatchApp(feed, location, LOST_AFTER if lost_after is None else lost_after)
    ended_by = app.run()
    if ended_by is not None:
        raise ended_by
    if app.return_code:
        raise click.Abort


def _serve(arguments: list[str], port: int, url: str | None, experiment: str) -> None:
    try:
        from aiostorage.cli.watch.watch_web import serve_screen  # noqa: PLC0415  an extra
    except ImportError as error:
        raise _missing(error) from error
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be used: {error.strerror}") from error
    if url is not None:
        # in the environment, where other users do not see a password
        os.environ["AIOSTORAGE_URL"] = url
    serve_screen(arguments, port, f"aiostorage watch {experiment}", partial(echo, err=True))


def _missing(error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"the screen needs {error.name}, which is not installed: "
        "pip install 'aiostorage-orion[watch]'; with --plain or --json it is not needed"
    )


def _print(opening: OpenStorage, experiment: str, *, as_json: bool, **more: Any) -> None:
    def show(change: TrialChange) -> None:
        if as_json:
            click.echo(json_line(change))
        else:
            echo(plain_line(change))

    if not as_json:
        echo("\t".join(COLUMNS))
    anyio.run(partial(follow_lines, opening, experiment, show, partial(echo, err=True), **more))
