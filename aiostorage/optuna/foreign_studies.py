"""Experiments that are not studies of Optuna, as studies that can only be read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` wants; it has no public name
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage._core.versions import FIRST_VERSION, version_of
from aiostorage.operations import Document, UnreadableDocument
from aiostorage.optuna.space_priors import (
    distribution_of,
    expanded,
    flat_space,
    inferred,
)
from aiostorage.optuna.study_document import is_study
from aiostorage.optuna.study_ids import study_id_of, trial_id_of
from aiostorage.optuna.trial_document import frozen_trial

__all__ = ["ForeignStudies", "foreign_study", "foreign_trials"]

PAGE: Final = 500
"""Trials that are read at a time."""

_BEFORE: Final = datetime.min.replace(tzinfo=UTC)


class ForeignStudies:
    """The experiments of a store that are not studies of Optuna; nothing here writes.

    Parameters
    ----------
    storage
        The store.
    direction
        In which direction their objectives are better. The store does not say it.
    """

    def __init__(self, storage: Storage, direction: StudyDirection) -> None:
        self._collections = CollectionAccess(storage)
        self._direction = direction

    async def all(self) -> list[FrozenStudy]:
        """Return all of them as studies."""
        configs = await self._configs()
        return [foreign_study(config, self._direction) for config in configs]

    async def study(self, study_id: int) -> FrozenStudy:
        """Return one as a study.

        Raises
        ------
        KeyError
            There is none of that id.
        """
        return foreign_study(await self._config(study_id), self._direction)

    async def trials(self, study_id: int) -> list[FrozenTrial]:
        """Return the trials of one.

        Raises
        ------
        KeyError
            There is none of that id.
        """
        config = await self._config(study_id)
        documents: list[Document] = []
        async for page in self._collections.pages(TRIALS, {"experiment": config["_id"]}, PAGE):
            documents += (one for one in page if not isinstance(one, UnreadableDocument))
        return foreign_trials(config, documents)

    async def _config(self, study_id: int) -> Document:
        for config in await self._configs():
            if study_id_of(config["_id"]) == study_id:
                return config
        raise KeyError(f"there is no experiment that has the study id {study_id}")

    async def _configs(self) -> list[Document]:
        found = await self._collections.find(EXPERIMENTS, {})
        return [
            config
            for config in found
            if not isinstance(config, UnreadableDocument) and not is_study(config)
        ]


def foreign_study(config: Mapping[str, Any], direction: StudyDirection) -> FrozenStudy:
    """Return the study that shows an experiment."""
    version = version_of(config)
    name = str(config.get("name"))
    shown = {
        "experiment": f"{name}@{version}",
        "algorithm": config.get("algorithm"),
        "space": flat_space(config.get("space")),
        "max_trials": config.get("max_trials"),
    }
    return FrozenStudy(
        study_name=name if version == FIRST_VERSION else f"{name}@{version}",
        direction=direction,
        user_attrs={key: _attribute(value) for key, value in shown.items() if value},
        system_attrs={},
        study_id=study_id_of(config["_id"]),
    )


def foreign_trials(
    config: Mapping[str, Any], documents: Iterable[Mapping[str, Any]]
) -> list[FrozenTrial]:
    """Return the trials of an experiment as those of a study.

    Their numbers count by the time of their submission. Each parameter has one distribution in all
    trials: that of its prior, or one that is inferred from the values if there is none.
    """
    ordered = sorted(documents, key=_submitted)
    params = [_params(document) for document in ordered]
    distributions = _distributions(flat_space(config.get("space")), params)
    uid = config["_id"]
    return [
        _trial(uid, number, document, own, distributions)
        for number, (document, own) in enumerate(zip(ordered, params, strict=True))
    ]


def _submitted(document: Mapping[str, Any]) -> tuple[datetime, str]:
    submitted = document.get("submit_time")
    return submitted if isinstance(submitted, datetime) else _BEFORE, str(document.get("_id"))


def _params(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a trial by the names that they have in the dashboard."""
    items = document.get("params")
    return {
        name: value
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, Mapping)
        for name, value in expanded(str(item.get("name")).lstrip("/"), item.get("value"))
    }


def _distributions(
    priors: Mapping[str, str], params: Iterable[Mapping[str, Any]]
) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter that a trial has."""
    values: dict[str, list[Any]] = {}
    for own in params:
        for name, value in own.items():
            values.setdefault(name, []).append(value)
    return {name: _distribution(priors, name, found) for name, found in values.items()}


def _distribution(priors: Mapping[str, str], name: str, values: list[Any]) -> BaseDistribution:
    prior = priors.get(name) or priors.get(name.partition("[")[0])
    declared = None if prior is None else distribution_of(prior, values)
    return inferred(values) if declared is None else declared


def _trial(
    uid: Any,
    number: int,
    document: Mapping[str, Any],
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    bare = {**document, "params": [], "experiment": uid, "results": _results(document)}
    trial = frozen_trial(bare, number)
    trial.params = dict(params)
    trial.distributions = {name: distributions[name] for name in params}
    trial._trial_id = trial_id_of(study_id_of(uid), number)  # noqa: SLF001  it has no public name
    others = {
        str(one.get("name")): _attribute(one.get("value"))
        for one in _mappings(document.get("results"))
        if one.get("type") != "objective" or trial.state is not TrialState.COMPLETE
    }
    for name, value in others.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("status", str(document.get("status")))
    trial.set_user_attr("trial", str(document.get("id", document.get("_id"))))
    return trial


def _results(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the first objective alone, if it is a number: the study has one direction."""
    for result in _mappings(document.get("results")):
        if result.get("type") == "objective":
            value = result.get("value")
            if isinstance(value, int | float) and not math.isnan(value):
                return [result]
            return []
    return []


def _mappings(items: Any) -> list[Mapping[str, Any]]:
    return [one for one in items if isinstance(one, Mapping)] if isinstance(items, list) else []


def _attribute(value: Any) -> Any:
    """Return a value as an attribute, which JSON can express."""
    return json.loads(json.dumps(value, default=str))
