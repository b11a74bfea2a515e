"""The input of the checks: the records of a store."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Final

from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.layout import EXPERIMENTS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.state import MsgpackCodec
from aiostorage.findings import Finding
from aiostorage.operations import EVERYTHING, Document, Find, UnreadableDocument

__all__ = ["PAGE_SIZE", "StoredRecords", "experiments_of"]

PAGE_SIZE: Final = 200
"""Documents per read."""


@dataclass(frozen=True, slots=True)
class StoredRecords:
    """Access to the records of a store, and its experiments.

    Attributes
    ----------
    gateway
        Reads the store.
    lost
        Finds lost trials.
    codec
        Decodes the states of algorithms, without running code from them.
    labels
        The name of each experiment for people and commands, by its id.
    configs
        The experiments that can be read, by id.
    unreadable
        Findings about the others.
    """

    gateway: Gateway
    lost: LostTrials
    codec: MsgpackCodec
    labels: dict[Any, str] = field(default_factory=dict)
    configs: dict[Any, Document] = field(default_factory=dict)
    unreadable: list[Finding] = field(default_factory=list)

    def label(self, uid: Any) -> str:
        """Return the name of an experiment for people and commands."""
        return self.labels.get(uid, str(uid))

    def command(self, verb: str, uid: Any) -> str:
        """Return a command for an experiment."""
        return f"aiostorage {verb} {shlex.quote(self.label(uid))}{{storage}}"


async def experiments_of(gateway: Gateway, lost: LostTrials, codec: MsgpackCodec) -> StoredRecords:
    """Read the experiments of a store."""
    records = StoredRecords(gateway, lost, codec)
    async for documents in gateway.pages(Find(EXPERIMENTS, EVERYTHING), PAGE_SIZE):
        for document in documents:
            uid = dict.get(document, "_id")
            name, version = (dict.get(document, part) for part in ("name", "version"))
            records.labels[uid] = str(uid) if name is None else f"{name}@{version or 1}"
            if not isinstance(document, UnreadableDocument):
                records.configs[uid] = document
                continue
            what = f"the experiment {records.label(uid)} cannot be read: {document.reason}"
            command = records.command("rm", uid)
            found = Finding("unreadable-experiment", "error", what, str(uid), command)
            records.unreadable.append(found)
    return records
