"""Archives of runs for ``comet upload``: written whole or not at all, and read."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiostorage.errors import TrackerError
from aiostorage.trackers.comet.comet_contents import RunContents
from aiostorage.trackers.comet.messages import archive_messages
from aiostorage.trackers.comet.package import import_comet

__all__ = ["archive_home", "last_metrics", "write_archive"]

_DESCRIPTION: Final = "experiment.json"
_MESSAGES: Final = "messages.json"

_MAX_LINE: Final = 16 * 2**20
"""Bytes of one message in an archive, at most: a small archive can hold much more."""

_NO_ARCHIVE: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),  # the last for one with a password
    *(ValueError, KeyError, TypeError, AttributeError),
)
"""What a file raises that is not an archive, or a damaged one."""


def write_archive(path: Path, contents: RunContents, workspace: str | None, project: str) -> None:
    """Write the archive of a run, whose key is the file's name, in the place of an older one.

    The same contents make the same file. A kill at any moment leaves the old or the new one, and
    perhaps a hidden file that ends in ``.partial``.
    """
    lines = "".join(f"{json.dumps(message)}\n" for message in archive_messages(contents))
    description = _description(path.stem, contents, workspace, project)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem[-8:]}-", suffix=".partial"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(_member(_DESCRIPTION), description, zipfile.ZIP_DEFLATED)
                archive.writestr(_member(_MESSAGES), lines, zipfile.ZIP_DEFLATED)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise
    _sync_directory(path.parent)


def archive_home(path: Path) -> tuple[str | None, str | None] | None:
    """Return the workspace and the project of an archive of ours; None if it is not there."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_DESCRIPTION).file_size > _MAX_LINE:
                raise ValueError("its description is too long")
            description = json.loads(archive.read(_DESCRIPTION))
        return description["workspace"], description["project_name"]
    except FileNotFoundError:
        return None
    except _NO_ARCHIVE as error:
        raise TrackerError(f"{path} is not an archive of Comet: {error}") from error


def last_metrics(paths: Iterator[Path]) -> Mapping[str, float]:
    """Return the last value of each metric in some archives, by the times of their messages.

    Raises
    ------
    TrackerError
        One is not an archive.
    """
    found: dict[str, tuple[int, float]] = {}
    for path in paths:
        for time, name, value in _metrics(path):
            if name not in found or time >= found[name][0]:
                found[name] = time, value
    return {name: value for name, (_, value) in found.items()}


def _metrics(path: Path) -> Iterator[tuple[int, str, float]]:
    try:
        with zipfile.ZipFile(path) as archive:
            # while its script runs, an archive is there, but empty
            if _MESSAGES not in archive.namelist():
                return
            with archive.open(_MESSAGES) as lines:
                while line := lines.readline(_MAX_LINE):
                    if len(line) == _MAX_LINE:
                        raise ValueError("it has a message that is too long")
                    payload = json.loads(line)["payload"]
                    metric = payload.get("metric")
                    with suppress(TypeError, ValueError):
                        if metric:
                            value = float(metric["metricValue"])
                            yield payload["local_timestamp"], metric["metricName"], value
    except _NO_ARCHIVE as error:
        raise TrackerError(f"{path} is not an archive of Comet: {error}") from error


def _description(key: str, contents: RunContents, workspace: str | None, project: str) -> str:
    """Return the content of ``experiment.json``, made by ``comet_ml``.

    ``get_or_create`` lets ``comet upload`` bring a newer archive of a run that it has uploaded.
    """
    begin = contents.start or contents.timestamp
    with tempfile.TemporaryDirectory() as directory:
        import_comet("comet_ml.offline_utils").write_experiment_meta_file(
            tempdir=directory,
            experiment_key=key,
            workspace=workspace,
            project_name=project,
            start_time=begin,
            stop_time=max(begin, contents.end or contents.timestamp),
            tags=list(contents.tags),
            resume_strategy="get_or_create",
            customer_error_reported=contents.state == "crashed",
            customer_error_message=f"the trial is {contents.tags[-1]}"
            if contents.state == "crashed"
            else None,
            user_provided_experiment_key=True,
            comet_start_sourced=True,
        )
        return (Path(directory) / _DESCRIPTION).read_text(encoding="utf-8")


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member without a time of its own."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o600 << 16
    return member


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
