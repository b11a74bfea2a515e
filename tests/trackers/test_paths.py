"""Files and directories of trackers that cannot be: an error at once, and nothing is waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aiostorage import ConfigurationError
from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers.comet.comet_archive import archive_home
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.mlflow.mlflow_database import _check_file


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mlflow+sqlite:///" + "a" * 300, "has 300 bytes"),
        ("mlflow+sqlite:///a\0b", "has a NUL"),
        ("comet+offline:///a%00b", "has a NUL"),
        ("comet+offline:///%ff", "not UTF-8"),
        ("comet+offline:///" + "a" * 300, "has 300 bytes"),
    ],
)
def test_paths_of_no_file(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tracker_from_url(url)


def test_no_file_of_mlflow(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for wrong in (tmp_path / "pipe", tmp_path / "loop", tmp_path, Path("/dev/zero")):
        with pytest.raises(TrackerUnavailable, match="MLflow cannot open"):
            _check_file(wrong)
    with pytest.raises(TrackerUnavailable, match="there is no directory"):
        _check_file(tmp_path / "none" / "x.db")


def test_a_new_file_of_mlflow_is_for_its_owner_alone(tmp_path: Path) -> None:
    link, file = tmp_path / "link.db", tmp_path / "mlflow.db"
    link.symlink_to(file)
    before = os.umask(0)
    try:
        _check_file(link)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrackerError, match=r"a\.zip is not an archive of Comet"):
        archive_home(tmp_path / "a.zip")
    assert archive_home(tmp_path / "b.zip") is None
