"""The command and its error handling: one line for each error, exit codes, ``--debug``."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import aiostorage
from aiostorage._core.driver_options import hide_credentials
from aiostorage.cli.bench import bench
from aiostorage.cli.config import config
from aiostorage.cli.copy_store import copy_command
from aiostorage.cli.demo.command import demo
from aiostorage.cli.doctor import doctor
from aiostorage.cli.dump import dump
from aiostorage.cli.escapes import escape_log, printable
from aiostorage.cli.import_tracker import import_tracker
from aiostorage.cli.load import load
from aiostorage.cli.options import DEBUG_KEY, debug_option
from aiostorage.cli.orion_transfer import export_command, import_command
from aiostorage.cli.status import status
from aiostorage.cli.terminal import echo
from aiostorage.cli.tracker_sync import tracker_sync
from aiostorage.cli.upgrade import upgrade
from aiostorage.errors import AioStorageError

__all__ = ["CommandLine", "cli"]

INTERRUPTED_EXIT_CODE = 130
"""What a shell reports for a command that Ctrl-C ended: 128 and the number of the signal."""


class CommandFailed(click.ClickException):
    """An error of the named command that the caller can fix."""

    exit_code = 2

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command


class UnexpectedError(CommandFailed):
    """An error that only a change of aiostorage can fix."""

    exit_code = 1


class CommandLine(click.Group):
    """Commands whose errors are one line each.

    Exit codes: 0 when all is well, 1 when a run failed, 2 for what the caller can fix (arguments,
    files, storages), 130 after Ctrl-C.
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
        escape_log()
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
        except click.Abort:
            sys.exit(INTERRUPTED_EXIT_CODE)
        except click.ClickException as error:
            given = sys.argv[1:] if args is None else args
            message = _without_secrets(" ".join(error.format_message().split()), given)
            echo(f"{_origin(error) or self.name}: {message}", err=True)
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
                    raise leaf from None  # the reader of our output has closed it: no message
            if ctx.meta.get(DEBUG_KEY):
                click.echo(printable(traceback.format_exc(), keep="\n"), err=True, nl=False)
            raise explained(error, f"{ctx.command_path} {ctx.invoked_subcommand}") from error


def explained(error: Exception, command: str) -> CommandFailed:
    """Return the one-line form of an exception; of a group, that of its most telling exception."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, AioStorageError):
            return CommandFailed(str(leaf), command)
    leaf = leaves[0]
    if isinstance(leaf, OSError):
        return CommandFailed(str(leaf), command)
    return UnexpectedError(
        f"unexpected {type(leaf).__name__}: {leaf} (with --debug the traceback is shown)",
        command,
    )


def _origin(error: click.ClickException) -> str | None:
    """Return the name of the command that an error comes from."""
    if isinstance(error, CommandFailed):
        return error.command
    context = getattr(error, "ctx", None)
    return context.command_path if isinstance(context, click.Context) else None


def _without_secrets(message: str, arguments: Sequence[str]) -> str:
    """Return the message of an error without the passwords in URLs that it quotes."""
    values = [value for argument in arguments for value in (argument, argument.partition("=")[2])]
    for value in values:
        if "@" in value or "://" in value:
            message = message.replace(value, hide_credentials(value))
    return message


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
    """Manage experiments that many workers share.

    `aiostorage demo` runs a real search with several processes on a storage; `aiostorage status`
    shows the state of the experiments in a storage.

    A storage is named by its URL, such as sqlite:///tune.db. Where none is named, commands use the
    one in AIOSTORAGE_URL, else that of aiostorage.toml in the user's configuration directory, else
    a SQLite file in the user's data directory.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


cli.add_command(demo)
cli.add_command(status)
cli.add_command(import_command)
cli.add_command(export_command)
cli.add_command(import_tracker)
cli.add_command(upgrade)
cli.add_command(doctor)
cli.add_command(config)
cli.add_command(bench)
cli.add_command(tracker_sync)
cli.add_command(dump)
cli.add_command(load)
cli.add_command(copy_command)
