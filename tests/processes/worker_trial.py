"""One reservation of a trial, under orders from stdin.

Arguments: the URL, the experiment, after how long a trial is lost, a result. Prints ``has`` and the
trial, and after a line of its stdin ``completed``, or ``lost`` and why.
"""

from __future__ import annotations

import asyncio
import sys

from aiostorage import TrialLost, open_storage


def say(*words: object) -> None:
    print(*words, flush=True)


async def main() -> None:
    url, experiment, lost_after, result = sys.argv[1:]
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    async with open_storage(url, lost_after=float(lost_after)) as storage:
        try:
            async with storage.reserved_trial({"_id": experiment}, on_lost="raise") as trial:
                assert trial is not None
                say("has", trial.id)
                await orders.readline()
                await storage.complete_trial(trial, float(result))
        except TrialLost as error:
            say("lost", error)
        else:
            say("completed")


if __name__ == "__main__":
    asyncio.run(main())
