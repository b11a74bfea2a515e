"""The command and its error handling: one line for each error, exit codes, ``--debug``."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

import aiostorage
from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.reasons import leaves_of
from aiostorage.cli.bench import bench
from aiostorage.cli.config import config
from aiostorage.cli.copy_store import copy_command
from aiostorage.cli.demo.command import demo
from aiostorage.cli.doctor import doctor
from aiostorage.cli.dump import dump
from aiostorage.cli.escapes import escape_log, printable
from aiostorage.cli.import_tracker import import_tracker
from aiostorage.cli.list_experiments import list_experiments
from aiostorage.cli.load import load
from aiostorage.cli.naming import NothingFound
from aiostorage.cli.options import DEBUG_KEY, debug_option
from aiostorage.cli.optuna_dashboard import dashboard
from aiostorage.cli.optuna_transfer import export_studies_command, import_studies_command
from aiostorage.cli.orion_transfer import export_command, import_command
from aiostorage.cli.plot import plot
from aiostorage.cli.recover import recover
from aiostorage.cli.release import release
from aiostorage.cli.rm import rm
from aiostorage.cli.set_fields import set_fields
from aiostorage.cli.show import show
from aiostorage.cli.signals import as_ctrl_c
from aiostorage.cli.status import status
from aiostorage.cli.terminal import discard_unwritten, echo
from aiostorage.cli.tracker_sync import tracker_sync
from aiostorage.cli.upgrade import upgrade
from aiostorage.cli.watch.watch_command import watch
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    FailedUpdate,
    IncompleteCopy,
    LockError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
    TrackerTimeout,
    TrackerUnavailable,
    UnknownExperiment,
)

__all__ = ["CommandLine", "cli"]

NOT_DONE: Final = 1
"""Nothing was found, something is wrong in the store, or its state forbids what was asked for."""

WRONG_USE: Final = 2
"""Arguments, files or a configuration that the caller can correct; click's own code, too."""

UNREACHABLE: Final = 3
"""The store, or the tracker, cannot be reached or used at the moment."""

UNEXPECTED: Final = 70
"""A bug of aiostorage: what BSD calls an internal software error."""

BY_SIGNAL: Final = 128
"""A shell adds this to the number of the signal that has ended a command."""

EXIT_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (NothingFound, NOT_DONE),
    (UnknownExperiment, NOT_DONE),
    (FailedUpdate, NOT_DONE),
    (LockError, NOT_DONE),
    (IncompleteCopy, NOT_DONE),
    (NotADatabaseError, WRONG_USE),
    (PermissionDenied, WRONG_USE),
    (SchemaVersionError, WRONG_USE),
    (BackendError, UNREACHABLE),
    (TrackerUnavailable, UNREACHABLE),
    (TrackerTimeout, UNREACHABLE),
    (AioStorageError, WRONG_USE),
    (OSError, WRONG_USE),
    (Exception, UNEXPECTED),
)
"""The exit code of each error: that of the first class in this table that it is an instance of."""


GROUPS: Final[tuple[tuple[str, tuple[click.Command, ...]], ...]] = (
    ("Try it", (demo,)),
    ("See", (status, list_experiments, show, watch, plot)),
    ("Change", (set_fields, rm, release, recover)),
    ("Move", (dump, load, copy_command)),
    ("Maintain", (doctor, upgrade, config, bench)),
    ("Oríon", (import_command, export_command)),
    ("Optuna", (dashboard, import_studies_command, export_studies_command)),
    ("Trackers", (tracker_sync, import_tracker)),
)
"""The commands, as the help groups them."""


class CommandFailed(click.ClickException):
    """An error of the named command."""

    def __init__(self, message: str, command: str, exit_code: int) -> None:
        super().__init__(message)
        self.command = command
        self.traceback = ""
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class


class CommandLine(click.Group):
    """Commands whose errors are one line each.

    The exit code is 0 when all is well, 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP,
    else one of `EXIT_CODES`.
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
        signals: list[int] = []
        try:
            with as_ctrl_c() as signals:
                code = super().main(args, prog_name, complete_var, False, **extra)
        except click.Abort:
            sys.exit(BY_SIGNAL + (signals or [signal.SIGINT])[0])
        except OSError as error:  # the help or the version cannot be printed
            discard_unwritten()
            echo(f"{self.name}: {error}", err=True)
            sys.exit(WRONG_USE)
        except click.ClickException as error:
            discard_unwritten()
            given = sys.argv[1:] if args is None else args
            if isinstance(error, CommandFailed) and error.traceback:
                shown = _without_secrets(error.traceback, given)
                click.echo(printable(shown, keep="\n"), err=True, nl=False)
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
            for leaf in leaves_of(error):
                if isinstance(leaf, OSError) and leaf.errno == errno.EPIPE:
                    raise leaf from None  # the reader of our output has closed it: no message
            failed = explained(error, f"{ctx.command_path} {ctx.invoked_subcommand}")
            if ctx.meta.get(DEBUG_KEY):
                failed.traceback = traceback.format_exc()
            raise failed from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups."""
        width = max(len(name) for name in self.list_commands(ctx))
        limit = formatter.width - 6 - width
        for title, commands in GROUPS:
            with formatter.section(title):
                rows = [(f"{one.name:<{width}}", one.get_short_help_str(limit)) for one in commands]
                formatter.write_dl(rows)


def explained(error: Exception, command: str) -> CommandFailed:
    """Return the one-line form of an exception; for a group, that of the most informative one."""
    leaves = leaves_of(error)
    told = next((leaf for leaf in leaves if isinstance(leaf, AioStorageError)), leaves[0])
    code = next(code for of_class, code in EXIT_CODES if isinstance(told, of_class))
    message = str(told)
    if code == UNEXPECTED:
        message = f"unexpected {type(told).__name__}: {told} (with --debug the traceback is shown)"
    return CommandFailed(message, command, code)


def _origin(error: click.ClickException) -> str | None:
    """Return the name of the command that an error comes from."""
    if isinstance(error, CommandFailed):
        return error.command
    context = getattr(error, "ctx", None)
    return context.command_path if isinstance(context, click.Context) else None


def _without_secrets(message: str, arguments: Sequence[str]) -> str:
    """Return the message of an error without the passwords in URLs that it quotes."""
    values = [value for argument in arguments for value in (argument, argument.partition("=")[2])]
    values += [os.environ.get(name, "") for name in ("AIOSTORAGE_URL", "AIOSTORAGE_TRACKER")]
    for value in values:
        if "@" in value or "://" in value:
            message = message.replace(value, hide_credentials(value))
    return message


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
    one in AIOSTORAGE_URL, else the one in aiostorage.toml in the user's configuration directory,
    else a SQLite file in the user's data directory.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _, _commands in GROUPS:
    for _command in _commands:
        cli.add_command(_command)
