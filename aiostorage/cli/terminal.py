"""Output for people. Text from a store can neither control their terminal nor forge a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from aiostorage.cli.escapes import printable

__all__ = ["Terminal", "discard_unwritten", "echo", "echo_json", "one_line"]

ERASED: Final = "\r\x1b[K"
"""The characters that erase the line of a terminal."""


def echo(line: str, *, err: bool = False) -> None:
    """Print a line to standard output, or to standard error; tabs separate its columns."""
    click.echo(printable(line, keep="\t"), err=err)


def echo_json(document: Any, *, err: bool = False) -> None:
    """Print JSON, in which the only control characters are the ends of lines."""
    text = json.dumps(document, indent=2, allow_nan=False, default=str)
    click.echo(text.replace("\x7f", "\\u007f"), err=err)  # the only one that `json` leaves


def discard_unwritten() -> None:
    """Discard what could not be written to standard output: Python would try again at its exit."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def one_line(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows progress in one line if the stream is a terminal."""
    shown = stream.isatty()

    def tell(what: str) -> None:
        if shown:
            click.echo(f"{ERASED}{printable(what)} …", file=stream, nl=False)

    try:
        yield tell
    finally:
        if shown:
            click.echo(ERASED, file=stream, nl=False)


class Terminal(Console):
    """Standard output. When its reader has closed it, writing raises `OSError` as for any file.

    Rich would raise `SystemExit`, which event loops and task groups do not handle well.

    Parameters
    ----------
    stderr
        Whether it is standard error instead.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, stderr=stderr)

    def on_broken_pipe(self) -> None:
        """Pass on the `BrokenPipeError` that is being handled."""
        self.quiet = True
        raise  # noqa: PLE0704

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with the control characters of texts escaped."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            shown = text if control else printable(text, keep="\n")
            yield segment if shown is text else Segment(shown, style)
