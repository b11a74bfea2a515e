"""The params of a trial that runs here which are not in the store yet.

Optuna sets one param after the other, and each write costs a commit. So those of a trial that was
just begun are written together, with the next write of the trial or a moment later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from optuna.trial import FrozenTrial

from aiostorage.operations import Compare, Condition
from aiostorage.optuna.stored_params import StoredParam, stored_params
from aiostorage.optuna.study_document import FIELD, SYSTEM_ATTRS
from aiostorage.optuna.trial_document import attribute_update, changed, with_params

__all__ = [
    "MAX_WRITE_DELAY",
    "UNWRITTEN",
    "UNWRITTEN_FIELD",
    "RelativeParams",
    "UnwrittenParam",
    "UnwrittenParams",
    "params_changes",
    "params_conditions",
]

MAX_WRITE_DELAY: Final = 0.1
"""Seconds that what was set of a trial waits for its next write, at most."""

UNWRITTEN_FIELD: Final = "unwritten"
UNWRITTEN: Final = f"{FIELD}.{UNWRITTEN_FIELD}"
"""Where a trial has whether its worker may have set params that are not in the store yet."""


class RelativeParams:
    """The params that a sampler has chosen together, as text: an attribute of the trial.

    Optuna's TPE and Gaussian process set it just before they set these params one by one, so that
    the samplers of other processes choose others.

    Parameters
    ----------
    name, value
        The attribute.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        update = attribute_update(SYSTEM_ATTRS, name, value)
        self.changes: dict[str, Any] = update.changes
        self.fields: dict[str, Any] = update.fields["system_attrs"]

    @staticmethod
    def are_named(name: str) -> bool:
        """Return whether an attribute of this name is one, or a part of one."""
        return ":relative_params:" in name


UnwrittenParam: TypeAlias = StoredParam | RelativeParams


class UnwrittenParams:
    """The params that wait to be written, and the trial with them.

    Any thread may use it.

    Parameters
    ----------
    token
        The reservation under which they are written.
    stored
        The trial as it is in the store.
    params
        What was set of it before, in another process: it is written, but no more is added.

    Attributes
    ----------
    since : float
        When the first one may have been set.
    lock : threading.Lock
        Held while the known trial is replaced.
    """

    def __init__(
        self, token: str, stored: FrozenTrial, params: Iterable[UnwrittenParam] | None = None
    ) -> None:
        self.token = token
        self.stored: FrozenTrial = stored
        self.since: float = time.monotonic()
        self.lock: threading.Lock = threading.Lock()
        self._params = {_key(param): param for param in params or ()}
        self._open = params is None

    @property
    def params(self) -> list[UnwrittenParam]:
        """Those that are not in the store, in the order in which they were set."""
        return list(self._params.values())

    @property
    def trial(self) -> FrozenTrial:
        """The trial with all its params."""
        params: list[StoredParam] = []
        attributes: dict[str, Any] = {}
        for param in self.params:
            if isinstance(param, RelativeParams):
                attributes |= param.fields
            else:
                params.append(param)
        trial = with_params(self.stored, params)
        return changed(trial, system_attrs=attributes) if attributes else trial

    def add(self, param: UnwrittenParam) -> bool:
        """Take a param, under the lock; return False if it has to be written at once."""
        if self._open:
            self._params[_key(param)] = param
        return self._open

    def close(self) -> None:
        """Take no more of them."""
        with self.lock:
            self._open = False

    def clear(self) -> None:
        """Forget all, and take no more."""
        with self.lock:
            self._open = False
            self._params.clear()

    def rebase(self, stored: FrozenTrial, written: Sequence[UnwrittenParam] = ()) -> None:
        """Take the trial as it is in the store now, under the lock.

        Those that were `written` wait no more. A twin of this process, forked or unpickled, may
        have written others.
        """
        self.stored = stored
        for param in self.params:
            if param in written or _is_stored(param, stored):
                del self._params[_key(param)]


def _key(param: UnwrittenParam) -> tuple[type, str]:
    return type(param), param.name


def _is_stored(param: UnwrittenParam, trial: FrozenTrial) -> bool:
    """Return whether a trial has a param."""
    if isinstance(param, RelativeParams):
        return bool(param.fields.items() <= trial.system_attrs.items())
    name = param.name
    if name not in trial.params:
        return False
    found = trial.params[name], trial.distributions[name]
    return found == (param.value, param.distribution)


def params_changes(
    stored: FrozenTrial, params: Sequence[UnwrittenParam]
) -> tuple[dict[str, Any], tuple[Condition, ...]]:
    """Return the changes that give a trial further params, and the conditions for them.

    The list of params is written as a whole, so it has to be as it was read.
    """
    changes: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {}
    for param in params:
        if isinstance(param, RelativeParams):
            changes |= param.changes
        else:
            items[param.name] = param.item
            changes[f"{FIELD}.distributions.{param.field}"] = param.kept
    if not items:
        return changes, ()
    before = {param.name: param.item for param in stored_params(stored)}
    changes["params"] = list((before | items).values())
    return changes, params_conditions(stored)


def params_conditions(trial: FrozenTrial) -> tuple[Condition, ...]:
    """Return the conditions that no params were added to a trial; none is ever taken away."""
    names = list(trial.params)
    none_more = Compare(f"params.{len(names)}", "exists", False)
    if not names:
        return (none_more,)
    return none_more, Compare(f"params.{len(names) - 1}.name", "eq", names[-1])
