"""Holds the lock as often as it can.

Arguments: the file, the experiment, the number of tasks, and how often all processes together hold
it. Prints ``ready``, begins with a line of its stdin, and prints ``held`` and how often each task
did.
"""

from __future__ import annotations

import asyncio
import sys

from aiostorage import Storage, open_storage


async def hammer(storage: Storage, experiment: str, total: int) -> int:
    count = 0
    while True:
        async with storage.acquire_algorithm_lock({"_id": experiment}, timeout=60) as algorithm:
            if algorithm.state["count"] >= total:
                return count
            algorithm.state["count"] += 1
        count += 1


async def main() -> None:
    path, experiment, tasks, total = sys.argv[1:]
    async with open_storage(f"sqlite:///{path}") as storage:
        await storage.get_algorithm_lock_info(uid=experiment)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        counts = await asyncio.gather(
            *(hammer(storage, experiment, int(total)) for _ in range(int(tasks)))
        )
        print("held", *counts, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
