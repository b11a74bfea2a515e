"""The pytest plugin, in processes of pytest as a user has them, with both async plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from aiostorage import ConfigurationError, Trial
from aiostorage.testing import MongodError, MongodMissing, StorageState
from aiostorage.testing.mongodb.deployments import unavailable

ROOT = Path(__file__).parents[2]

QUICKER = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")

ANYIO = """
import pytest
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def experiment(aiostorage):
    yield await aiostorage.create_experiment({"name": "tune"})
    assert await aiostorage.fetch_experiments({})  # it is open until the end
"""

ASYNCIO = """
import pytest
import pytest_asyncio
pytestmark = pytest.mark.asyncio

@pytest_asyncio.fixture
async def experiment(aiostorage):
    yield await aiostorage.create_experiment({"name": "tune"})
    assert await aiostorage.fetch_experiments({})
"""

AUTO = """
import pytest

@pytest.fixture
async def experiment(aiostorage):
    yield await aiostorage.create_experiment({"name": "tune"})
    assert await aiostorage.fetch_experiments({})
"""

TESTS = """
import asyncio
import pytest

async def test_storages(aiostorage, aiostorage_sqlite, experiment, tmp_path):
    assert aiostorage.location == "memory://"
    assert aiostorage_sqlite.location == str(tmp_path / "aiostorage.db")
    assert (tmp_path / "aiostorage.db").exists()  # it is open
    [found] = await aiostorage.fetch_experiments({})
    assert found["_id"] == experiment.id
    assert await aiostorage_sqlite.fetch_experiments({}) == []

@pytest.mark.parametrize("x", range(4))
async def test_state(storage_state, aiostorage_sqlite, x):
    trials = [{"params": {"x": x}}, {"params": {"x": 9}, "status": "completed", "results": 1.0}]
    async with storage_state(experiments=["tune"], trials=trials) as state:
        assert await state.storage.count_completed_trials(state.experiment("tune")) == 1
    filled = await storage_state(["tune"], trials, storage=aiostorage_sqlite)
    reserved = await aiostorage_sqlite.reserve_trial(filled.experiments[0])
    assert reserved.params == {"x": x}
"""

IN_A_PLAIN_TEST = """
import asyncio

def test_plain(aiostorage_sqlite):
    async def use():
        async with aiostorage_sqlite:
            assert await aiostorage_sqlite.fetch_experiments({}) == []
    asyncio.run(use())
"""

ON_MONGODB = """
async def test_mongodb(aiostorage_mongodb):
    assert "aiostorage_test_" in aiostorage_mongodb.location
    assert await aiostorage_mongodb.fetch_experiments({}) == []
    await aiostorage_mongodb.create_experiment({"name": "tune"})
"""

ON_TRIO = """
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio(aiostorage):
    raise AssertionError("it cannot work")
"""

WITHOUT = """
import sys

def test_nothing_is_imported(request):
    assert request.config.pluginmanager.hasplugin("aiostorage")
    assert not [name for name in sys.modules if name.partition(".")[0] == "aiostorage"]
"""


def pytest_of_users(
    folder: Path, code: str, *arguments: str, env: dict[str, str] | None = None
) -> str:
    """Run pytest where the package is installed, as far as entry points tell; return its words."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = folder / "installed" / "users_aiostorage-1.dist-info"
    metadata.mkdir(parents=True)
    lines = [f"{name} = {value}" for name, value in points["pytest11"].items()]
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: users-aiostorage\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_theirs.py").write_text(code)
    paths = [str(metadata.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error", *QUICKER, *arguments],
        cwd=tests,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


def test_with_anyio_in_parallel(tmp_path: Path, mongodb_url: str) -> None:
    code = ANYIO + TESTS + IN_A_PLAIN_TEST + ON_MONGODB + ON_TRIO
    here = {"AIOSTORAGE_TEST_MONGODB": mongodb_url}
    said = pytest_of_users(tmp_path, code, "-p", "no:asyncio", "-n", "2", "-rs", env=here)
    assert "7 passed, 1 skipped" in said, said
    assert "a storage needs asyncio" in said


@pytest.mark.skipif(find_spec("pytest_asyncio") is None, reason="needs pytest-asyncio")
@pytest.mark.parametrize(("head", "mode"), [(ASYNCIO, "strict"), (AUTO, "auto")])
def test_with_pytest_asyncio(head: str, mode: str, tmp_path: Path) -> None:
    scope = "asyncio_default_fixture_loop_scope=function"  # unset, it warns
    code = head + TESTS + (IN_A_PLAIN_TEST if mode == "auto" else "")
    said = pytest_of_users(tmp_path, code, f"--asyncio-mode={mode}", "-o", scope)
    assert f"{6 if mode == 'auto' else 5} passed" in said, said


def test_whoever_does_not_use_it_does_not_load_it(tmp_path: Path) -> None:
    said = pytest_of_users(tmp_path, WITHOUT, "-p", "no:asyncio")
    assert "1 passed" in said, said


def test_a_missing_mongodb_is_skipped_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="AIOSTORAGE_TEST_MONGODB"):
        unavailable(MongodMissing("no mongod here"))
    with pytest.raises(pytest.fail.Exception, match="it does not start"):
        unavailable(MongodError("it does not start"))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no mongod here"):
        unavailable(MongodMissing("no mongod here"))


@pytest.mark.anyio
async def test_a_state() -> None:
    trials = [
        {"experiment": "b", "params": {"x": 1}, "status": "reserved"},
        {"experiment": "a", "params": {"x": 2}, "status": "broken"},
    ]
    async with StorageState([{"name": "a", "version": 2}, "b"], trials) as state:
        reserved = state.trials[0]
        assert reserved.experiment == state.experiment("b").id
        assert await state.storage.fetch_lost_trials(state.experiment("b")) == []
        await state.storage.complete_trial(reserved, 1.0)
        [stored] = await state.storage.fetch_trials(state.experiment("a", 2)) or []
        assert stored.status == "broken"
        assert stored.end_time is not None
        with pytest.raises(KeyError):
            state.experiment("c")
        for one in ({"params": {"x": 3}}, {"experiment": "c", "params": {"x": 3}}):
            with pytest.raises(ConfigurationError, match=r"trials\[0\] needs"):
                await StorageState(trials=[one], storage=state.storage)
    passed = Trial(experiment="elsewhere", params={"x": 1})
    assert (await StorageState(["a"], [passed])).trials[0].experiment == "elsewhere"
