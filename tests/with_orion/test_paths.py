"""The directory of a SQLite file, which is made as PickledDB makes that of its file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from aiostorage import ConfigurationError
from aiostorage.orion import AioStorage, AioStorageDB

from .stored_experiment import MinimalExperiment


@pytest.mark.parametrize("where", ["{}/not/there/tune.db", "not/there/tune.db"])
def test_the_directory_is_made(tmp_path: Path, where: str) -> None:
    storage = AioStorage({"url": f"sqlite:///{where.format(tmp_path)}?synchronous=NORMAL"})
    MinimalExperiment(storage)
    assert (tmp_path / "not" / "there" / "tune.db").exists()


def test_of_a_database(tmp_path: Path) -> None:
    database = AioStorageDB(f"sqlite:///{tmp_path}/with%20space/tune.db", "orion", 27017)
    assert database.is_connected
    assert (tmp_path / "with space" / "tune.db").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [("file/tune.db", "file is not a directory"), ("file/sub/tune.db", "file/sub does not exist")],
)
def test_one_that_cannot_be_made(tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "file").touch()
    storage = AioStorage({"url": f"sqlite:///{tmp_path}/{where}"})
    with pytest.raises(ConfigurationError, match=message):
        storage.fetch_experiments({})


def test_other_engines_have_none(tmp_path: Path) -> None:
    assert AioStorage({"url": "memory://"}).fetch_experiments({}) == []
    assert list(tmp_path.iterdir()) == []
