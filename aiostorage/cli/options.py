"""What several commands have in common: options, and a console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from rich.console import Console

__all__ = ["DEBUG", "Stdout", "debug_option"]

F = TypeVar("F", bound=Callable[..., Any])

DEBUG: Final = "aiostorage.debug"
"""Where ``--debug`` is noted in the context's `meta`, which commands and subcommands share."""


class Stdout(Console):
    """Standard output. When nobody reads it any more, that is an `OSError` as for any file.

    Rich would raise `SystemExit`, which an event loop and its task groups get confused by.
    """

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Pass on the `BrokenPipeError` that is being handled."""
        self.quiet = True
        raise  # noqa: PLE0704


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
