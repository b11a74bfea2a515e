"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["DEBUG", "debug_option"]

F = TypeVar("F", bound=Callable[..., Any])

DEBUG: Final = "aiostorage.debug"
"""Where ``--debug`` is noted in the context's `meta`, which commands and subcommands share."""


def _note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def debug_option(function: F) -> F:
    """Add ``--debug``, which may stand before or after the name of the command."""
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note,
        help="Show where an error comes from, and what worker processes write.",
    )(function)
