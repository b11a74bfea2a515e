"""How commands name an experiment and a trial, and how they find them.

An experiment is NAME (its newest version), NAME@VERSION, an id, or the beginning of an id. A trial
is EXPERIMENT:TRIAL, with its id or the beginning of it. An experiment with exactly this name takes
precedence: a name may contain ``@`` and ``:``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final

from aiostorage._core.versions import version_of
from aiostorage.errors import AioStorageError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial

__all__ = [
    "AmbiguousName",
    "NothingFound",
    "experiment_label",
    "find_experiment",
    "find_named",
    "find_trial",
    "naming_help",
    "no_experiment",
]

MIN_BEGINNING: Final = 4
"""Characters of the beginning of an id, at least."""

MAX_LISTED: Final = 10
"""Names that a message lists, at most."""

LAST_CHARACTER: Final = "\U0010ffff"
"""The greatest character: no id that begins with a text comes after that text and this."""

naming_help: Final = (
    "EXPERIMENT is a name (the newest version is meant), NAME@VERSION, an id, or the beginning of "
    "an id. A trial is EXPERIMENT:TRIAL, with the trial's id or the beginning of it."
)
"""The description of the argument in the help of a command."""


class NothingFound(AioStorageError):
    """There is no record of that name."""


class AmbiguousName(AioStorageError):
    """The name may mean several things."""


def experiment_label(config: dict[str, Any]) -> str:
    """Return the name of an experiment with its version, for people and for commands."""
    return f"{config.get('name')}@{config.get('version') or 1}"


async def find_experiment(
    storage: AsyncStorageProtocol, text: str, *, changing: bool = False
) -> dict[str, Any]:
    """Return the config of the experiment that a text names.

    Parameters
    ----------
    changing
        Whether the command changes something: then a name with several versions is refused.

    Raises
    ------
    NothingFound
        There is none.
    AmbiguousName
        There are several.
    """
    found = await _called(storage, text, changing=changing)
    if found is None:
        found = await _identified(storage, text)
    if found is None:
        raise await no_experiment(storage, text)
    return found


async def find_trial(
    storage: AsyncStorageProtocol, text: str, *, changing: bool = False
) -> tuple[dict[str, Any], Trial]:
    """Return the trial that EXPERIMENT:TRIAL names, with the config of its experiment.

    Raises
    ------
    NothingFound, AmbiguousName
        As for `find_experiment`, or the text names no trial.
    """
    config, trial = await find_named(storage, text, changing=changing)
    if trial is None:
        raise AmbiguousName(
            f"{text!r} is an experiment; a trial is EXPERIMENT:TRIAL, such as {text}:1a2b"
        )
    return config, trial


async def find_named(
    storage: AsyncStorageProtocol, text: str, *, changing: bool = False
) -> tuple[dict[str, Any], Trial | None]:
    """Return the config of the experiment that a text names, and the trial if it names one.

    Raises
    ------
    NothingFound, AmbiguousName
        As for `find_experiment`.
    """
    name, colon, beginning = text.rpartition(":")
    if not colon or not name:
        return await find_experiment(storage, text, changing=changing), None
    config = await _called(storage, text, changing=changing)
    if config is not None:
        return config, None
    config = await find_experiment(storage, name, changing=changing)
    return config, await _trial_of(storage, config, beginning)


async def _called(
    storage: AsyncStorageProtocol, text: str, *, changing: bool
) -> dict[str, Any] | None:
    """Return the experiment with this name, or with this NAME@VERSION."""
    found = await storage.fetch_experiments({"name": text})
    if len(found) > 1 and changing:
        labels = _listed(sorted(map(experiment_label, found)))
        raise AmbiguousName(f"{text!r} has {len(found)} versions; say which one: {labels}")
    if found:
        return max(found, key=version_of)
    name, at, version = text.rpartition("@")
    if not at or not version.isdecimal():
        return None
    found = await storage.fetch_experiments({"name": name, "version": int(version)})
    return found[0] if found else None


async def _identified(storage: AsyncStorageProtocol, text: str) -> dict[str, Any] | None:
    """Return the experiment with this id, or the only one whose id begins like this."""
    there = await storage.fetch_experiments({}, {"name": 1})
    uids = [config["_id"] for config in there]
    found = [uid for uid in uids if str(uid) == text]
    if not found and len(text) >= MIN_BEGINNING:
        found = [uid for uid in uids if isinstance(uid, str) and uid.startswith(text)]
    if len(found) > 1:
        ids = _listed(sorted(map(str, found)))
        raise AmbiguousName(f"{len(found)} experiments have an id that begins with {text}: {ids}")
    configs = await storage.fetch_experiments({"_id": found[0]}) if found else []
    return configs[0] if configs else None


async def _trial_of(storage: AsyncStorageProtocol, config: dict[str, Any], text: str) -> Trial:
    trial = await storage.get_trial(uid=text, experiment_uid=config["_id"]) if text else None
    if trial is not None:
        return trial
    label = experiment_label(config)
    if len(text) < MIN_BEGINNING:
        raise NothingFound(
            f"{label} has no trial {text!r}; give at least {MIN_BEGINNING} characters of its id"
        )
    where = {"id": {"$gte": text, "$lt": text + LAST_CHARACTER}}
    found = await storage.fetch_trials(config, where=where, limit=MAX_LISTED + 1) or []
    if not found:
        raise NothingFound(f"{label} has no trial {text!r}")
    if len(found) > 1:
        ids = _listed(sorted(trial.id for trial in found))
        raise AmbiguousName(f"several trials of {label} have an id that begins with {text}: {ids}")
    return found[0]


async def no_experiment(storage: AsyncStorageProtocol, text: str) -> NothingFound:
    """Return the error for a name that no experiment has; it lists the existing names."""
    found = await storage.fetch_experiments({}, {"name": 1})
    names = sorted({str(config.get("name")) for config in found})
    if not names:
        return NothingFound(f"there is no experiment {text!r}; there are none at all")
    near = difflib.get_close_matches(text, names, MAX_LISTED)
    return NothingFound(
        f"there is no experiment {text!r}; there is {_listed([*map(repr, near or names)])}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    left = len(names) - MAX_LISTED
    return f"{shown} and {left} more" if left > 0 else shown
