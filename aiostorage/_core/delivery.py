"""The deliverer: sends the changes in the store to the tracker in the background.

Every storage with a tracker has a `Deliverer`. Of all that are open on a store, in any process, one
at a time holds the lease and works; the others wait for it. A `_Delivery` is the running task of a
deliverer in one event loop.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio

from aiostorage._core.cancellation import shielded, wait_until_done
from aiostorage._core.delivery_lease import DeliveryLease, LeaseLost
from aiostorage._core.event_log import EventLog
from aiostorage._core.gateway import Gateway
from aiostorage._core.heartbeat import repeating
from aiostorage._core.outbox import Outbox
from aiostorage._core.retry import back_off
from aiostorage._core.sending import Page, Sender
from aiostorage._core.tracker_threads import TrackerThreads, in_words
from aiostorage.errors import AioStorageError, StorageClosedError, TrackerError, TrackerUnavailable
from aiostorage.trackers.protocol import Tracker

__all__ = ["Deliverer", "DeliverySettings"]

T = TypeVar("T")

PAGE_SIZE: Final = 500
"""Maximum number of rows per read, and so in memory."""

END_TIMEOUT: Final = 2.0
"""Seconds that the clean-up at the end may take."""

events: Final = EventLog("tracker")


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """The settings of a deliverer.

    Attributes
    ----------
    on_close
        Seconds that `Deliverer.aclose` goes on delivering, at most.
    lease
        Seconds after which another process takes over from one that died.
    call_limit
        Seconds that a call to the tracker may take.
    linger
        Seconds to wait for further changes before the first ones are sent, unless a caller waits:
        changes of one trial are sent together, and workers get the processor meanwhile.
    initial, maximum
        Seconds of the first pause while the tracker is unavailable, and of the longest.
    """

    on_close: float = 5.0
    lease: float = 60.0
    call_limit: float = 30.0
    linger: float = 1.0
    initial: float = 0.5
    maximum: float = 30.0


class Deliverer:
    """Delivers while its storage is open; started by `wake`, and ended by `aclose`.

    Parameters
    ----------
    gateway
        The store.
    tracker
        The tracker. It is opened in a thread when there is something to send.
    settings
        How to deliver.
    """

    def __init__(
        self, gateway: Gateway, tracker: Tracker, settings: DeliverySettings | None = None
    ) -> None:
        self.gateway = gateway
        self.tracker = tracker
        self.settings: DeliverySettings = settings or DeliverySettings()
        self._run: _Delivery | None = None
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        return {"gateway": self.gateway, "tracker": self.tracker, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy starts anew

    @property
    def last_error(self) -> str | None:
        """The error of the last call to the tracker if it failed; None otherwise."""
        return self._run.last_error if self._run is not None else None

    @property
    def owner(self) -> str | None:
        """The token under which this one holds the lease, or would."""
        return self._run.owner if self._run is not None else None

    @property
    def refused(self) -> int:
        """How many experiments and trials the tracker has refused in this process."""
        return self._run.refused if self._run is not None else 0

    def wake(self) -> None:
        """Start in the running loop unless it has been started: there may be changes to send."""
        if not self._closed:
            self._running()

    def hurry(self) -> None:
        """Deliver at once what there is, since a caller waits for it."""
        self._running().call()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the tracker in a thread, which need not hold the lease."""
        run = self._running()
        await run.open_tracker()
        return await run.call_tracker(function, *arguments)

    async def aclose(self) -> None:
        """Go on for some seconds, log how much is left, and end. A second call does nothing."""
        self._closed = True
        run, self._run = self._run, None
        if run is None or not run.belongs_here():
            return
        try:
            if run.is_here():
                await run.finish(self.settings.on_close)
        finally:
            await run.end()
        await self._say_what_is_left(run)

    def _running(self) -> _Delivery:
        """Return the delivery in this loop; start it if there is none."""
        if self._closed:
            raise StorageClosedError
        run = self._run
        if run is None or run.task.done() or not run.is_alive():
            if run is not None and not run.belongs_here():
                _inherited.append(run)
                self.tracker = _copied(self.tracker)
            run = self._run = _Delivery(self.gateway, self.tracker, self.settings)
            # if the storage is dropped without being closed, its delivery ends with it
            weakref.finalize(self, run.stop_soon).atexit = False
        return run

    async def _say_what_is_left(self, run: _Delivery) -> None:
        outbox = Outbox(self.gateway)
        try:
            with anyio.move_on_after(END_TIMEOUT):
                if not (length := (await outbox.backlog()).length):
                    return
                if not run.was_deliverer and await outbox.lease_holder() is not None:
                    return  # the other one goes on
                why = f" ({run.last_error})" if run.last_error else ""
                events.warning(
                    "changes_left",
                    "%(changes)d changes in %(store)s have not been sent to the tracker "
                    "%(tracker)s at %(location)s%(reason)s; the next storage with this tracker "
                    "sends them, and so does: aiostorage tracker-sync URL --tracker TRACKER",
                    changes=length,
                    store=self.gateway.driver.location,
                    tracker=self.tracker.name,
                    location=self.tracker.location,
                    reason=why,
                )
        except AioStorageError as error:
            events.debug(
                "backlog_unknown",
                "what is left for the tracker is not known: %(error)s",
                error=error,
            )


