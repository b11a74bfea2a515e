"""The retry policy: what is tried again, how often, how long, and what is not."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
import pytest

from aiostorage import ConfigurationError, OperationTimeout, RetryPolicy, TemporaryBackendError
from aiostorage._core.driver_calls.retry import retrying

pytestmark = pytest.mark.anyio

FAST = RetryPolicy(attempts=5, initial=0.001, maximum=0.002, jitter=0.0)


class Flaky:
    """Fails so many times, then answers what it was told each time."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.told: list[bool] = []

    async def __call__(self, uncertain: bool) -> list[bool]:
        self.told.append(uncertain)
        if self.errors:
            raise self.errors.pop(0)
        return self.told


async def test_success_at_once() -> None:
    assert await retrying(FAST, Flaky()) == [False]


async def test_success_after_failures() -> None:
    failures = [TemporaryBackendError() for _ in range(4)]
    assert await retrying(FAST, Flaky(*failures)) == [False] * 5


async def test_an_ambiguous_failure_is_remembered() -> None:
    flaky = Flaky(
        TemporaryBackendError(), TemporaryBackendError(ambiguous=True), TemporaryBackendError()
    )
    assert await retrying(FAST, flaky) == [False, False, True, True]
    assert await retrying(FAST, Flaky(TemporaryBackendError(ambiguous=True))) == [False, True]


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_are_bounded(attempts: int) -> None:
    failures = [TemporaryBackendError(str(n)) for n in range(10)]
    flaky = Flaky(*failures)
    policy = RetryPolicy(attempts=attempts, initial=0.001, jitter=0)
    with pytest.raises(TemporaryBackendError) as raised:
        await retrying(policy, flaky)
    assert raised.value is failures[attempts - 1]
    assert len(flaky.told) == attempts


async def test_total_time_is_bounded() -> None:
    flaky = Flaky(*(TemporaryBackendError() for _ in range(10_000)))
    policy = RetryPolicy(attempts=10_000, total=0.1, initial=0.01, maximum=0.01, jitter=0)
    start = anyio.current_time()
    with pytest.raises(TemporaryBackendError):
        await retrying(policy, flaky)
    assert anyio.current_time() - start < 1
    assert 2 <= len(flaky.told) <= 12


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(attempts=2, attempt_timeout=0.02, initial=0.001, jitter=0),
        RetryPolicy(attempts=2, total=0.02, initial=0.001, jitter=0),
    ],
)
async def test_an_attempt_is_bounded(policy: RetryPolicy) -> None:
    told: list[bool] = []

    async def hang(uncertain: bool) -> None:
        told.append(uncertain)
        await anyio.sleep_forever()

    with anyio.fail_after(2), pytest.raises(OperationTimeout) as raised:
        await retrying(policy, hang)
    assert raised.value.ambiguous
    assert told in ([False], [False, True])


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), TimeoutError()])
async def test_other_errors_are_not_retried(error: BaseException) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)) as raised:
        await retrying(FAST, flaky)
    assert raised.value is error
    flaky = Flaky(TemporaryBackendError(), error)
    with pytest.raises(type(error)):
        await retrying(FAST, flaky)
    assert len(flaky.told) == 2


@pytest.mark.parametrize("failures", [0, 1])
async def test_cancellation_is_never_swallowed(failures: int) -> None:
    flaky = Flaky(*(TemporaryBackendError() for _ in range(failures)), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retrying(FAST, flaky)
    assert len(flaky.told) == failures + 1


async def test_cancellation_of_a_pause() -> None:
    policy = RetryPolicy(attempts=3, initial=50, maximum=50)
    task = asyncio.create_task(retrying(policy, Flaky(TemporaryBackendError())))
    await anyio.sleep(0.02)
    task.cancel()
    with anyio.fail_after(2):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_cancellation_of_an_attempt() -> None:
    calls = 0

    async def hang(_: bool) -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep_forever()

    task = asyncio.create_task(retrying(FAST, hang))
    await anyio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert calls == 1


async def test_pauses_double_and_have_a_random_part(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[list[float]] = []

    async def sleep(seconds: float) -> None:
        pauses[-1].append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    policy = RetryPolicy(attempts=8, initial=0.1, maximum=1.0, jitter=0.5)
    for _ in range(30):
        pauses.append([])
        await retrying(policy, Flaky(*(TemporaryBackendError() for _ in range(7))))
    for position, base in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)):
        column = [row[position] for row in pauses]
        assert base <= min(column) < max(column) <= base + 0.5
        assert len(set(column)) > 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": "3"},
        {"total": 0},
        {"total": math.inf},
        {"total": math.nan},
        {"attempt_timeout": -1},
        {"initial": -0.1},
        {"maximum": math.inf},
        {"jitter": None},
    ],
    ids=repr,
)
def test_settings_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)
