"""The environment of this process, which names a trial's run while its block runs."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from aiostorage._core.worker import ReservedTrial
from aiostorage.errors import ConfigurationError
from aiostorage.trial import Trial

__all__ = ["ExportedTrial"]


class _Environment:
    """The block that has changed ``os.environ``, and the values from before."""

    def __init__(self) -> None:
        self.owner: object | None = None
        self.pid = 0
        self.before: dict[str, str | None] = {}

    def claim(self, owner: object) -> None:
        # what the parent of a fork has exported is this process's own environment
        if self.owner is not None and self.pid == os.getpid():
            raise ConfigurationError(
                "another block of reserved_trial(export_environment=True) runs in this process, "
                "and there is one environment; pass await storage.tracker_environment(trial) to "
                "the child processes instead"
            )
        self.owner, self.pid, self.before = owner, os.getpid(), {}

    def export(self, variables: Mapping[str, str]) -> None:
        self.before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)

    def restore(self, owner: object) -> None:
        if self.owner is not owner or self.pid != os.getpid():
            return
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.owner, self.before = None, {}


_environment = _Environment()


class ExportedTrial(AbstractAsyncContextManager["Trial | None"]):
    """A reserved trial whose run is in ``os.environ`` while the body runs.

    Parameters
    ----------
    reserved
        The block of the trial.
    environment
        Returns the variables.
    """

    def __init__(
        self,
        reserved: ReservedTrial,
        environment: Callable[[Trial], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._reserved = reserved
        self._variables = environment

    async def __aenter__(self) -> Trial | None:
        _environment.claim(self)
        try:
            trial = await self._reserved.__aenter__()
            if trial is None:
                _environment.restore(self)
                return None
            try:
                _environment.export(await self._variables(trial))
            except BaseException as error:
                await self._reserved.__aexit__(type(error), error, error.__traceback__)
                raise
        except BaseException:
            _environment.restore(self)
            raise
        return trial

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        _environment.restore(self)
        return await self._reserved.__aexit__(exc_type, exc, traceback)

    def suppresses(self, error: BaseException) -> bool:
        """Return the answer of the trial's block; see `ReservedTrial.suppresses`."""
        return self._reserved.suppresses(error)
