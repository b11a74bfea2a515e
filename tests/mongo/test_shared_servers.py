"""Workers of a parallel run share their MongoDB servers, which end with the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from aiostorage.testing.mongodb.shared_servers import ServerLifeline, SharedServers
from tests.processes.support import starter

TESTS = """
import os, pathlib, signal, time

import pytest
from pymongo import MongoClient

notes = pathlib.Path(os.environ["NOTES"])


@pytest.mark.parametrize("number", range(4))
def test_it(number, mongodb_standalone, mongodb_database, worker_id):
    with MongoClient(mongodb_standalone.url) as client:
        client[mongodb_database]["things"].insert_one({})
    notes.joinpath(f"{number}").write_text(f"{worker_id} {mongodb_standalone.url}")
    deadline = time.monotonic() + 60
    while len(list(notes.glob("[0-9]"))) < 2:  # until two workers are at it
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        notes.joinpath("killed").touch(exist_ok=False)  # one of them, and once
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def answers(url: str) -> bool:
    host, _, port = urlsplit(url).netloc.rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def gone_in_time(url: str) -> bool:
    end = time.monotonic() + 20
    while answers(url) and time.monotonic() < end:
        time.sleep(0.05)
    return not answers(url)


def test_workers_share_one_server(tmp_path: Path) -> None:
    """They go on with it when the worker that may have started it is killed."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['aiostorage.testing.plugin']\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    # plug-ins that it does not need take longer to import than it takes itself
    environment = {**os.environ, "NOTES": str(notes), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in ("AIOSTORAGE_TEST_MONGODB", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-n", "2"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'base'}", "--rootdir", str(tmp_path), "."],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=False,
    )
    told = dict(note.read_text().split() for note in notes.glob("[0-9]"))
    assert len(told) >= 2, done.stdout  # workers
    assert len(set(told.values())) == 1
    assert "1 failed, 3 passed" in done.stdout
    assert gone_in_time(next(iter(told.values())))
    assert list((tmp_path / "base" / "mongodb").glob("*/data")) == []


MAIN = """
import os, sys, time
from pathlib import Path
from aiostorage.testing.mongodb.shared_servers import ServerLifeline, SharedServers

lifeline = ServerLifeline(Path(sys.argv[1]))
if os.fork() == 0:  # the worker, which outlives the main process
    os.close(lifeline._held)
    print(SharedServers(Path(sys.argv[1])).url("standalone"), flush=True)
time.sleep(60)
"""


def test_servers_end_when_the_main_process_is_killed(tmp_path: Path) -> None:
    with starter(tmp_path) as start:
        main = start("-c", MAIN, tmp_path / "servers")
        url = main.line()
        assert url is not None, main.stderr
        assert answers(url)
        os.kill(main.pid, signal.SIGKILL)
        assert gone_in_time(url)


def test_a_second_worker_gets_what_the_first_has_started(tmp_path: Path) -> None:
    lifeline = ServerLifeline(tmp_path / "servers")
    try:
        first, second = (SharedServers(tmp_path / "servers") for _ in range(2))
        url = first.url("standalone")
        assert second.url("standalone") == url
        assert answers(url)
    finally:
        lifeline.cut()
    assert gone_in_time(url)
    left = {path.name for path in (tmp_path / "servers" / "standalone").iterdir()}
    assert left == {"log", "url"}
