"""A process that looks for lost trials, under orders from stdin.

Arguments: the URL, the experiment, after how long a trial is lost. Prints ``looks``, and for each
line of its stdin ``lost`` and the trials that it has recovered.
"""

from __future__ import annotations

import asyncio
import sys

from aiostorage import open_storage


async def main() -> None:
    url, experiment, lost_after = sys.argv[1:]
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    async with open_storage(url, lost_after=float(lost_after)) as storage:
        print("looks", flush=True)
        while await orders.readline():
            lost = await storage.recover_lost_trials({"_id": experiment})
            print("lost", *(trial.id for trial in lost), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
