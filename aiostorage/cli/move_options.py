"""The common parts of `load` and `copy`: their options, and the storage that they write to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from aiostorage import RetryPolicy, Storage, open_storage
from aiostorage._core.named_store import NamedStore
from aiostorage.cli.existing import check_lasts, connecting, open_existing
from aiostorage.cli.options import json_option
from aiostorage.errors import ConfigurationError
from aiostorage.factory import storage_of

__all__ = ["destination_of", "move_options", "opened"]

NOT_THERE: Final = "there is no "
"""The beginning of the message that a file or a database does not exist."""

PATIENT_RETRIES: Final = RetryPolicy(attempt_timeout=300.0, total=600.0)

F = TypeVar("F", bound=Callable[..., Any])


def move_options(function: F) -> F:
    """Add the options of `load` and `copy`."""
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Compare and report, but write nothing."),
        click.option(
            "--keep-reservations",
            is_flag=True,
            help="Leave reserved trials and held locks as they are.",
        ),
        click.option(
            "--resolve",
            type=click.Choice(["ignore", "overwrite", "bump"]),
            help="What to do where another experiment has the same name and version: keep it, "
            "replace it, or give the new one the next version. Default: refuse, and write nothing.",
        ),
    ):
        function = option(function)
    return function


def destination_of(named: NamedStore, *, dry_run: bool) -> tuple[Storage, str]:
    """Return the destination and its location; for a dry run, the destination is only read.

    If it does not exist, a dry run gets an empty storage in memory in its place.

    Raises
    ------
    ConfigurationError
        It is in memory.
    """
    named = named.without_tracker()
    check_lasts(named)
    more: dict[str, Any] = connecting(named)
    if not dry_run:
        if named.engine == "track" and "retry" not in named.options:
            more["retry"] = PATIENT_RETRIES  # it writes a whole experiment at once
        storage = storage_of(named, **more)
        return storage, storage.location
    try:
        storage = open_existing(named, **more)
    except ConfigurationError as error:
        if not str(error).startswith(NOT_THERE):
            raise
        return open_storage("memory://"), str(error).removeprefix(NOT_THERE)
    return storage, storage.location


async def opened(storage: Storage, *, dry_run: bool) -> Storage:
    """Open a storage of `destination_of`; a server may not have the database of a dry run."""
    try:
        if dry_run:
            await storage.open()
    except ConfigurationError as error:
        if not str(error).startswith(NOT_THERE):
            raise
        return open_storage("memory://")
    return storage
