"""Upgrades that are killed at each moment; run as a process of its own, which forks.

``sqlite FILE DIRECTORY``: kills the upgrade of a copy of FILE before every second one of its
statements, and leaves the copies in DIRECTORY.

``mongodb URL DUMP FIRST``: kills the upgrade of a database after its write number FIRST and after
each fifth one from there, upgrades it again each time, and prints the version in between and the
content afterwards.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiostorage import open_storage, upgrade_storage
from aiostorage.drivers.sqlite import connection as sqlite_connection
from aiostorage.drivers.sqlite.connection import Connection


def forked(act: Callable[[], None]) -> int:
    """Run a function in a process of its own; return its exit code, or minus the signal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            act()
            code = 0
        except Exception:  # noqa: BLE001  whatever it is, the parent shows it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Countdown:
    """Kills this process at a certain tick."""

    def __init__(self, ticks: int) -> None:
        self.left = ticks

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------- SQLite


def sqlite(file: str, directory: str) -> None:
    for number in itertools.count(1, 2):
        copy = Path(directory, f"{number}.db")
        shutil.copy(file, copy)
        code = forked(partial(killed_file, copy, number))
        if code == 0:
            print(number)
            return
        assert code == -signal.SIGKILL, code


def killed_file(copy: Path, number: int) -> None:
    tick = Countdown(number)

    class Killed(Connection):
        def statement(self, *arguments: Any) -> sqlite3.Cursor:
            tick()
            return sqlite3.Connection.execute(self, *arguments)

        def backup(self, target: sqlite3.Connection, **_: Any) -> None:
            super().backup(target, pages=8, progress=tick)

        def close(self) -> None:
            tick()
            super().close()

    vars(sqlite_connection)["Connection"] = Killed
    asyncio.run(upgrade_storage(f"sqlite:///{copy}"))


# ------------------------------------------------------------------------------------ MongoDB


def mongodb(url: str, dump: str, first: str) -> None:
    for module in ("motor.motor_asyncio", "tests.upgrade.mongodb_dump", "numpy"):
        importlib.import_module(module)  # once, and not in each child
    importlib.import_module("aiostorage.drivers.mongodb.mongodb_options")
    for number in itertools.count(int(first), 5):
        assert forked(partial(restore, url, dump)) == 0
        code = forked(partial(killed_database, url, number))
        assert forked(partial(resume, url)) == 0
        if code == 0:
            return
        assert code == -signal.SIGKILL, code


def restore(url: str, dump: str) -> None:
    from pymongo import MongoClient

    from tests.upgrade.mongodb_dump import restored

    with MongoClient[dict[str, Any]](url) as client:
        restored(client.get_default_database(), Path(dump).read_bytes())


def killed_database(url: str, number: int) -> None:
    from pymongo import monitoring

    tick = Countdown(number)

    class Listener(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            """Wait for its end."""

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
            if event.command_name in ("update", "createIndexes", "commitTransaction"):
                tick()

        def failed(self, event: monitoring.CommandFailedEvent) -> None:
            """Leave it to the upgrade."""

    monitoring.register(Listener())
    asyncio.run(upgrade_storage(url))


def resume(url: str) -> None:
    from pymongo import MongoClient

    from tests.upgrade.layout_1.content import content_of

    async def main() -> Any:
        report = await upgrade_storage(url)
        async with open_storage(url) as storage:
            return report.found, await content_of(storage)

    found, content = asyncio.run(main())
    with MongoClient[dict[str, Any]](url) as client:
        meta = client.get_default_database()["aiostorage_meta"].find_one({"_id": "layout"})
    print(json.dumps({"found": found, "then": (meta or {}).get("version"), "content": content}))
    sys.stdout.flush()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
