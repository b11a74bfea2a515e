"""Oríon 0.2.7 itself, from PyPI, on our storage type."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import Process, preloaded

DEADLINE = 100.0
"""Seconds that one of Oríon's processes may take; one that does nothing takes about three."""

OBJECTIVE = """#!/bin/sh
echo "$*" >> runs.log
printf '[{"name": "loss", "type": "objective", "value": %s}]' "$2" > "$ORION_RESULTS_PATH"
"""
"""What is optimised: a script that takes milliseconds, for importing Oríon takes seconds."""

if sys.version_info < (3, 12):
    with warnings.catch_warnings():  # what Oríon and its dependencies say while they are imported
        warnings.simplefilter("ignore")
        import orion.benchmark.benchmark_client
        import orion.benchmark.task
        import orion.client
        import orion.core.cli
        import orion.plotting.base
        import orion.serving.webapi  # noqa: F401

        from aiostorage.orion import configuration


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Oríon warn of what it does."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def its_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's configuration out, and close what a test leaves open."""
    for name in [name for name in os.environ if name.startswith("ORION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    for storage in configuration._shared.values():
        storage.close()
    configuration._shared.clear()


@pytest.fixture(params=["sqlite", "motor"])
def engine(request: pytest.FixtureRequest) -> str:
    """Name the engine below the storage that `url` is of; some tests take ``pymongo`` as well."""
    return str(request.param)


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty storage: in a file, on a replica set, on one MongoDB server.

    On a server, the tests of a module share a database, which is emptied.
    """
    if engine == "sqlite":
        return f"sqlite:///{tmp_path}/tune.db"
    if engine == "track":
        return f"track:///{tmp_path}/tune.json?objective=loss"
    kind = "mongodb_replica_set" if engine == "motor" else "mongodb_standalone"
    deployment = request.getfixturevalue(kind)
    url = str(deployment.url_for(request.getfixturevalue("mongodb_emptied_database")))
    return f"{url}{'&' if '?' in url else '?'}client={engine}"


@pytest.fixture
def configured(url: str) -> dict[str, Any]:
    """Give what stands below ``storage`` in Oríon's configuration."""
    return {"type": "aiostorage", "database": {"url": url}}


@pytest.fixture
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure Oríon by its environment, here and in processes that are started."""
    monkeypatch.setenv("ORION_STORAGE_TYPE", "aiostorage")
    monkeypatch.setenv("ORION_DB_ADDRESS", url)


@pytest.fixture
def objective(tmp_path: Path) -> Path:
    """Give a script that notes what it was run with."""
    script = tmp_path / "objective.sh"
    script.write_text(OBJECTIVE)
    script.chmod(0o755)
    return script


@pytest.fixture
def run_log(tmp_path: Path) -> Callable[[], list[str]]:
    """Return the runs of `objective`, as one line each."""
    return lambda: (tmp_path / "runs.log").read_text().splitlines()


LIBRARIES = (
    *("orion.core.cli", "orion.core.cli.hunt", "orion.client", "orion.algo.random"),
    *("orion.algo.gridsearch", "orion.algo.asha", "orion.algo.bohb", "orion.algo.dehb"),
    *("orion.algo.evolution_es", "orion.algo.hyperband", "orion.algo.mofa", "orion.algo.pbt"),
    *("orion.algo.tpe", "orion.storage.legacy", "orion.benchmark.benchmark_client"),
    *("orion.benchmark.task", "orion.serving.webapi", "orion.plotting.base"),
    *("gunicorn.app.base", "aiostorage.orion.storage_type"),
    *("aiostorage.drivers.sqlite", "aiostorage.drivers.mongodb"),
)
"""What Oríon's processes need not import themselves."""


class Processes:
    """Processes of this test, which do not outlive it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.started: list[Process] = []

    def start(self, code: str, *arguments: str) -> Process:
        """Start a Python that runs this code."""
        process = preloaded(("-W", "ignore"), *LIBRARIES).start(
            code,
            *arguments,
            directory=self._path,
            environment=os.environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def orion(self, *arguments: str) -> Process:
        """Start Oríon's command."""
        return self.start("from orion.core.cli import main; main()", *arguments)

    @staticmethod
    def finish(process: Process) -> str:
        """Wait for a process that succeeds; return what it said."""
        try:
            out, _ = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            pytest.fail(f"it hangs\n{out}")
        assert process.returncode == 0, out
        return out


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path)
    yield running
    for process in running.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
