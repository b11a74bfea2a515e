"""The queue of operations that come at the same time: what goes alone, what goes together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
import pytest

pytest.importorskip("pymongo")

from aiostorage._core.cancellation import had_no_effect
from aiostorage.drivers.mongodb.fair_queue import MAX_CONCURRENT, UNBATCHED_RANGE, FairQueue

pytestmark = pytest.mark.anyio


class Server:
    """Carries out numbers: a negative one fails, a 0 fails whatever goes along with it."""

    def __init__(self) -> None:
        self.commands: list[list[int]] = []
        self.seconds: list[float] = []
        self.goes = asyncio.Event()
        self.goes.set()
        self.well = True
        self.queue = FairQueue[int, int](asyncio.get_running_loop(), self.alone, self.together)

    async def alone(self, number: int, seconds: float) -> int:
        self.commands.append([number])
        self.seconds.append(seconds)
        await self.goes.wait()
        if number <= 0:
            raise ValueError(number)
        return number * 10

    async def together(
        self, numbers: Sequence[int], seconds: float
    ) -> tuple[list[int | Exception], bool]:
        self.commands.append(list(numbers))
        self.seconds.append(seconds)
        await self.goes.wait()
        if 0 in numbers:
            raise ValueError(0)
        return [ValueError(number) if number < 0 else number * 10 for number in numbers], self.well

    async def ask(self, *numbers: int) -> list[int | BaseException]:
        asked = (self.queue.carry_out(number, 20.0) for number in numbers)
        return await asyncio.gather(*asked, return_exceptions=True)


async def test_few_go_by_themselves_and_at_once() -> None:
    server = Server()
    assert await server.ask(1, 2, 3) == [10, 20, 30]
    assert server.commands == [[1], [2], [3]]
    assert server.queue.idle


async def test_many_of_one_moment_go_together() -> None:
    server = Server()
    assert await server.ask(*range(1, 9)) == [n * 10 for n in range(1, 9)]
    assert server.commands == [list(range(1, 9))]
    assert server.queue.idle


async def test_there_is_a_limit_to_what_goes_together() -> None:
    server = Server()
    assert await server.ask(*range(1, 251)) == [n * 10 for n in range(1, 251)]
    assert [len(command) for command in server.commands] == [100, 100, 50]


async def test_those_that_come_later_wait_for_those_that_are_under_way() -> None:
    server = Server()
    server.goes.clear()
    first = asyncio.create_task(server.ask(1, 2))
    await anyio.wait_all_tasks_blocked()
    second = asyncio.create_task(server.ask(3))
    await anyio.wait_all_tasks_blocked()
    assert server.commands == [[1], [2], [3]]  # three may be under way
    third = asyncio.create_task(server.ask(4, 5, 6, 7))
    await anyio.wait_all_tasks_blocked()
    assert len(server.commands) == MAX_CONCURRENT
    server.goes.set()
    assert [await first, await second, await third] == [[10, 20], [30], [40, 50, 60, 70]]
    assert server.commands[MAX_CONCURRENT:] == [[4, 5, 6, 7]]


async def test_who_is_answered_and_asks_again_goes_along_with_the_next() -> None:
    server = Server()

    async def worker(number: int) -> None:
        for _ in range(5):
            await server.queue.carry_out(number, 20.0)

    async with asyncio.TaskGroup() as group:
        for number in range(1, 9):
            group.create_task(worker(number))
    assert [len(command) for command in server.commands] == [8] * 5


async def test_each_hears_of_its_own_failure() -> None:
    server = Server()
    answers = await server.ask(1, -2, 3, -4, 5)
    assert [answers[0], answers[2], answers[4]] == [10, 30, 50]
    assert [str(answers[1]), str(answers[3])] == ["-2", "-4"]
    answers = await server.ask(-1, 2)
    assert str(answers[0]) == "-1"
    assert answers[1] == 20


async def test_what_fails_as_a_whole_fails_for_all_and_those_after_it_go_on() -> None:
    server = Server()
    assert [type(answer) for answer in await server.ask(0, 1, 2, 3)] == [ValueError] * 4
    assert server.queue.idle
    assert await server.ask(1, 2, 3, 4) == [10, 20, 30, 40]


async def test_who_is_cancelled_while_waiting_leaves_at_once() -> None:
    server = Server()
    server.goes.clear()
    under_way = [asyncio.create_task(server.queue.carry_out(n, 20.0)) for n in (1, 2, 3)]
    await anyio.wait_all_tasks_blocked()
    waiting = asyncio.create_task(server.queue.carry_out(4, 20.0))
    await anyio.wait_all_tasks_blocked()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    server.goes.set()
    await asyncio.gather(*under_way)
    assert [4] not in server.commands
    assert server.queue.idle


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("number", [1, -1])
async def test_who_is_cancelled_under_way_hears_of_it_at_the_end(count: int, number: int) -> None:
    server = Server()
    server.goes.clear()
    numbers = [number, *range(2, count + 1)]
    tasks = [asyncio.create_task(server.queue.carry_out(n, 20.0)) for n in numbers]
    await anyio.wait_all_tasks_blocked()
    for _ in range(3):  # however often
        tasks[0].cancel()
        await anyio.wait_all_tasks_blocked()
    assert not tasks[0].done()
    server.goes.set()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert await asyncio.gather(*tasks[1:]) == [n * 10 for n in numbers[1:]]


async def test_a_scope_that_is_cancelled_waits_for_the_end_too() -> None:
    server = Server()
    server.goes.clear()
    with anyio.move_on_after(0.01) as scope:
        asyncio.get_running_loop().call_later(0.1, server.goes.set)
        await server.queue.carry_out(1, 20.0)
    assert scope.cancelled_caught
    assert server.goes.is_set()
    assert server.queue.idle


async def test_the_one_with_the_least_time_left_sets_the_limit() -> None:
    server = Server()
    asked = (server.queue.carry_out(n, float(10 * n)) for n in (4, 3, 2, 5))
    assert await asyncio.gather(*asked) == [40, 30, 20, 50]
    assert server.seconds == [pytest.approx(20, abs=1)]


async def test_where_going_together_fails_they_go_apart_for_a_while_and_longer_each_time() -> None:
    server = Server()
    server.well = False
    for many in (UNBATCHED_RANGE[0], 2 * UNBATCHED_RANGE[0]):
        server.commands.clear()
        await server.ask(1, 2, 3, 4)
        assert server.commands == [[1, 2, 3, 4]]
        await server.ask(*range(1, many + 1))
        assert server.commands[1:] == [[number] for number in range(1, many + 1)]
    server.well = True
    server.commands.clear()
    await server.ask(1, 2, 3, 4)
    await server.ask(1, 2, 3, 4)
    assert server.commands == [[1, 2, 3, 4]] * 2


async def test_what_was_cancelled_while_it_waited_has_changed_nothing() -> None:
    server = Server()
    server.goes.clear()
    begun, waiting = (
        asyncio.create_task(server.queue.carry_out(number, 20.0)) for number in (1, 2)
    )
    for number in range(3, 3 + MAX_CONCURRENT):  # those that the second one waits behind
        waiting = asyncio.create_task(server.queue.carry_out(number, 20.0))
        await asyncio.sleep(0.01)
    waiting.cancel()
    begun.cancel()
    await asyncio.sleep(0)
    server.goes.set()
    with pytest.raises(asyncio.CancelledError) as dropped:
        await waiting
    with pytest.raises(asyncio.CancelledError) as finished:
        await begun
    assert had_no_effect(dropped.value)
    assert not had_no_effect(finished.value)
