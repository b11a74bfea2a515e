"""``aiostorage import-optuna`` and ``export-optuna``: studies move from Optuna and to it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeVar

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import connecting, open_existing
from aiostorage.cli.move_display import echo_report, progress_shown
from aiostorage.cli.move_options import destination_of, opened
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.cli.optuna_needed import optuna_needed
from aiostorage.transfer import MoveReport
from aiostorage.transfer.transfer_reports import StudyResolve

__all__ = ["export_studies_command", "import_studies_command"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    json_option,
    click.option("--dry-run", is_flag=True, help="Compare and report, but write no study."),
    click.option(
        "--resolve",
        type=click.Choice(["ignore", "overwrite"]),
        help="What to do where there is another study of the same name: keep it, or replace it. "
        "Default: refuse, and write nothing.",
    ),
    click.option(
        "-e",
        "--study",
        "studies",
        multiple=True,
        metavar="NAME",
        help="Only this study; several are possible.",
    ),
)


def _options(function: F) -> F:
    for option in _OPTIONS:
        function = option(function)
    return function


@click.command("import-optuna")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--to",
    "-s",
    "--storage",
    "url",
    metavar="URL",
    help="The storage to copy to. Default: the one that is configured, as for `aiostorage status`.",
)
@_options
@click.option(
    "--interrupt-running",
    is_flag=True,
    help="Let trials that run in SOURCE wait, so that the next worker evaluates them.",
)
@debug_option
def import_studies_command(
    *,
    source: str,
    url: str | None,
    studies: tuple[str, ...],
    resolve: StudyResolve | None,
    interrupt_running: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy studies of Optuna's own storages into a storage.

    SOURCE is the URL of a database, as Optuna takes it (sqlite:///optuna.db,
    postgresql://user@host/optuna), the path of a journal, or redis://… for a journal in Redis. It
    is not changed; stop its workers first. All of a study is copied, with the numbers, states and
    times of its trials. A study appears when it is complete. Run the command again after an
    interruption, and it continues; studies that are already there and equal stay.

    It needs Optuna: pip install 'aiostorage-orion[optuna]'.
    """
    with optuna_needed():
        from aiostorage.optuna.study_imports import import_optuna  # noqa: PLC0415  an extra
    destination, location = destination_of(named_store(url), dry_run=dry_run)

    async def move() -> MoveReport:
        async with aclosing(await opened(destination, dry_run=dry_run)) as storage:
            report = await import_optuna(
                source,
                storage,
                studies=studies or None,
                resolve=resolve,
                interrupt_running=interrupt_running,
                dry_run=dry_run,
                progress=show,
            )
        return replace(report, destination=location)

    with progress_shown() as show:
        report = anyio.run(move)
    echo_report(report, as_json=as_json)


@click.command("export-optuna")
@click.argument("places", nargs=-1, required=True, metavar="[URL] TARGET")
@storage_option
@_options
@debug_option
@click.pass_context
def export_studies_command(
    ctx: click.Context,
    *,
    places: tuple[str, ...],
    url: str | None,
    studies: tuple[str, ...],
    resolve: StudyResolve | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy studies into one of Optuna's own storages, with which Optuna can continue.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune; without URL, it is the
    configured storage, as for `aiostorage status`. TARGET is the URL of a database, as Optuna takes
    it, the path of a journal, or redis://…; TARGET is created if it does not exist. Experiments
    that are not studies are left out. Run the command again after an interruption, and it continues
    where the trials in TARGET end.

    It needs Optuna: pip install 'aiostorage-orion[optuna]'.
    """
    *source, target = places
    if len(source) > 1:
        raise click.UsageError("name the storage, or leave it out, and then the target", ctx)
    with optuna_needed():
        from aiostorage.optuna.study_exports import export_optuna  # noqa: PLC0415  an extra
    logging.getLogger("optuna").setLevel(logging.WARNING)  # it would tell of each new study
    named = named_store(one_url(source[0] if source else None, url))
    storage = open_existing(named, **connecting(named))

    async def move() -> MoveReport:
        async with aclosing(storage):
            await storage.open()  # first: if it is not there, TARGET is not made
            return await export_optuna(
                storage,
                target,
                studies=studies or None,
                resolve=resolve,
                dry_run=dry_run,
                progress=show,
            )

    with progress_shown() as show:
        report = anyio.run(move)
    echo_report(report, as_json=as_json)
