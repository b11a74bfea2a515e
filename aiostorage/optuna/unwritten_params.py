"""The params of a trial that runs here which are not in the store yet.

Optuna sets one param after the other, and each write costs a commit. So those of a trial that was
just begun are written together, with the next write of the trial or a moment later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from optuna.trial import FrozenTrial

from aiostorage.operations import Compare, Condition
from aiostorage.optuna.stored_params import StoredParam, stored_params
from aiostorage.optuna.study_document import FIELD
from aiostorage.optuna.trial_document import changed

__all__ = [
    "PATIENCE",
    "UNWRITTEN",
    "UNWRITTEN_FIELD",
    "UnwrittenParams",
    "params_changes",
    "params_conditions",
]

PATIENCE: Final = 0.1
"""Seconds that what was set of a trial waits for its next write, at most."""

UNWRITTEN_FIELD: Final = "unwritten"
UNWRITTEN: Final = f"{FIELD}.{UNWRITTEN_FIELD}"
"""Where a trial has whether its worker may have set params that are not in the store yet."""


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
        self, token: str, stored: FrozenTrial, params: Iterable[StoredParam] | None = None
    ) -> None:
        self.token = token
        self.stored = stored
        self.since = time.monotonic()
        self.lock = threading.Lock()
        self._params = {param.name: param for param in params or ()}
        self._open = params is None

    @property
    def params(self) -> list[StoredParam]:
        """Those that are not in the store, in the order in which they were set."""
        return list(self._params.values())

    @property
    def trial(self) -> FrozenTrial:
        """The trial with all its params."""
        params = self.params
        return changed(
            self.stored,
            params={param.name: param.value for param in params},
            distributions={param.name: param.distribution for param in params},
        )

    def add(self, param: StoredParam) -> bool:
        """Take a param, under the lock; return False if it has to be written at once."""
        if self._open:
            self._params[param.name] = param
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

    def rebase(self, stored: FrozenTrial) -> None:
        """Take the trial as it is in the store now, under the lock.

        A twin of this process, forked or unpickled, may have written some of them.
        """
        self.stored = stored
        for name in [*self._params.keys() & stored.params.keys()]:
            param = self._params[name]
            same = param.value == stored.params[name]
            if same and param.distribution == stored.distributions[name]:
                del self._params[name]

    def written(self, params: Sequence[StoredParam]) -> None:
        """Note that params are in the store."""
        with self.lock:
            for param in params:
                if self._params.get(param.name) is param:
                    del self._params[param.name]


def params_changes(
    stored: FrozenTrial, params: Sequence[StoredParam]
) -> tuple[dict[str, Any], tuple[Condition, ...]]:
    """Return the changes that give a trial further params, and the conditions for them.

    The list of params is written as a whole, so it has to be as it was read.
    """
    if not params:
        return {}, ()
    items = {param.name: param.item for param in (*stored_params(stored), *params)}
    changes: dict[str, Any] = {"params": list(items.values())}
    for param in params:
        changes[f"{FIELD}.distributions.{param.field}"] = param.kept
    return changes, params_conditions(stored)


def params_conditions(trial: FrozenTrial) -> tuple[Condition, ...]:
    """Return the conditions that no params were added to a trial; none is ever taken away."""
    names = list(trial.params)
    none_more = Compare(f"params.{len(names)}", "exists", False)
    if not names:
        return (none_more,)
    return none_more, Compare(f"params.{len(names) - 1}.name", "eq", names[-1])
