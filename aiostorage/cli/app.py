"""The command and its manners: one line for what goes wrong, exit codes, ``--debug``."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import aiostorage
from aiostorage.cli.demo.command import demo
from aiostorage.cli.options import DEBUG, debug_option
from aiostorage.cli.orion_transfer import export_command, import_command
from aiostorage.cli.status import status
from aiostorage.errors import AioStorageError

__all__ = ["CommandLine", "cli"]

INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C ended: 128 and the number of the signal."""


class Failure(click.ClickException):
    """What the caller can put right, from a command of that name."""

    exit_code = 2

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command


class Unexpected(Failure):
    """What only we can put right."""

    exit_code = 1


class CommandLine(click.Group):
    """Commands whose errors are one line each.

    Exit codes: 0 when all is well, 1 when a run came to no good end, 2 for what the caller can put
    right (arguments, files, storages), 130 after Ctrl-C.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; exit, unless `standalone_mode` is False."""
        extra["windows_expand_args"] = windows_expand_args
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            message = " ".join(error.format_message().split())
            click.echo(f"{_origin(error) or self.name}: {message}", err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            for leaf in _leaves(error):
                if isinstance(leaf, OSError) and leaf.errno == errno.EPIPE:
                    raise leaf from None  # whoever read our output has seen enough
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise explained(error, f"{ctx.command_path} {ctx.invoked_subcommand}") from error


def explained(error: Exception, command: str) -> Failure:
    """Make the one line of what was raised; of a group, of what matters most in it."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, AioStorageError):
            return Failure(str(leaf), command)
    leaf = leaves[0]
    if isinstance(leaf, OSError):
        return Failure(str(leaf), command)
    return Unexpected(
        f"unexpected {type(leaf).__name__}: {leaf} (with --debug you see where it comes from)",
        command,
    )


def _origin(error: click.ClickException) -> str | None:
    """Tell which command an error comes from."""
    if isinstance(error, Failure):
        return error.command
    context = getattr(error, "ctx", None)
    return context.command_path if isinstance(context, click.Context) else None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@click.group(
    "aiostorage",
    cls=CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(aiostorage.__version__, message="aiostorage %(version)s")
@debug_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Look after experiments that many workers share.

    `aiostorage demo` puts a real search with several processes on a storage; `aiostorage status`
    tells how the experiments of a storage stand.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


cli.add_command(demo)
cli.add_command(status)
cli.add_command(import_command)
cli.add_command(export_command)
