"""``aiostorage list``: lists the experiments of a storage, one per line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import click
from rich.table import Table
from rich.text import Text

from aiostorage import Storage
from aiostorage.cli.escapes import printable
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import experiment_label
from aiostorage.cli.options import debug_option, json_option, storage_option, timeout_option
from aiostorage.cli.plain import plain
from aiostorage.cli.terminal import Terminal, echo, echo_json

__all__ = ["list_experiments"]

COLUMNS = ("experiment", "id", "trials", "completed", "max_trials", "algorithm", "user", "created")


@click.command("list")
@storage_option
@json_option
@timeout_option
@debug_option
def list_experiments(url: str | None, as_json: bool, timeout: float | None) -> None:
    """List the experiments of a storage, one per line, in the order of their creation.

    The exit code is 1 if there are none.
    """
    location, rows = anyio.run(_read, open_named(url, timeout))
    console = Terminal()
    if as_json:
        echo_json({"location": location, "experiments": [plain(row) for row in rows]})
    elif console.is_terminal:
        table = Table(title=Text(printable(location)), title_justify="left", title_style="dim")
        for name in COLUMNS:
            is_count = name in ("trials", "completed", "max_trials")
            table.add_column(name, justify="right" if is_count else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_shown(row[name])) for name in COLUMNS))
        console.print(table)
    else:
        echo("\t".join(COLUMNS))
        for row in rows:
            echo("\t".join(_shown(row[name]) for name in COLUMNS))
    if not rows:
        click.get_current_context().exit(1)


async def _read(
    opened: AbstractAsyncContextManager[Storage],
) -> tuple[str, list[dict[str, Any]]]:
    async with opened as storage:
        rows = [
            _row(config)
            | {
                "trials": await storage.count_trials(config),
                "completed": await storage.count_completed_trials(config),
            }
            for config in await storage.fetch_experiments({})
        ]
        return storage.location, rows


def _row(config: dict[str, Any]) -> dict[str, Any]:
    algorithm = config.get("algorithm") or config.get("algorithms")
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return {
        "experiment": experiment_label(config),
        "name": config.get("name"),
        "version": config.get("version"),
        "id": config["_id"],
        "max_trials": config.get("max_trials"),
        "algorithm": _name_of(algorithm),
        "user": metadata.get("user"),
        "created": metadata.get("datetime"),
    }


def _name_of(algorithm: Any) -> str | None:
    """Return the name of an algorithm: ``{"of_type": name}``, ``{name: options}`` or a name."""
    if isinstance(algorithm, Mapping) and algorithm:
        return str(algorithm.get("of_type") or next(iter(algorithm)))
    return algorithm if isinstance(algorithm, str) else None


def _shown(value: Any) -> str:
    return "-" if value is None else printable(plain(value))
