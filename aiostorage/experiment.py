"""An experiment as it is stored, and the shape of its config."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Required, Self, TypedDict, cast

from aiostorage._core.kinds import KEY, MAPPING

__all__ = [
    "Experiment",
    "ExperimentConfig",
    "MetaData",
    "PartialExperimentConfig",
    "RefersConfig",
]


class RefersConfig(TypedDict, total=False):
    """Where an experiment stands in the tree of those that were branched from one another."""

    parent_id: str | int | None
    """The experiment it was branched from; None for a root."""
    root_id: str | int | None
    """The first experiment of the tree, which may be itself."""
    adapter: list[dict[str, Any]]
    """How trials of the parent are turned into trials of this one, as configs of adapters."""


class MetaData(TypedDict, total=False):
    """Who started an experiment, when, and with which code."""

    user: Required[str]
    """Login name of the owner."""
    orion_version: Required[str]
    """The version of the library that created it."""
    datetime: Required[dt.datetime]
    """When it was created, in UTC."""
    user_script: str
    """Absolute path of the script that evaluates a trial."""
    user_args: list[str]
    """Arguments of that script; templates stand for the parameters."""
    user_vcs: str | None
    """The version control system of the script's repository."""
    user_version: str | None
    """The version that this repository was at."""
    user_commit_hash: str | None
    """The commit that this repository was at."""


class ExperimentConfig(TypedDict):
    """A whole config, as Oríon stores it."""

    name: str
    """Together with the version it names the experiment."""
    _id: str | int | None
    """The key in the store; None before it is stored."""
    refers: RefersConfig
    version: int
    """Counts from 1 up, with each branch under the same name."""
    metadata: MetaData
    max_trials: int | None
    """The experiment is done after so many completed trials; None for never."""
    max_broken: int | None
    """The experiment is broken after so many broken trials; None for never."""
    space: dict[str, Any]
    """The priors of the parameters, by name."""
    algorithm: dict[str, Any] | None
    """The algorithm's name and its arguments."""
    working_dir: str | None
    """The directory where those of the trials stand."""
    knowledge_base: dict[str, Any] | None
    """The config of the knowledge base, if there is one."""


class PartialExperimentConfig(TypedDict, total=False):
    """Some fields of an `ExperimentConfig`, such as those of one update."""

    name: str
    _id: str | int | None
    refers: RefersConfig
    version: int
    metadata: MetaData
    max_trials: int | None
    max_broken: int | None
    space: dict[str, Any]
    algorithm: dict[str, Any] | None
    working_dir: str | None
    knowledge_base: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Experiment:
    """A stored experiment.

    Parameters
    ----------
    id : str or int
        The key in the store; also readable as ``_id``.
    name : str
        Together with the version it names the experiment.
    version : int
        Counts from 1 up.
    config : Mapping
        The whole stored config, as a read-only view of a private deep copy. Nested values are plain
        dicts and lists: copy them before changing them.
    """

    id: str | int
    name: str
    version: int = 1
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        KEY.check("Experiment", "id", self.id)
        MAPPING.check("Experiment", "config", self.config)
        # dict() first: another experiment's view can be neither copied deeply nor pickled.
        private = MappingProxyType(copy.deepcopy(dict(self.config)))
        object.__setattr__(self, "config", private)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.id, self.name, self.version, dict(self.config))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an experiment from its stored config.

        Parameters
        ----------
        config : Mapping
            Needs ``_id`` and ``name``; without a ``version`` that is 1.

        Raises
        ------
        ValueError
            ``_id`` or ``name`` is missing or None.
        """
        MAPPING.check("Experiment.from_config", "config", config)
        missing = [key for key in ("_id", "name") if config.get(key) is None]
        if missing:
            raise ValueError(f"the config of a stored experiment needs {' and '.join(missing)}")
        version = config.get("version")
        return cls(config["_id"], config["name"], 1 if version is None else version, config)

    @property
    def _id(self) -> str | int:
        """The key in the store, by its stored name."""
        return self.id

    @property
    def algorithm(self) -> dict[str, Any]:
        """The algorithm's config (older stores call it ``algorithms``); empty if there is none."""
        found = self.config.get("algorithm") or self.config.get("algorithms") or {}
        return cast("dict[str, Any]", found)
