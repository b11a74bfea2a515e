"""A process that copies or loads a store, and tells of each step, until it is killed."""

from __future__ import annotations

import sys

import anyio

from aiostorage import open_storage
from aiostorage.transfer import MoveProgress, copy_storage, load_storage


def tell(progress: MoveProgress) -> None:
    print(progress.stage, progress.done, flush=True)


async def main(source: str, destination: str) -> None:
    async with open_storage(destination) as storage:
        if "://" not in source:
            await load_storage(source, storage, progress=tell)
            return
        async with open_storage(source) as origin:
            await copy_storage(origin, storage, progress=tell)


anyio.run(main, sys.argv[1], sys.argv[2])