class _Delivery:
    """The background task of a deliverer in one event loop, and its threads."""

    def __init__(self, gateway: Gateway, tracker: Tracker, settings: DeliverySettings) -> None:
        self.closing: bool = False
        self.was_deliverer: bool = False
        self._may_have_lease = False
        self.last_error: str | None = None
        self._tracker = tracker
        self._settings = settings
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._called = asyncio.Event()
        self._outbox = Outbox(gateway)
        self._threads = TrackerThreads(tracker.max_concurrency)
        self._lease = DeliveryLease(self._outbox, settings.lease, settings.call_limit * 1.05)
        self._sender = Sender(
            gateway,
            self._outbox,
            tracker,
            threads=self._threads,
            lease=self._lease,
            call_limit=settings.call_limit,
        )
        self._opening = anyio.Lock()
        self._open = False
        self._failures = 0
        self._end_at = 0.0
        self.task: asyncio.Task[None] = self._loop.create_task(self._main())

    # ------------------------------------------------------------------- from other tasks

    def belongs_here(self) -> bool:
        """Return whether this process, not its parent, has started it."""
        return self._pid == os.getpid()

    def is_here(self) -> bool:
        """Return whether it belongs to the running loop."""
        return self._loop is asyncio.get_running_loop()

    def is_alive(self) -> bool:
        """Return whether it can make progress: its loop runs."""
        return self.belongs_here() and self._loop.is_running()

    @property
    def owner(self) -> str:
        """The token of its lease."""
        return self._lease.owner

    @property
    def refused(self) -> int:
        """How many experiments and trials the tracker has refused."""
        return self._sender.refused

    def call(self) -> None:
        """Wake it up."""
        if self.is_here():
            self._called.set()
        else:
            self._loop.call_soon_threadsafe(self._called.set)

    def stop_soon(self) -> None:
        """End it, from any thread or finaliser."""
        self._threads.end()
        if self.belongs_here() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.task.cancel)

    async def finish(self, seconds: float) -> None:
        """Let it end when all is delivered, after some seconds at the latest."""
        self._end_at = self._loop.time() + seconds
        self.closing = True
        self._called.set()
        await asyncio.wait([self.task], timeout=seconds)

    async def end(self) -> None:
        """Cancel it, and wait until it has cleaned up, if it runs here."""
        if self._loop.is_closed():
            return
        if not self.is_here():
            self.stop_soon()
            return
        self.task.cancel()
        with anyio.CancelScope(shield=True):
            await wait_until_done(self.task)

    async def open_tracker(self) -> None:
        """Open the tracker, if it is not open."""
        async with self._opening:
            if not self._open:
                await self.call_tracker(self._tracker.open)
                self._open = True

    async def call_tracker(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the tracker; turn any exception into a `TrackerError`."""
        try:
            limit = self._settings.call_limit
            return await self._threads.call(object(), function, *arguments, limit=limit)
        except TrackerError:
            raise
        except AioStorageError as error:
            raise TrackerError(str(error)) from error
        except Exception as error:
            raise TrackerError(in_words(error)) from error

    # --------------------------------------------------------------------------- the task

    async def _main(self) -> None:
        try:
            while not await self._once():
                pass
        except StorageClosedError:
            pass
        finally:
            await self._clean_up()

    async def _once(self) -> bool:
        """Wait for the lease and deliver, until something fails; return whether to stop."""
        try:
            await self._sender.delete_unwanted()
            self._may_have_lease = True  # also if this is cancelled
            if await self._lease.acquire():
                self.was_deliverer = True
                self._sender.reset()
                async with repeating(self._lease.renew, self._lease.renewal_interval):
                    await self._deliver()
                return True
            self.was_deliverer = self._may_have_lease = False
        except LeaseLost as error:
            events.info(
                "another_sends",
                "another process sends to the tracker %(tracker)s: %(error)s",
                tracker=self._tracker.name,
                error=error,
            )
        except StorageClosedError:
            raise
        except Exception as error:  # noqa: BLE001  nothing here may end it: the rows stay
            if not isinstance(error, AioStorageError):
                events.exception(
                    "sending_failed",
                    "sending to the tracker %(tracker)s failed",
                    tracker=self._tracker.name,
                )
            self._note_failure(error)
            if self.closing:
                return True
            await self._pause()
            return False
        if not self.closing:
            await self._until_called(self._lease.renewal_interval)
        return self.closing

    async def _deliver(self) -> None:
        """Deliver as long as the storage is open."""
        while True:
            rows = await self._outbox.rows(PAGE_SIZE)
            if not rows:
                if self.closing:
                    return
                await self._news()
                continue
            try:
                await self.open_tracker()
                await self._sender.delete_unwanted()
                page = await self._sender.deliver(rows)
            except TrackerError as error:
                page = Page(unavailable=TrackerUnavailable(str(error)))
            if page.unavailable is None:
                self._note_success()
                if len(rows) < PAGE_SIZE:
                    await self._linger()
                continue
            self.last_error = str(page.unavailable)
            if page.confirmed:  # it is there, but some trials have to wait
                self._failures = 1
            else:
                self._note_failure(page.unavailable)
                if self.closing:
                    return
            await self._pause()

    def _note_failure(self, error: BaseException) -> None:
        self._failures += 1
        self.last_error = str(error)
        if self._failures == 1:
            events.warning(
                "tracker_unreachable",
                "the tracker %(tracker)s at %(location)s cannot be reached; the changes wait in "
                "the store: %(error)s",
                tracker=self._tracker.name,
                location=self._tracker.location,
                error=error,
            )

    def _note_success(self) -> None:
        if self._failures:
            events.info(
                "tracker_reachable",
                "the tracker %(tracker)s at %(location)s can be reached again",
                tracker=self._tracker.name,
                location=self._tracker.location,
            )
        self._failures, self.last_error = 0, None

    # ------------------------------------------------------------------------------ waiting

    async def _pause(self) -> None:
        settings = self._settings
        seconds = back_off(self._failures, settings.initial, settings.maximum)
        with anyio.move_on_after(seconds):
            while not self.closing:  # others who are in a hurry do not make the tracker answer
                self._called.clear()
                await self._called.wait()

    async def _news(self) -> None:
        """Wait for new rows."""
        if not self._called.is_set():
            await self._first_of(lambda: self._outbox.wait(self._lease.renewal_interval))
        await self._linger()

    async def _linger(self) -> None:
        """Wait a little for changes that can be sent together, unless a caller waits for them."""
        await self._until_called(self._settings.linger)
        self._called.clear()

    async def _until_called(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._called.wait()
        if not self.was_deliverer:
            self._called.clear()

    async def _first_of(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await `wait`, but not longer than until it is called."""
        waiting = asyncio.ensure_future(wait())
        called = asyncio.ensure_future(self._called.wait())
        try:
            await asyncio.wait([waiting, called], return_when=asyncio.FIRST_COMPLETED)
        finally:
            called.cancel()
            waiting.cancel()
            with anyio.CancelScope(shield=True):
                await wait_until_done(waiting)
        if not waiting.cancelled():
            waiting.result()

    async def _clean_up(self) -> None:
        """Give up the lease unless a call is running; end the threads."""

        async def clean_up() -> None:
            if self._open and not self._threads.busy:
                await self.call_tracker(self._tracker.close)
            if self._may_have_lease and not self._threads.busy:
                await self._lease.release()

        try:
            await shielded(max(END_TIMEOUT, self._end_at - self._loop.time()), clean_up)
        except (AioStorageError, TimeoutError) as error:
            events.debug(
                "sending_ended",
                "at the end of sending to the tracker: %(error)s",
                error=error,
            )
        finally:
            self._threads.end()


def _copied(tracker: Tracker) -> Tracker:
    """Return a copy for this process, whose parent uses the tracker."""
    try:
        copy: Tracker = pickle.loads(pickle.dumps(tracker))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  one that breaks its law must not fail a worker
        events.exception(
            "tracker_not_copied",
            "the tracker %(tracker)s cannot be copied for a forked process",
            tracker=tracker.name,
        )
        return tracker
    return copy


_inherited: Final[list[_Delivery]] = []
"""What runs in a parent process. Its tasks must not be finalised in a child."""
