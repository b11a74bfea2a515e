"""What tests minimise; copied beside them under this name."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path


def plain(params: Mapping[str, float]) -> float:
    return (params["x"] - 1) ** 2 + params["y"] ** 2


async def coroutine(params: Mapping[str, float]) -> dict[str, float]:
    await asyncio.sleep(0.001)
    return {"accuracy": 0.5, "objective": plain(params)}


async def paced(params: Mapping[str, float]) -> float:
    await asyncio.sleep(0.4)
    return plain(params)


def partly_broken(params: Mapping[str, float]) -> float:
    print("no event at all")
    if params["n"] > 2:
        raise ValueError("more than\ntwo")
    return params["n"]


def nonsense(params: Mapping[str, float]) -> str:
    return f"no number {params}"


def slow(params: Mapping[str, float]) -> float:
    Path(f"pid-{os.getpid()}").touch()
    time.sleep(0.5 if Path("hurry").exists() else 300)
    return plain(params)


def crash(params: Mapping[str, float]) -> float:
    os._exit(7 + 0 * len(params))


def first_one_dies(params: Mapping[str, float]) -> float:
    try:
        Path("died").touch(exist_ok=False)
    except FileExistsError:
        return plain(params)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0
