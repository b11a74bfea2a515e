"""The steps from each version of the layout to the next: what changes in the documents.

New collections, fields and indexes need no step: an engine compares what a store has with the
layout. A step is needed where documents that are there have to change. Its plan is a pure function
of the documents, so that it is tested without an engine, and is the same on every engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from aiostorage._core.layout import EXPERIMENTS
from aiostorage._core.versions import FIRST_VERSION
from aiostorage.operations import And, Compare, Document, Find, Update
from aiostorage.upgrades import StepPlan, UpgradeStep

__all__ = ["STEPS", "number_experiments"]


def number_experiments(configs: Sequence[Document]) -> StepPlan:
    """Give the experiments without a version one: the first, or else the next one of their name.

    Parameters
    ----------
    configs
        The ``_id``, the name and the version of all experiments, by insertion.
    """
    taken: defaultdict[Any, set[int]] = defaultdict(set)
    for config in configs:
        if type(version := config.get("version")) is int:
            taken[config.get("name")].add(version)
    operations: list[Update] = []
    notes: list[str] = []
    first = 0
    for config in configs:
        if config.get("version") is not None:
            continue
        name, uid = config.get("name"), config["_id"]
        version = FIRST_VERSION
        if version in taken[name]:
            version = max(taken[name]) + 1
            notes.append(
                f"the experiment {name!r} without a version ({uid}) gets version {version}: "
                f"another {name!r} has version {FIRST_VERSION}"
            )
        else:
            first += 1
        taken[name].add(version)
        still = And((Compare("_id", "eq", uid), Compare("version", "eq", None)))
        operations.append(Update(EXPERIMENTS, still, {"version": version}))
    if first:
        what = "experiment" if first == 1 else "experiments"
        gets = "gets" if first == 1 else "get"
        notes.insert(0, f"{first} {what} without a version {gets} version {FIRST_VERSION}")
    return StepPlan(tuple(operations), tuple(notes))


STEPS: Final = (
    UpgradeStep(
        2, Find(EXPERIMENTS, selection={"name": True, "version": True}), number_experiments
    ),
)
"""All steps. `aiostorage._core.layout.LAYOUT` has the version that the last one leads to."""
