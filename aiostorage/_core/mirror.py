"""The tracker of a storage: sends changes, waits for them, and reads metrics that users log."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Final

import anyio

from aiostorage._core.delivery import Deliverer, DeliverySettings
from aiostorage._core.event_log import EventLog
from aiostorage._core.gateway import Gateway
from aiostorage._core.layout import MIRRORED, OUTBOX
from aiostorage._core.medium_results import results_from
from aiostorage._core.noting import NotingDriver
from aiostorage._core.outbox import MirrorRecord, Outbox
from aiostorage.errors import TrackerError, TrackerTimeout
from aiostorage.operations import Compare, Count
from aiostorage.trackers.protocol import Tracker
from aiostorage.trial import Trial
from aiostorage.values import Result

__all__ = ["Mirror"]

events: Final = EventLog("tracker")

MIN_POLL_INTERVAL: Final = 0.02
"""Seconds between two reads of the store while waiting, at least."""

MIN_CALL_TIMEOUT: Final = 0.05
"""Minimum time limit of a call to the tracker in seconds, however late it is made."""

MAX_POLL_INTERVAL: Final = 0.5
"""Seconds after which to check again although nothing seems to have changed."""


class Mirror:
    """The tracker of a storage.

    Parameters
    ----------
    gateway
        The store; its driver is a `NotingDriver`.
    tracker
        The tracker.
    objective
        The metric that is the objective; None for the one of that name, or the only one.
    settings
        How to deliver.
    """

    def __init__(
        self,
        gateway: Gateway,
        tracker: Tracker,
        objective: str | None = None,
        settings: DeliverySettings | None = None,
    ) -> None:
        self.tracker: Tracker = tracker
        self.deliverer: Deliverer = Deliverer(gateway, tracker, settings)
        self._gateway = gateway
        self._objective = objective
        self.attach()

    def attach(self) -> None:
        """Let changes wake the deliverer; has to be called again in a copy."""
        deliverer = weakref.ref(self.deliverer)  # what runs for it must not keep it

        def changed() -> None:
            if (there := deliverer()) is None:
                return
            try:
                there.wake()
            except Exception:  # noqa: BLE001  what was written is written, whatever the tracker does
                events.exception(
                    "sending_cannot_begin",
                    "sending to the tracker %(tracker)s cannot begin",
                    tracker=there.tracker.name,
                )

        driver = self._gateway.driver
        assert isinstance(driver, NotingDriver)  # noqa: S101  made so by the storage
        driver.changed = changed

    async def flush(self, timeout: float | None) -> None:
        """Wait until all that is in the outbox at the call has been sent."""
        await self._gateway.open()
        begin = anyio.current_time()
        before = Compare("time", "lte", await self._gateway.now())
        version: object | None = None
        while left := await self._gateway.execute(Count(OUTBOX, before)):
            self.deliverer.hurry()
            rest = MAX_POLL_INTERVAL
            if timeout is not None:
                rest = min(rest, begin + timeout - anyio.current_time())
                if rest <= 0:
                    raise TrackerTimeout(
                        f"{left} changes have not been sent to the tracker {self._name()} within "
                        f"{timeout:g} s{await self._reason()}",
                        left=left,
                        last_error=self.deliverer.last_error,
                    )
            await anyio.sleep(min(MIN_POLL_INTERVAL, rest))
            version = await self._gateway.wait_for_change(OUTBOX, version, rest)

    async def left(self) -> int:
        """Return the number of changes that have yet to be sent to the tracker."""
        return await self._gateway.execute(Count(OUTBOX))

    async def environment(self, trial: Trial, timeout: float | None) -> dict[str, str]:
        """Return the variables with which the tracker's client joins the run of a trial."""
        begin = anyio.current_time()
        record = await self._known(trial, timeout)
        experiment = await Outbox(self._gateway).record(record.experiment, None)
        rest = math.inf if timeout is None else begin + timeout - anyio.current_time()
        with anyio.move_on_after(max(rest, MIN_CALL_TIMEOUT)):
            call = self.deliverer.call
            variables = await call(self.tracker.environment, experiment.key, record.key)
            return self._checked_environment(variables)
        raise TrackerTimeout(
            f"the tracker {self._name()} has not told the environment of trial {trial.id} within "
            f"{timeout:g} s{await self._reason()}",
            last_error=self.deliverer.last_error,
        )

    async def results(self, trial: Trial) -> list[Result]:
        """Return the results in the run of a trial; none before anything was logged."""
        record = await Outbox(self._gateway).record(trial.experiment, trial.id)
        if record.key is None:
            return []
        metrics: object = await self.deliverer.call(self.tracker.fetch_metrics, record.key)
        if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
            raise TrackerError(
                f"the tracker {self._name()} returned {metrics!a:.60} instead of metrics"
            )
        if not metrics:
            return []
        source = f"the run of trial {trial.id} in the tracker {self._name()}"
        return results_from(metrics, self._objective, source)

    async def _known(self, trial: Trial, timeout: float | None) -> MirrorRecord:
        """Return the record of a trial whose run is known; wait for it."""
        outbox = Outbox(self._gateway)
        end = None if timeout is None else anyio.current_time() + timeout
        asked = False
        version: object | None = None
        while (record := await outbox.record(trial.experiment, trial.id)).key is None:
            if not await outbox.rows(1, trial.experiment, trial.id):
                record = await outbox.record(trial.experiment, trial.id)
                if record.key is not None:
                    return record
                if asked:
                    raise TrackerError(
                        f"the tracker {self._name()} has no run of trial {trial.id}: it has "
                        "refused it, or it was never reserved, or the store has no such trial"
                    )
                await outbox.add(trial.experiment, (trial.id,))  # from before there was a tracker
            asked = True
            self.deliverer.hurry()
            rest = MAX_POLL_INTERVAL
            if end is not None:
                rest = min(rest, end - anyio.current_time())
                if rest <= 0:
                    raise TrackerTimeout(
                        f"the tracker {self._name()} has made no run of trial {trial.id} within "
                        f"{timeout:g} s{await self._reason()}",
                        left=1,
                        last_error=self.deliverer.last_error,
                    )
            await anyio.sleep(min(MIN_POLL_INTERVAL, rest))
            version = await self._gateway.wait_for_change(MIRRORED, version, rest)
        return record

    def _checked_environment(self, variables: object) -> dict[str, str]:
        """Return the variables, if they can be set."""
        if isinstance(variables, Mapping):
            items = dict(variables)
            texts = [*items, *items.values()]
            if all(isinstance(text, str) and "\0" not in text for text in texts) and not any(
                not name or "=" in name for name in items
            ):
                return items
        # the values may be secrets
        what = sorted(map(ascii, variables)) if isinstance(variables, Mapping) else variables
        raise TrackerError(
            f"the tracker {self._name()} returned {what!a:.60}, which is not the environment "
            "of a process"
        )

    def _name(self) -> str:
        return f"{self.tracker.name} at {self.tracker.location}"

    async def _reason(self) -> str:
        """Return the known reason for a delay, as the end of a message."""
        if self.deliverer.last_error:
            return f": {self.deliverer.last_error}"
        return f"; {await Outbox(self._gateway).lease_holder() or 'no process'} sends to it"
