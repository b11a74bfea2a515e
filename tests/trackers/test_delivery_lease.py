"""The lease of the deliverer, as the process knows it that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from aiostorage._core.delivery.lease import DeliveryLease, LeaseLost
from aiostorage._core.delivery.outbox import Outbox
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.driver_calls.retry import RetryPolicy
from aiostorage.drivers.memory import MemoryDriver

pytestmark = pytest.mark.anyio


@pytest.fixture
async def outbox() -> AsyncIterator[Outbox]:
    gateway = Gateway(MemoryDriver(), RetryPolicy())
    yield Outbox(gateway)
    await gateway.aclose()


async def test_it_is_renewed_before_a_call_for_which_it_is_too_short(outbox: Outbox) -> None:
    lease = DeliveryLease(outbox, seconds=0.3, reserve=0.2)
    assert await lease.acquire()
    await anyio.sleep(0.15)
    assert lease.left < 0.2
    await lease.check()
    assert lease.left >= 0.2
    await lease.release()
    assert lease.left < 0
    assert await outbox.lease_holder() is None


async def test_nothing_is_sent_after_another_has_taken_over(outbox: Outbox) -> None:
    lease = DeliveryLease(outbox, seconds=0.1, reserve=0.05)
    other = DeliveryLease(outbox, seconds=60, reserve=1)
    assert await lease.acquire()
    assert not await other.acquire()
    await lease.check()
    await anyio.sleep(0.12)
    assert await other.acquire()
    with pytest.raises(LeaseLost):
        await lease.check()
    assert lease.left < 0
    await lease.release()
    assert await outbox.lease_holder() == other.owner
