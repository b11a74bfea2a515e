"""A transaction that is attempted until it is committed, by either library or in a thread.

The libraries have something like it, but motor's ends a transaction twice if it is cancelled while
it ends one, and ends what is left with the session, in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from time import monotonic
from typing import Any, Final, TypeAlias

from pymongo import WriteConcern
from pymongo.errors import PyMongoError

__all__ = ["AttemptedTransaction", "BegunAnew"]

Step: TypeAlias = Callable[[], Awaitable[None]]

MAX_TIME_EXPIRED: Final = 50
"""The server's code for a command that took too long."""

MIN_RETRY_DELAY: Final = 0.005
MAX_RETRY_DELAY: Final = 0.5
"""Seconds between two attempts, at most: from the second repetition on, and after a while."""

MAX_SECONDS: Final = 120.0
"""Seconds after which no further attempt is begun, as in the libraries."""


class BegunAnew(Exception):
    """Raised by what is done in a transaction, to have it done from its beginning."""


class AttemptedTransaction:
    """A transaction, with a session of PyMongo of its own.

    If it is cancelled, it sends nothing any more: the thread that carries out its last command may
    still use the session. So its caller has the server end the session.

    Parameters
    ----------
    call
        Awaits a method of the session that sends a command.
    action
        What is done in the transaction; called for each attempt.

    Attributes
    ----------
    result
        That of the action.
    """

    def __init__(
        self,
        session: Any,
        call: Callable[[Callable[[], Any]], Awaitable[object]],
        concern: WriteConcern,
        action: Callable[[], Awaitable[Any]],
    ) -> None:
        self.result: Any = None
        self._session = session
        self._call = call
        self._concern = concern
        self._action = action

    async def commit(self, run: Callable[[Step], Awaitable[None]]) -> None:
        """Make attempts until one is committed.

        Parameters
        ----------
        run
            Awaits a part of an attempt.
        """
        end, pause = monotonic() + MAX_SECONDS, 0.0
        cancelled = _cancellations()
        step = self._carry_out
        while True:
            try:
                await run(step)
            except BegunAnew:
                step = self._carry_out
            except PyMongoError as error:
                if _cancellations() > cancelled:  # the library took it for a broken connection
                    raise asyncio.CancelledError from error
                if monotonic() >= end:
                    raise
                if _may_be_committed(error):
                    step = self._commit
                elif error.has_error_label("TransientTransactionError"):
                    step = self._carry_out
                else:
                    raise
                # an attempt may fail without a turn of the event loop, which could not end it then
                await asyncio.sleep(pause * random.random())  # noqa: S311  no secret
                pause = min(max(MIN_RETRY_DELAY, 1.5 * pause), MAX_RETRY_DELAY)
            else:
                return

    async def _carry_out(self) -> None:
        started = self._session.start_transaction(write_concern=self._concern)
        if isawaitable(started):
            await started
        try:
            self.result = await self._action()
        except Exception:
            if self._session.in_transaction:
                await self._call(self._session.abort_transaction)
            raise
        await self._commit()

    async def _commit(self) -> None:
        await self._call(self._session.commit_transaction)


def _cancellations() -> int:
    """Return how often this task has been asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _may_be_committed(error: PyMongoError) -> bool:
    """Return whether only another attempt to commit tells if the transaction is committed."""
    expired = getattr(error, "code", None) == MAX_TIME_EXPIRED
    return error.has_error_label("UnknownTransactionCommitResult") and not expired
