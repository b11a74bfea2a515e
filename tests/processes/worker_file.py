"""A process that does with a SQLite storage what it is told: ``worker_file.py FILE``.

Each line of its stdin is a command with arguments, and so is its answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiostorage import AioStorageError, SyncStorage, open_storage
from aiostorage.drivers.sqlite.database_file import identity
from aiostorage.drivers.sqlite.file_checks import application_id, is_sqlite
from aiostorage.drivers.sqlite.lock_holders import lock_holders


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def names(storage: SyncStorage) -> list[str]:
    return sorted(config["name"] for config in storage.fetch_experiments({}))


def write(storage: SyncStorage, name: str) -> list[str]:
    storage.create_experiment({"name": name, "text": "x" * 3000})
    return names(storage)


def look(storage: SyncStorage, _: str) -> list[str]:
    """Do all that our own code does with a file that the user names."""
    path = Path(storage.location)
    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    for file in files:
        application_id(file)
        assert is_sqlite(file)
        if file != path:
            with suppress(AioStorageError):
                SyncStorage(open_storage(f"sqlite:///{file}")).fetch_experiments({})
    return locks(storage, "")


def transfer(storage: SyncStorage, _: str) -> list[str]:
    """Export to the file of the storage, and import from it."""
    import anyio

    from aiostorage.orion import export_orion, import_orion

    path = Path(storage.location)
    errors = []

    async def main() -> None:
        async with open_storage("memory://") as other, open_storage(f"sqlite:///{path}") as same:
            for file in (path, path.with_name(f"{path.name}-shm")):
                for source in (same, other):
                    try:
                        await export_orion(source, file, overwrite=True)
                    except AioStorageError as error:
                        errors.append(type(error).__name__)
                for target in (same, other):
                    try:
                        await import_orion(file, target)
                    except AioStorageError as error:
                        errors.append(type(error).__name__)

    anyio.run(main)
    assert errors == ["NotADatabaseError"] * 8, errors
    return locks(storage, "")


def locks(storage: SyncStorage, _: str) -> list[str]:
    """Say on which files this process has locks."""
    holders = lock_holders()
    assert holders is not None
    return [
        f"file{suffix}"
        for suffix in ("", "-shm")
        if os.getpid() in holders.all[identity(storage.location + suffix)]
    ]


def fork(storage: SyncStorage, name: str) -> list[str]:
    """Write in a child."""
    pid = os.fork()
    if pid:
        return [str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))]
    try:
        write(storage, name)
    except AioStorageError:
        os._exit(3)
    os._exit(0)


COMMANDS: dict[str, Callable[[SyncStorage, str], list[str]]] = {
    "write": write,
    "look": look,
    "transfer": transfer,
    "locks": locks,
    "fork": fork,
}


def main(path: str) -> None:
    storage: Any = SyncStorage(open_storage(f"sqlite:///{path}"))
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "close":
            storage.close()
            say("close")
            continue
        try:
            say(command, *COMMANDS[command](storage, argument))
        except AioStorageError as error:
            say("refused", type(error).__name__, error)


main(*sys.argv[1:])
