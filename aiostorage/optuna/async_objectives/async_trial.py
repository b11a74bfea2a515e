"""The trial that an objective gets: as coroutines, or as Optuna's own in a thread."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalChoiceType

from aiostorage.optuna.async_objectives.deferred_storage import RunningTrial
from aiostorage.optuna.async_objectives.study_thread import StudyThread

__all__ = ["AsyncTrial", "StudyTrial", "ThreadTrial"]

C = TypeVar("C", bound=CategoricalChoiceType)
T = TypeVar("T")

Calls: TypeAlias = Callable[[], AbstractContextManager[None]]


class StudyTrial:
    """Optuna's own trial, which belongs to the thread of the study.

    The first call makes it, in that thread: so it costs no trip of its own.

    Parameters
    ----------
    calls
        Within it, Optuna's calls are of this evaluation; it raises if that has ended.
    make
        Makes it.
    """

    def __init__(self, calls: Calls, make: Callable[[], optuna.Trial]) -> None:
        self._calls = calls
        self._make = make
        self._made: optuna.Trial | None = None
        self._failure: Exception | None = None

    @property
    def is_made(self) -> bool:
        """Whether it is there."""
        return self._made is not None

    def get(self) -> optuna.Trial:
        """Return it, or raise again why it could not be made; in the thread."""
        if self._failure is not None:
            raise self._failure
        if self._made is None:
            try:
                with self._calls():
                    self._made = self._make()
            except Exception as error:
                self._failure = error
                raise
        return self._made

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of it, if it runs here still; in the thread."""
        with self.bound() as own:
            return getattr(own, method)(*args, **kwargs)

    @contextmanager
    def bound(self) -> Iterator[optuna.Trial]:
        """Give it for calls that are of this evaluation; in the thread."""
        own = self.get()
        with self._calls():
            yield own


class AsyncTrial:
    """A trial for an objective that is a coroutine: the methods of Optuna's `Trial`, awaited.

    Values that were suggested or set before are properties, which need no await.

    Parameters
    ----------
    study
        The study.
    running
        What is known of the trial.
    trial
        Optuna's own one.
    call
        Calls a function where Optuna's code runs, and is awaited.
    sync
        Awaited before a pruner is asked, so that it knows of the other trials.
    """

    def __init__(
        self,
        study: optuna.Study,
        running: RunningTrial,
        trial: StudyTrial,
        call: Callable[..., Awaitable[Any]],
        sync: Callable[[], Awaitable[object]],
    ) -> None:
        self.study = study
        self._running = running
        self._trial = trial
        self._call = call
        self._sync = sync

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.study.study_name!r}>"

    async def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a value for a floating point parameter."""
        value: float = await self._ask("suggest_float", name, low, high, step=step, log=log)
        return value

    async def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Suggest a value for an integer parameter."""
        value: int = await self._ask("suggest_int", name, low, high, step=step, log=log)
        return value

    async def suggest_categorical(self, name: str, choices: Sequence[C]) -> C:
        """Suggest one of several choices."""
        chosen: C = await self._ask("suggest_categorical", name, choices)
        return chosen

    async def report(self, value: float, step: int) -> None:
        """Report an intermediate value, which pruners use."""
        await self._ask("report", value, step)

    async def should_prune(self) -> bool:
        """Return whether the trial is not worth going on with; then raise `optuna.TrialPruned`."""
        self._running.check()
        await self._sync()
        return bool(await self._ask("should_prune"))

    async def set_user_attr(self, key: str, value: Any) -> None:
        """Set a user's attribute of the trial."""
        await self._ask("set_user_attr", key, value)

    async def set_constraint(self, key: str, value: float) -> None:
        """Set a constraint; the trial is feasible when all of them are zero or less."""
        await self._ask("set_constraint", key, value)

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._running.check()
        return await self._call(self._trial.call, method, *args, **kwargs)

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self._running.number

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that were suggested."""
        return copy.deepcopy(self._running.trial.params)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of the parameters that were suggested."""
        return copy.deepcopy(self._running.trial.distributions)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The user's attributes of the trial."""
        return copy.deepcopy(self._running.trial.user_attrs)

    @property
    def datetime_start(self) -> datetime | None:
        """When the trial began."""
        return self._running.trial.datetime_start


class ThreadTrial(optuna.Trial):
    """Optuna's trial for an objective that is a plain function, in a thread of its own.

    What goes to a sampler, a pruner or the storage runs in the thread of the study.

    Parameters
    ----------
    study, trial_id
        As for Optuna's `Trial`, which is made in the thread of the study.
    calls
        As for `StudyTrial`.
    thread
        That thread.
    """

    def __init__(
        self, study: optuna.Study, trial_id: int, calls: Calls, thread: StudyThread
    ) -> None:
        self._calls = calls
        self._thread = thread
        super().__init__(study, trial_id)

    def _ask(self, method: Callable[..., T], *args: Any) -> T:
        """Call a method of Optuna's trial in the thread of the study."""

        def ask() -> T:
            with self._calls():
                return method(*args)

        return self._thread.call_from_thread(ask)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        return self._ask(super()._suggest, name, distribution)

    def report(self, value: float, step: int) -> None:
        """Report an intermediate value."""
        self._ask(super().report, value, step)

    def should_prune(self) -> bool:
        """Return whether the trial is not worth going on with."""
        return self._ask(super().should_prune)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set a user's attribute of the trial."""
        self._ask(super().set_user_attr, key, value)

    def set_constraint(self, key: str, value: float) -> None:
        """Set a constraint of the trial."""
        self._ask(super().set_constraint, key, value)
