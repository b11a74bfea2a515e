"""What the pytest plugin does for tests of users, and what our own tests do about signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

THEIRS = """
import sniffio  # it comes with Trio
import pytest

@pytest.mark.anyio
async def test_it(aiostorage_memory):
    assert sniffio.current_async_library() == "asyncio"
    await aiostorage_memory.create_experiment({"name": "tune"})
"""

IGNORING = """
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
import tests.conftest
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
show = "import signal; print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT))"
subprocess.run([sys.executable, "-c", show], check=True)
signal.raise_signal(signal.SIGHUP)  # this process goes on
"""


@pytest.mark.skipif(find_spec("trio") is None, reason="needs Trio")
def test_tests_of_users_run_on_asyncio(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aiostorage.testing.plugin"]\n')
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_children_of_a_background_job_hear_signals() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IGNORING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert str(signal.SIG_DFL) in done.stdout
    assert "default_int_handler" in done.stdout
