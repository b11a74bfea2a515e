"""Storages with something in them, for tests: experiments, and trials in any state."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiostorage._core.ids import new_token
from aiostorage._core.storage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.errors import ConfigurationError
from aiostorage.experiment import Experiment
from aiostorage.trial import Trial, TrialStatus

__all__ = ["StorageState"]


class StorageState:
    """A storage that is filled: ``async with StorageState(…) as state``, or ``await`` it.

    Parameters
    ----------
    experiments
        Configurations, as `Storage.create_experiment` takes them, or only names.
    trials
        Trials, or mappings of the arguments of `Trial`, among them ``status`` and ``results``. The
        ``experiment`` of a mapping is the name or the id of one of the `experiments`; if there is
        only one, it need not be named. Fields that every trial of that status has need not be given
        either: a reserved one gets a token and a heartbeat, one that has ended gets its times.
    storage
        The storage to fill. Default: a new one in memory, which ``async with`` closes.

    Attributes
    ----------
    storage : Storage
        The storage.
    experiments : list of Experiment
        The experiments as they were stored.
    trials : list of Trial
        The trials as they were stored, in the order of the argument.

    Raises
    ------
    ConfigurationError
        A trial names no experiment of these, or none although there are several.
    """

    def __init__(
        self,
        experiments: Sequence[Mapping[str, Any] | str] = (),
        trials: Sequence[Trial | Mapping[str, Any]] = (),
        *,
        storage: Storage | None = None,
    ) -> None:
        self.storage: Storage = Storage(MemoryDriver()) if storage is None else storage
        self.experiments: list[Experiment] = []
        self.trials: list[Trial] = []
        self._closes = storage is None
        self._configs = [
            {"name": one} if isinstance(one, str) else deepcopy(dict(one)) for one in experiments
        ]
        self._trials = trials

    def __await__(self) -> Generator[Any, None, Self]:
        return self._fill().__await__()

    async def __aenter__(self) -> Self:
        try:
            return await self._fill()
        except BaseException:
            await self._close()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    def experiment(self, name: str, version: int | None = None) -> Experiment:
        """Return an experiment by its name: the latest version, or this one.

        Raises
        ------
        KeyError
            There is none.
        """
        found = [
            one for one in self.experiments if one.name == name and version in (None, one.version)
        ]
        if not found:
            raise KeyError(name)
        return max(found, key=lambda one: one.version or 0)

    async def _fill(self) -> Self:
        for config in self._configs:
            self.experiments.append(await self.storage.create_experiment(config))
        made = [self._made(place, one) for place, one in enumerate(self._trials)]
        self.trials += await self.storage.register_trials(made) if made else []
        return self

    def _made(self, place: int, one: Trial | Mapping[str, Any]) -> Trial:
        if isinstance(one, Trial):
            return one
        fields = dict(one)
        named = fields.pop("experiment", None)
        found = [e for e in self.experiments if named is None or named in (e.name, e.id)]
        if len(found) != 1:
            which = f"the experiment {named!r}" if named is not None else "an experiment"
            raise ConfigurationError(
                f"trials[{place}] needs {which}, and {len(found)} of the {len(self.experiments)} "
                "experiments can be meant: name it by its id or its name"
            )
        now = datetime.now(UTC)
        status = fields.get("status", TrialStatus.NEW)
        implied: dict[str, Any] = {}
        if status != TrialStatus.NEW:
            implied["start_time"] = now
        if status == TrialStatus.RESERVED:
            implied.update(heartbeat=now, worker=new_token())
        if status in (TrialStatus.COMPLETED, TrialStatus.BROKEN):
            implied["end_time"] = now
        return Trial(experiment=found[0].id, **{**implied, **fields})

    async def _close(self) -> None:
        if self._closes:
            await self.storage.aclose()
