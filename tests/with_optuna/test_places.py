"""What is said of places that are not storages of Optuna's, or none that can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest

from aiostorage.errors import (
    AioStorageError,
    ConfigurationError,
    NotADatabaseError,
    SchemaVersionError,
)
from aiostorage.optuna import OptunaStorage
from aiostorage.optuna.optuna_places import open_place, place_name
from tests.with_optuna.optuna_stores import opened_rdb

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def ours(path: Path) -> None:
    storage = OptunaStorage(f"sqlite:///{path}")
    storage.get_all_studies()
    storage.close()


def without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (a)")


def of_another_version(path: Path) -> None:
    storage = opened_rdb(path)
    optuna.create_study(storage=storage)
    storage.engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
        connection.commit()


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


PLACES: dict[str, tuple[Callable[[Path], object], bool, type[AioStorageError], str]] = {
    "nothing": (lambda _: None, False, ConfigurationError, "there is no "),
    "a store of ours": (ours, True, NotADatabaseError, "a store of aiostorage"),
    "a database of others": (without_tables, False, NotADatabaseError, "no studies of Optuna"),
    "an old database": (of_another_version, False, SchemaVersionError, "version"),
    "a text": (text("hello\n"), False, NotADatabaseError, "not a journal of Optuna"),
    "a journal that is cut off": (text("{}\n{"), True, NotADatabaseError, "within a line"),
    "a damaged journal": (text('{"op_code": \n{}\n'), False, NotADatabaseError, "cannot be read"),
}


@pytest.mark.parametrize("name", PLACES)
def test_files_that_are_no_storages_of_optuna(tmp_path: Path, name: str) -> None:
    make, writing, error, said = PLACES[name]
    path = tmp_path / "place"
    make(path)
    content = path.read_bytes() if path.exists() else None
    with pytest.raises(error, match=said):
        open_place(path, writing=writing)
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.parametrize("writing", [False, True])
def test_a_url_of_a_file_that_is_not_there(tmp_path: Path, writing: bool) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    if writing:
        storage = open_place(url, writing=True)
        assert storage.get_all_studies() == []
        assert open_place(storage) is storage
        assert place_name(storage) == "RDBStorage"
    else:
        with pytest.raises(ConfigurationError, match="there is no "):
            open_place(url)
    assert (tmp_path / "new.db").exists() == writing


@pytest.mark.parametrize(
    ("url", "said", "package"),
    [
        ("nonsense://user:secret@host/db", "not a database URL", None),
        ("postgresql+psycopg2://user:secret@host/db", "needs a package", "psycopg2"),
        ("redis://user:secret@host", "needs a package", "redis"),
    ],
)
def test_urls_that_cannot_be_used_show_no_password(
    url: str, said: str, package: str | None
) -> None:
    if package is not None and find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_place(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(AioStorageError, match="unable to open"):
        open_place(f"sqlite:///{tmp_path}/nowhere/new.db", writing=True)
