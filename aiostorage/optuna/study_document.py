"""A study of Optuna as the config of an experiment, and back. Pure functions."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import optuna
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` wants; it has no public name

from aiostorage._core.normalise import normalise
from aiostorage.optuna.field_names import attributes_of, fields_of
from aiostorage.optuna.study_ids import study_id_of

__all__ = [
    "FIELD",
    "SYSTEM_ATTRS",
    "USER_ATTRS",
    "directions_of",
    "frozen_study",
    "is_study",
    "stored_attribute",
    "study_document",
]

FIELD: Final = "optuna"
"""Where an experiment, and a trial, has what only Optuna knows."""

USER_ATTRS: Final = f"{FIELD}.user_attrs"
SYSTEM_ATTRS: Final = f"{FIELD}.system_attrs"

_DIRECTIONS: Final = {
    "minimize": StudyDirection.MINIMIZE,
    "maximize": StudyDirection.MAXIMIZE,
    "not set": StudyDirection.NOT_SET,
}
_NAMES: Final = {direction: name for name, direction in _DIRECTIONS.items()}


def study_document(
    uid: str | int,
    name: str,
    directions: Sequence[StudyDirection],
    user_attrs: Mapping[str, Any] | None = None,
    system_attrs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the config of the experiment that a study becomes.

    Parameters
    ----------
    uid
        The ``_id`` of the experiment; the study id, for a new study.
    name, directions, user_attrs, system_attrs
        As Optuna has them.

    Raises
    ------
    EncodingError, TypeError
        An attribute cannot be stored.
    """
    attributes = {"user_attrs": user_attrs or {}, "system_attrs": system_attrs or {}}
    return {
        "_id": uid,
        "name": name,
        "version": 1,
        "refers": {"root_id": uid, "parent_id": None, "adapter": []},
        "metadata": {
            "user": getpass.getuser(),
            "datetime": datetime.now(UTC),
            "optuna_version": optuna.__version__,
        },
        "max_trials": None,
        "max_broken": None,
        "space": {},
        "algorithm": {},
        "working_dir": None,
        FIELD: {
            "directions": [_NAMES[direction] for direction in directions],
            **{
                kind: fields_of({n: stored_attribute(n, v) for n, v in given.items()})
                for kind, given in attributes.items()
            },
        },
    }


def is_study(config: Mapping[str, Any]) -> bool:
    """Return whether an experiment is a study of Optuna."""
    ours = config.get(FIELD)
    return isinstance(ours, Mapping) and isinstance(ours.get("directions"), list)


def directions_of(config: Mapping[str, Any]) -> list[StudyDirection]:
    """Return the directions of a study."""
    return [_DIRECTIONS[name] for name in config[FIELD]["directions"]]


def frozen_study(config: Mapping[str, Any]) -> FrozenStudy:
    """Return the study that an experiment is."""
    ours = config[FIELD]
    return FrozenStudy(
        study_name=config["name"],
        direction=None,
        directions=directions_of(config),
        user_attrs=attributes_of(ours.get("user_attrs")),
        system_attrs=attributes_of(ours.get("system_attrs")),
        study_id=study_id_of(config["_id"]),
    )


def stored_attribute(name: str, value: Any) -> Any:
    """Return the value of an attribute as it is stored: what JSON makes of it.

    Tuples become lists and keys texts, as in Optuna's own storages.

    Raises
    ------
    TypeError
        JSON has no such value.
    EncodingError
        No engine can store it, such as an int of more than 64 bits.
    """
    if value is None or value.__class__ in (bool, float):
        return value
    return normalise(json.loads(json.dumps(value)), name)
