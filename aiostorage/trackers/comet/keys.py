"""Keys at Comet, computed from what the store has: the same trial always has the same."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from aiostorage.experiment import Experiment

__all__ = ["experiment_key", "run_prefix", "trial_key"]

_KEY_LENGTH: Final = 18
"""Characters of an experiment's key: with the 32 of a trial's id these are 50, Comet's limit."""

_KEY: Final = re.compile(f"[0-9a-f]{{{_KEY_LENGTH}}}")


def experiment_key(experiment: Experiment) -> str:
    """Return the prefix of the keys of all runs of an experiment.

    It goes by the id, the name, the version and the time of creation, for ids of two stores may
    be equal.
    """
    created = experiment.config.get("metadata", {}).get("datetime")
    return _digest(f"{experiment.id}\n{experiment.name}\n{experiment.version}\n{created}")


def trial_key(experiment: str, trial: str) -> str:
    """Return the key of the run of a trial, by the key of its experiment and its own id."""
    return run_prefix(experiment) + trial


def run_prefix(experiment: str) -> str:
    """Return the prefix of the keys of the runs of an experiment from its key.

    A store that was shown in another tracker before has a key of that one.
    """
    return experiment if _KEY.fullmatch(experiment) else _digest(experiment)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_KEY_LENGTH]
