"""Options and questions that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from aiostorage.cli.escapes import printable

__all__ = [
    "DEBUG_KEY",
    "DEFAULT_TIMEOUT",
    "confirmed",
    "debug_option",
    "direction_option",
    "json_option",
    "lost_after_option",
    "one_url",
    "storage_option",
    "timeout_option",
    "yes_option",
]

F = TypeVar("F", bound=Callable[..., Any])

DEBUG_KEY: Final = "aiostorage.debug"
"""The key of ``--debug`` in the context's `meta`, which commands and subcommands share."""

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a command waits for a storage to answer, while the user waits at the terminal."""


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG_KEY] = True


def debug_option(function: F) -> F:
    """Add ``--debug``, which may come before or after the name of the command."""
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_debug,
        help="Show the traceback of an error, and what worker processes write to stderr.",
    )(function)


def storage_option(function: F) -> F:
    """Add ``--storage URL``, the argument `url`: the storage to use."""
    return click.option(
        "-s",
        "--storage",
        "url",
        metavar="URL",
        help="The storage, such as sqlite:///tune.db or mongodb://localhost/tune. Default: the one "
        "in AIOSTORAGE_URL, else the one in aiostorage.toml, else a SQLite file in the user's data "
        "directory.",
    )(function)


def timeout_option(function: F) -> F:
    """Add ``--timeout SECONDS``, the argument `timeout`: how long to wait for an answer."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True, max=3600, max_open=True),
        help="Give up when the storage does not answer for this long. Default: "
        f"{DEFAULT_TIMEOUT:g}, unless the URL has a timeout.",
    )(function)


def direction_option(function: F) -> F:
    """Add ``--direction``, the argument `direction`: which objective is the best one."""
    return click.option(
        "--direction",
        type=click.Choice(["minimize", "maximize"]),
        help="Whether the smallest objective is the best one, or the greatest. Default: as a study "
        "of Optuna says, else minimize.",
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``, the argument `as_json`: print one JSON document for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(
        function
    )


def yes_option(function: F) -> F:
    """Add ``--yes``, the argument `yes`: do not ask first."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask first.")(function)


def lost_after_option(function: F) -> F:
    """Add ``--lost-after SECONDS``, the argument `lost_after`."""
    return click.option(
        "--lost-after",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Time without a heartbeat after which a reserved trial is lost, as the workers have "
        "it. Default: 120.",
    )(function)


def one_url(argument: str | None, option: str | None) -> str | None:
    """Return the URL of a command that takes it as an argument, or as ``--storage``.

    Raises
    ------
    click.UsageError
        Both were passed.
    """
    if argument is not None and option is not None:
        raise click.UsageError("the storage is named twice: as an argument and with --storage")
    return option if argument is None else argument


def confirmed(question: str, yes: bool) -> bool:
    """Ask a question on standard error; return whether the answer is yes.

    Parameters
    ----------
    question
        Without a question mark; it may contain text from a store.
    yes
        Whether the caller has answered it with ``--yes``.

    Raises
    ------
    click.UsageError
        The user cannot be asked: standard input is not a terminal.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("standard input is not a terminal to ask at; say --yes to do it")
    return click.confirm(printable(question), err=True)
