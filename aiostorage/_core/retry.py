"""How often and how long to try: the one module that knows tenacity.

It is imported when something fails: few processes ever need it, and it takes time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from aiostorage._core.kinds import SECONDS, shown
from aiostorage._core.telemetry import Telemetry
from aiostorage.errors import ConfigurationError, OperationTimeout, TemporaryBackendError

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["RetryPolicy", "back_off", "retrying"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long temporary failures of an engine (`TemporaryBackendError`) are retried.

    Attempts and total time are both bounded; every attempt is under a time limit of its own. The
    pause before the next attempt doubles each time and has a random part, so that many workers do
    not come back at the same moment.

    Parameters
    ----------
    attempts
        How many attempts, the first one included.
    total
        Seconds after which no further attempt begins, and which the last one may not outlast.
    attempt_timeout
        Seconds that one attempt may take.
    initial, maximum
        Seconds of the first pause, and of the longest, without their random part.
    jitter
        Seconds of the random part, at most.
    """

    attempts: int = 8
    total: float = 60.0
    attempt_timeout: float = 20.0
    initial: float = 0.02
    maximum: float = 2.0
    jitter: float = 0.05

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low = 0.0 if field.name in ("initial", "maximum", "jitter") else 1e-9
            if not SECONDS.accepts(value) or not low <= value < math.inf:
                raise ConfigurationError(f"RetryPolicy.{field.name} cannot be {shown(value)}")
        if self.attempts != int(self.attempts) or self.attempts < 1:
            raise ConfigurationError(f"RetryPolicy.attempts cannot be {self.attempts!r}")


async def retrying(
    policy: RetryPolicy,
    attempt: Callable[[bool], Awaitable[T]],
    *,
    start: float | None = None,
    failed: TemporaryBackendError | None = None,
    asked: str = "the engine",
    telemetry: Telemetry | None = None,
) -> T:
    """Call `attempt` until it succeeds, fails for good, or the policy has run out.

    Parameters
    ----------
    attempt
        Called with whether an earlier attempt may have happened although its answer was lost.
    start
        When the first attempt began, by `time.monotonic`. Default: now.
    failed
        The error of the first attempt, if the caller has made it already.
    asked
        Who is to answer, for messages: the location of the data.
    telemetry
        Who is told of each further attempt, if anyone.

    Raises
    ------
    TemporaryBackendError
        The error of the last attempt, when the policy has run out.
    """
    end = (time.monotonic() if start is None else start) + policy.total
    if failed is None:
        try:
            # nearly every call ends here; tenacity costs about 90 µs even when nothing fails
            return await _limited(policy, end, attempt, False, asked)
        except TemporaryBackendError as error:
            failed = error
    import tenacity  # noqa: PLC0415  see the module

    uncertain, first = failed.ambiguous, [failed]

    def tell(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if telemetry is not None and error is not None:
            telemetry.retried(error)

    async def next_attempt() -> T:
        nonlocal uncertain
        if first:
            raise first.pop()  # so that tenacity counts the first attempt, and waits
        try:
            return await _limited(policy, end, attempt, uncertain, asked)
        except TemporaryBackendError as error:
            uncertain = uncertain or error.ambiguous
            raise

    return await tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TemporaryBackendError),
        stop=tenacity.stop_after_attempt(policy.attempts)
        | tenacity.stop_before_delay(max(end - time.monotonic(), 0.0)),
        wait=tenacity.wait_exponential(policy.initial, policy.maximum)
        + tenacity.wait_random(0, policy.jitter),
        sleep=anyio.sleep,
        before_sleep=tell,
        reraise=True,
    )(next_attempt)


def back_off(failures: int, initial: float, maximum: float) -> float:
    """Return the seconds to wait after so many failures in a row, a random part among them."""
    import tenacity  # noqa: PLC0415  see the module

    state = tenacity.RetryCallState(cast(Any, None), None, (), {})
    state.attempt_number = failures
    wait = tenacity.wait_exponential(initial, maximum) + tenacity.wait_random(0, initial)
    return wait(state)


async def _limited(
    policy: RetryPolicy,
    end: float,
    attempt: Callable[[bool], Awaitable[T]],
    uncertain: bool,
    asked: str,
) -> T:
    limit = min(policy.attempt_timeout, max(end - time.monotonic(), 0.0))
    with anyio.move_on_after(limit) as scope:
        return await attempt(uncertain)
    if scope.cancelled_caught:
        raise OperationTimeout(f"{asked}: no answer within {limit:.3g} s", ambiguous=True)
    raise AssertionError("unreachable")  # pragma: no cover
