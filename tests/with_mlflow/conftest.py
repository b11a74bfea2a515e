"""One ``mlflow server`` for all tests here, also for those that run in parallel."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from tests.with_mlflow.server import ENVIRONMENT, MlflowServer

CI = os.environ.get("CI", "").lower() in ("1", "true")
NEEDED = ("mlflow", "flask", "sqlalchemy", "alembic")


@pytest.fixture(scope="session")
def mlflow() -> Any:
    """Give MLflow; in CI it must be there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        text = f"no {', '.join(missing)} here; install the dependency group mlflow"
        if CI:
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    os.environ.update(ENVIRONMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
        import mlflow.store.tracking.sqlalchemy_store
    return mlflow


class Shared:
    """The server, and the tests that use it now, in this process and in others."""

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory = directory
        self.server = MlflowServer(directory, owner)

    @contextmanager
    def locked(self, name: str, how: int) -> Iterator[None]:
        with (self.directory / name).open("w") as lock:
            fcntl.flock(lock, how)
            yield

    def join(self) -> None:
        """Start the server unless another process has."""
        with self.locked("users.lock", fcntl.LOCK_EX):
            if not self.server.answers():
                self.server.start()
            assert self.server.url
            with (self.directory / "users").open("a") as users:
                users.write(f"{os.getpid()}\n")

    def leave(self) -> None:
        """End the server unless another process uses it."""
        with self.locked("users.lock", fcntl.LOCK_EX):
            note = self.directory / "users"
            users = [user for user in note.read_text().split() if int(user) != os.getpid()]
            note.write_text("".join(f"{user}\n" for user in users))
            if not users:
                self.server.kill()


@pytest.fixture(scope="session")
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow: ModuleType
) -> Iterator[Shared]:
    parallel = hasattr(request.config, "workerinput")
    base = tmp_path_factory.getbasetemp()
    kept = os.environ.get("AIOSTORAGE_TEST_MLFLOW")
    directory = Path(kept) if kept else (base.parent if parallel else base) / "mlflow"
    directory.mkdir(exist_ok=True)
    shared = Shared(directory, 1 if kept else os.getppid() if parallel else os.getpid())
    shared.join()
    yield shared
    if not kept:
        shared.leave()


@pytest.fixture
def mlflow_url(shared: Shared) -> Iterator[str]:
    """Give the URL of the server, which runs as long as the test does."""
    with shared.locked("running.lock", fcntl.LOCK_SH):
        yield shared.server.url


@pytest.fixture
def mortal_server(shared: Shared) -> Iterator[MlflowServer]:
    """Give the server to a test that kills it; no other test uses it then."""
    with shared.locked("running.lock", fcntl.LOCK_EX):
        yield shared.server
        if not shared.server.answers():
            shared.server.start()


@pytest.fixture
def client(mlflow: ModuleType, mlflow_url: str) -> Any:
    """Give MLflow's own client."""
    return mlflow.MlflowClient(mlflow_url)


@pytest.fixture
def name() -> str:
    """Give the name of an experiment that the server has not had yet."""
    return f"tune-{uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def new_database(mlflow: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database of MLflow without experiments; it takes seconds to make one."""
    store = sys.modules["mlflow.store.tracking.sqlalchemy_store"]
    directory = tmp_path_factory.mktemp("new")
    made = store.SqlAlchemyStore(f"sqlite:///{directory}/new.db", str(directory / "artifacts"))
    made.engine.dispose()
    return directory / "new.db"


@pytest.fixture
def database(new_database: Path, tmp_path: Path) -> Path:
    """Give a file with a database of MLflow for one test."""
    return Path(shutil.copy(new_database, tmp_path / "mlflow.db"))
