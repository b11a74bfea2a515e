"""Shell completion for the names of experiments, from the storage that the command uses."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
import click
from click.shell_completion import CompletionItem

from aiostorage import Storage
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import experiment_label

__all__ = ["EXPERIMENT", "EXPERIMENT_OR_TRIAL"]

COMPLETION_TIMEOUT: Final = 1.0
"""Seconds that a storage may take: the user has pressed the Tab key and waits."""


class Named(click.ParamType[str]):
    """The name of an experiment, or of one of its trials."""

    def __init__(self, name: str) -> None:
        self.name = name

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  click passes it
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the experiments whose NAME@VERSION has this prefix; none if there is an error."""
        try:
            labels = anyio.run(_labels, open_named(ctx.params.get("url"), COMPLETION_TIMEOUT))
        except Exception:  # noqa: BLE001  a shell that completes has no place for an error
            return []
        return [CompletionItem(label) for label in labels if label.startswith(incomplete)]


async def _labels(opened: AbstractAsyncContextManager[Storage]) -> list[str]:
    async with opened as storage:
        found = await storage.fetch_experiments({}, {"name": 1, "version": 1})
    return sorted(map(experiment_label, found))


EXPERIMENT: Final = Named("EXPERIMENT")
EXPERIMENT_OR_TRIAL: Final = Named("EXPERIMENT[:TRIAL]")
