"""A SQLite file that several processes use, while one of them or a person does something to it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aiostorage.drivers.sqlite.lock_holders import LOCKS

from .support import Starter, Worker, integrity

SCRIPT = "worker_file.py"

pytestmark = pytest.mark.skipif(not LOCKS.exists(), reason="the kernel does not tell its locks")


def ask(worker: Worker, *words: str) -> list[str]:
    """Give a command, and return the answer."""
    worker.tell(" ".join(words))
    return worker.expect(words[0])


def refusal(worker: Worker, *words: str) -> str:
    """Give a command that is refused, and return the error."""
    worker.tell(" ".join(words))
    return " ".join(worker.expect("refused"))


def names(path: Path) -> list[str]:
    """Return what SQLite finds in a file that no process has open."""
    assert integrity(path) == "ok"
    with closing(sqlite3.connect(path)) as connection:
        return sorted(row[0] for row in connection.execute("SELECT name FROM experiments"))


def many(worker: Worker, word: str) -> list[str]:
    """Write more than the file itself gets at once: it stays in the log."""
    found = [f"{word}{number}" for number in range(50)]
    for name in found:
        ask(worker, "write", name)
    return sorted(found)


def test_made_anew_by_another_process(start: Starter, path: Path) -> None:
    first, second = start(SCRIPT, path), start(SCRIPT, path)
    many(first, "lost")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    assert ask(second, "write", "new") == ["new"]
    assert "replaced by another file" in refusal(first, "write", "x")
    assert ask(second, "write", "new2") == ["new", "new2"]
    ask(first, "close")
    assert ask(second, "write", "new3") == ["new", "new2", "new3"]
    second.kill()
    assert names(path) == ["new", "new2", "new3"]


def test_removed_without_its_log(start: Starter, path: Path) -> None:
    """As long as a process uses the log, a new file would be given that of the removed one."""
    first, second = start(SCRIPT, path), start(SCRIPT, path)
    many(first, "lost")
    path.unlink()
    assert f"process {first.pid}" in refusal(second, "write", "new")
    assert not path.exists()
    assert "removed or moved" in refusal(first, "write", "x")
    ask(first, "close")
    assert ask(second, "write", "new") == ["new"]
    second.kill()
    assert names(path) == ["new"]


@pytest.mark.parametrize("noticed", [True, False])
def test_replaced_by_a_backup(start: Starter, path: Path, noticed: bool) -> None:
    first, second, third = (start(SCRIPT, path) for _ in range(3))
    ask(first, "write", "old")
    ask(first, "close")
    backup = shutil.copy(path, f"{path}.backup")
    first.kill()
    written = many(second, "lost")
    Path(backup).rename(path)
    before = path.read_bytes()
    assert f"process {second.pid}" in refusal(third, "write", "x")
    if noticed:
        assert "replaced by another file" in refusal(second, "write", "x")
    ask(second, "close")
    assert path.read_bytes() == before
    assert ask(third, "write", "new") == ["new", "old"]
    ask(third, "close")
    assert names(path) == ["new", "old"]
    assert written


def test_restored_by_sqlite(start: Starter, path: Path) -> None:
    """The way that the documentation gives works while the file is in use."""
    first, second = start(SCRIPT, path), start(SCRIPT, path)
    ask(first, "write", "old")
    code = """import sqlite3, sys
source, target = map(sqlite3.connect, sys.argv[1:])
source.backup(target)
target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""
    for source, target in ((path, f"{path}.backup"), (f"{path}.backup", path)):
        subprocess.run([sys.executable, "-c", code, source, target], check=True, timeout=60)
        many(second, "lost") if target != path else None
    assert ask(first, "write", "new") == ["new", "old"]
    assert ask(second, "write", "newer") == ["new", "newer", "old"]


def test_a_fork_makes_no_new_file(start: Starter, path: Path) -> None:
    worker = start(SCRIPT, path)
    ask(worker, "write", "one")
    away = path.rename(f"{path}.moved")
    assert ask(worker, "fork", "two") == ["3"]
    assert "removed or moved" in refusal(worker, "write", "two")
    assert not path.exists()
    away.rename(path)
    assert ask(worker, "fork", "two") == ["0"]
    assert ask(worker, "write", "three") == ["one", "three", "two"]


@pytest.mark.parametrize(
    "command",
    [
        "look",
        pytest.param(
            "transfer",
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="Oríon ends at 3.11"),
        ),
    ],
)
def test_our_own_code_keeps_the_locks(start: Starter, path: Path, command: str) -> None:
    """Without them, another process that closes the file deletes the log under this one."""
    if command == "transfer":
        pytest.importorskip("orion")
    first, second = start(SCRIPT, path), start(SCRIPT, path)
    ask(first, "write", "one")
    assert ask(first, "locks") == ["file", "file-shm"]
    assert ask(first, command) == ["file", "file-shm"]
    ask(second, "write", "two")
    ask(second, "close")
    ask(first, "write", "three")
    first.kill()
    assert names(path) == ["one", "three", "two"]
