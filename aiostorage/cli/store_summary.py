"""The state of the experiments in a storage, read without changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiostorage import Storage
from aiostorage._core.delivery.outbox import Outbox
from aiostorage._core.holders import named_holder
from aiostorage.cli.directions import SELECTION, direction_of
from aiostorage.cli.naming import no_experiment
from aiostorage.summary import Direction, ExperimentSummary

__all__ = ["OutboxSummary", "summarise", "summarise_outbox"]


@dataclass(frozen=True, slots=True)
class OutboxSummary:
    """The changes that have yet to be sent to a tracker.

    Parameters
    ----------
    length
        The number of changes.
    oldest
        When the oldest one was made; None if there are none.
    age
        The seconds since then, by the store's clock.
    deliverer
        The process that sends them; None if there is none.
    """

    length: int
    oldest: datetime | None
    age: float
    deliverer: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return {
            "length": self.length,
            "oldest": None if self.oldest is None else self.oldest.astimezone(UTC).isoformat(),
            "age": self.age,
            "deliverer": self.deliverer,
        }


async def summarise_outbox(storage: Storage) -> OutboxSummary:
    """Summarise the outbox; its rows are counted, not read."""
    outbox = Outbox(storage._gateway)  # noqa: SLF001  as an adapter of this package
    backlog, holder = await outbox.backlog(), await outbox.lease_holder()
    named = None if holder is None else named_holder(holder)
    return OutboxSummary(backlog.length, backlog.oldest, backlog.age, named)


async def summarise(
    storage: Storage,
    name: str | None = None,
    *,
    direction: Direction | None = None,
    window: float = 600.0,
) -> list[ExperimentSummary]:
    """Summarise all experiments, or all versions of the one with that name.

    Raises
    ------
    NothingFound
        There is no experiment of that name. The message lists the existing names.
    """
    wanted = {} if name is None else {"name": name}
    selection = {"name": 1, "version": 1, **SELECTION}
    configs = await storage.fetch_experiments(wanted, selection)
    if name is not None and not configs:
        raise await no_experiment(storage, name)
    found: list[ExperimentSummary] = []
    for config in configs:
        best = direction_of(config, direction)
        summary = await storage.summary(config, direction=best, window=window)
        if summary is not None:  # it has not been deleted meanwhile
            found.append(summary)
    return found
