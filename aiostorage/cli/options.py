"""What several commands share: options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["DEBUG_KEY", "debug_option"]

F = TypeVar("F", bound=Callable[..., Any])

DEBUG_KEY: Final = "aiostorage.debug"
"""The key of ``--debug`` in the context's `meta`, which commands and subcommands share."""


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG_KEY] = True


def debug_option(function: F) -> F:
    """Add ``--debug``, which may stand before or after the name of the command."""
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_debug,
        help="Show the traceback of an error, and what worker processes write to stderr.",
    )(function)
