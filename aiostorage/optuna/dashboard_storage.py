"""What optuna-dashboard reads: the studies of a store, and its other experiments as studies."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` wants; it has no public name
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.storage import Storage
from aiostorage.optuna.foreign_studies import ForeignStudies
from aiostorage.optuna.storage import OptunaStorage
from aiostorage.optuna.study_ids import parts_of_trial_id

__all__ = ["DashboardStorage", "direction_named"]


def direction_named(name: str) -> StudyDirection:
    """Return the direction that has a name, ``minimize`` or ``maximize``."""
    return StudyDirection[name.upper()]


class DashboardStorage(OptunaStorage):
    """The storage of `OptunaStorage`, in which all other experiments are studies, too.

    Those can only be read: what writes raises KeyError for them, as for a study that is not there.

    Parameters
    ----------
    storage
        The store, not opened.
    direction
        In which direction the objectives of experiments that are not studies are better.
    """

    def __init__(
        self, storage: Storage, direction: StudyDirection = StudyDirection.MINIMIZE
    ) -> None:
        super().__init__(storage)
        self._foreign = ForeignStudies(storage, direction)

    def _experiment(self, study_id: int) -> FrozenStudy:
        return self._storage._portal.call(self._foreign.study, study_id)  # noqa: SLF001  as above

    def is_foreign(self, study_id: int) -> bool:
        """Return whether this is the id of an experiment that is not a study."""
        try:
            super().get_study_name_from_id(study_id)
        except KeyError:
            try:
                self._experiment(study_id)
            except KeyError:
                return False
            return True
        return False

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, and then all other experiments."""
        return super().get_all_studies() + self._storage._portal.call(self._foreign.all)  # noqa: SLF001  as above

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study."""
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return study._study_id  # noqa: SLF001  it has no public name
        raise KeyError(f"there is no study named {study_name!r}")

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study."""
        try:
            return super().get_study_name_from_id(study_id)
        except KeyError:
            return self._experiment(study_id).study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study."""
        try:
            return super().get_study_directions(study_id)
        except KeyError:
            return self._experiment(study_id).directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user's attributes of a study."""
        try:
            return super().get_study_user_attrs(study_id)
        except KeyError:
            return self._experiment(study_id).user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes of a study that belong to Optuna."""
        try:
            return super().get_study_system_attrs(study_id)
        except KeyError:
            return self._experiment(study_id).system_attrs

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study, by number."""
        try:
            return super().get_all_trials(study_id, deepcopy, states)
        except KeyError:  # those of another experiment are made anew each time
            found = self._storage._portal.call(self._foreign.trials, study_id)  # noqa: SLF001  as above
            return [trial for trial in found if states is None or trial.state in states]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        try:
            return super().get_trial(trial_id)
        except KeyError:
            study_id, number = parts_of_trial_id(trial_id)
            for trial in self.get_all_trials(study_id, deepcopy=False):
                if trial.number == number:
                    return trial
            raise

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the complete trial with the best value, the first of several."""
        try:
            return super().get_best_trial(study_id)
        except KeyError:
            trials = self.get_all_trials(study_id, False, (TrialState.COMPLETE,))
            maximize = self.get_study_directions(study_id)[0] == StudyDirection.MAXIMIZE
            if not trials:
                raise ValueError("No trials are completed yet.") from None
            sign = -1 if maximize else 1
            return min(trials, key=lambda trial: sign * trial.values[0])
