"""One holding of the algorithm lock, under orders from stdin.

Arguments: the URL, the experiment, the lease, the retry interval, a name. Prints ``waits``, then
``holds`` and the names of those whose holdings were saved before, and after a line of its stdin
``left``, or ``lost`` and why.
"""

from __future__ import annotations

import asyncio
import sys

from aiostorage import LockLost, open_storage


def say(*words: object) -> None:
    print(*words, flush=True)


async def main() -> None:
    url, experiment, lease, retry, name = sys.argv[1:]
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    async with open_storage(url, lock_lease=float(lease)) as storage:
        say("waits")
        try:
            async with storage.acquire_algorithm_lock(
                {"_id": experiment}, timeout=60, retry_interval=float(retry)
            ) as algorithm:
                say("holds", *algorithm.state)
                algorithm.state.append(name)
                await orders.readline()
        except LockLost as error:
            say("lost", error)
        else:
            say("left")


if __name__ == "__main__":
    asyncio.run(main())
