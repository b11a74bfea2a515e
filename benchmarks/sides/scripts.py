"""New interpreters, and what they take until they have done something."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from benchmarks.definitions import Block, Figures, Setting
from benchmarks.sides import optuna_peers
from benchmarks.sides.plain_sqlite import made

__all__ = ["imports", "scripts"]

IMPORT = """
import time
begin, used = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - begin, time.process_time() - used)
"""
ASYNC = """
import asyncio
from aiostorage import open_storage
async def main():
    async with open_storage("sqlite:///{place}.db") as storage:
        experiment, = await storage.fetch_experiments({{"name": "bench"}})
        assert await storage.reserve_trial(experiment) is not None
asyncio.run(main())
"""
FACADE = """
from aiostorage import SyncStorage, open_storage
with SyncStorage(open_storage("sqlite:///{place}.db")) as storage:
    experiment, = storage.fetch_experiments({{"name": "bench"}})
    assert storage.reserve_trial(experiment) is not None
"""
OPTUNA = """
import optuna
optuna.load_study(study_name="bench", storage="sqlite:///{place}.rdb").ask()
"""
SCRIPTS = {"async": ASYNC, "facade": FACADE, "optuna": OPTUNA}


@contextmanager
def imports(_: Setting, module: str) -> Iterator[Block]:
    """Import a module."""

    def block() -> Figures:
        seconds, processor = map(float, _output(IMPORT.format(module=module)).split())
        return Figures(1, seconds, processor)

    yield block


@contextmanager
def scripts(setting: Setting, kind: Literal["async", "facade", "optuna"]) -> Iterator[Block]:
    """Run a script from its start to its end."""
    if kind == "optuna":
        with optuna_peers.inserts(setting, "rdb"):
            pass
    else:
        made(setting)
    script = SCRIPTS[kind].format(place=setting.directory / setting.store)
    yield lambda: _measured(lambda: _output(script))


def _measured(action: Callable[[], object]) -> Figures:
    used, begin = _of_children(), time.perf_counter()
    action()
    return Figures(1, time.perf_counter() - begin, _of_children() - used)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _output(script: str) -> str:
    # what is imported here, also from another checkout, is imported there
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
