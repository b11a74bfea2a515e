"""A mirror without a connection: one archive for each trial, for ``comet upload``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from aiostorage._core.event_log import EventLog
from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers.comet.comet_archive import archive_home, last_metrics, write_archive
from aiostorage.trackers.comet.comet_contents import has_begun, new_problems, run_contents
from aiostorage.trackers.comet.keys import experiment_key, run_prefix, trial_key
from aiostorage.trackers.comet.package import import_comet
from aiostorage.trackers.comet.reading import is_users_metric
from aiostorage.trackers.protocol import TrackedExperiment, TrackedTrial

__all__ = ["CometArchives"]

events: Final = EventLog("tracker")

_SCRIPTS: Final = "scripts"
"""Where the scripts of trials leave their own archives, which have the same keys."""

_STALE_FILE_AGE: Final = 3600.0
"""Seconds after which no process writes to a partial file any more."""


class CometArchives:
    """A directory with an archive ``<key>.zip`` for each trial, always as the trial is now.

    Parameters
    ----------
    directory
        Is made if it is missing.
    workspace
        Where ``comet upload`` brings the runs; None for the one that the user's API key is for.
    project
        None for the name of the experiment.
    """

    name = "comet"
    max_concurrency = 2

    def __init__(self, directory: Path, workspace: str | None, project: str | None) -> None:
        self._directory = directory.absolute()
        self._workspace = workspace
        self._project = project
        self._known: set[str] = set()

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._directory)

    def open(self) -> None:
        """Import ``comet_ml`` and make the directory."""
        import_comet()
        with _file_errors():
            (self._directory / _SCRIPTS).mkdir(parents=True, exist_ok=True)
            for partial in self._directory.glob(".*.partial"):
                with suppress(FileNotFoundError):
                    if time.time() - partial.stat().st_mtime > _STALE_FILE_AGE:
                        partial.unlink()

    def close(self) -> None:
        """Do nothing: every archive is finished."""

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        """Return the prefix of the names of the archives; there is nothing to write."""
        return experiment_key(tracked.experiment)

    def send_trial(self, tracked: TrackedTrial) -> str | None:
        """Write the archive of a trial anew; one that was never reserved has none."""
        if not has_begun(tracked):
            return None
        key = trial_key(tracked.experiment.key or "", tracked.trial.id)
        contents = run_contents(tracked)
        for problem in new_problems(contents.problems, self._known):
            events.warning(
                "content_changed",
                "Comet, trial %(trial)s: %(reason)s",
                trial=tracked.trial.id,
                reason=problem,
            )
        project = self._project or tracked.experiment.experiment.name
        with _file_errors():
            write_archive(self._archive(key), contents, self._workspace, project)
        return key

    def delete_experiment(self, key: str) -> None:
        """Remove the archives of an experiment, but not those that scripts have left."""
        with _file_errors():
            for archive in self._directory.glob(f"{run_prefix(key)}*.zip"):
                archive.unlink(missing_ok=True)

    def delete_trial(self, key: str) -> None:
        """Remove the archive of a trial, but not those that its script has left."""
        with _file_errors():
            self._archive(key).unlink(missing_ok=True)

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        """Return the last values in the trial's archive and in those that its script has left.

        Raises
        ------
        TrackerError
            There is no archive of this trial, or one cannot be read.
        """
        scripts = self._directory / _SCRIPTS
        with _file_errors():
            paths = [
                *([path] if (path := self._archive(key)).exists() else []),
                *sorted(scripts.glob(f"{key}.zip")),
                *sorted(scripts.glob(f"{key}-*.zip")),
            ]
            if not paths:
                raise TrackerError(
                    f"{self._directory} has no archive {key}.zip, nor has its folder {_SCRIPTS}; "
                    "a script leaves one when its experiment ends"
                )
            metrics = last_metrics(iter(paths))
        return {name: value for name, value in metrics.items() if is_users_metric(name)}

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the variables with which ``comet_ml.start()`` writes an archive of the run."""
        workspace, project = archive_home(self._archive(key)) or (self._workspace, self._project)
        given = {"COMET_WORKSPACE": workspace, "COMET_PROJECT_NAME": project}
        return {
            "COMET_EXPERIMENT_KEY": key,
            "COMET_OFFLINE_DIRECTORY": str(self._directory / _SCRIPTS),
            "COMET_START_MODE": "get_or_create",
            "COMET_START_ONLINE": "false",
            **{name: value for name, value in given.items() if value},
        }

    def _archive(self, key: str) -> Path:
        return self._directory / f"{key}.zip"


@contextmanager
def _file_errors() -> Iterator[None]:
    """Turn what the file system says into an error that may pass, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise TrackerUnavailable(f"cannot write the archives of Comet: {error}") from error
