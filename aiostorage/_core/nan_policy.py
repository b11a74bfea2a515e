"""What becomes of a trial whose objective is NaN when it is completed."""

from __future__ import annotations

from typing import Final

from aiostorage._core.event_log import EventLog
from aiostorage._core.kinds import choice as one_of
from aiostorage._core.kinds import shown
from aiostorage.errors import ConfigurationError, InvalidResult
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["NanPolicy"]

events: Final = EventLog("records")

_CHOICES: Final = ("completed", "broken", "raise")
NAN: Final = one_of(*_CHOICES)


class NanPolicy:
    """The option ``nan`` of a storage.

    Parameters
    ----------
    choice
        The status that such a trial gets, ``completed`` or ``broken``; or ``raise``. None is
        ``completed``, with a warning for each experiment.

    Raises
    ------
    ConfigurationError
        It is none of these.
    """

    def __init__(self, choice: str | None) -> None:
        if choice is not None and not NAN.accepts(choice):
            raise ConfigurationError(f"nan is one of {', '.join(_CHOICES)}, not {shown(choice)}")
        self._choice = choice
        self._warned: set[object] = set()

    def status_of(self, trial: Trial) -> str:
        """Return the status that a trial gets whose objective is NaN.

        Raises
        ------
        InvalidResult
            The choice is ``raise``.
        """
        if self._choice == "raise":
            raise InvalidResult(f"the objective of trial {trial.id} is NaN; nothing was written")
        if self._choice == "broken":
            return TrialStatus.BROKEN.value
        if self._choice is None and trial.experiment not in self._warned:
            self._warned.add(trial.experiment)
            events.warning(
                "nan_completed",
                "the objective of trial %(trial)s of experiment %(experiment)r is NaN, and the "
                "trial is completed all the same: leave it out when you look for the best one. To "
                'end such trials as broken, open the storage with nan="broken"; with '
                'nan="completed" there is no warning',
                trial=trial.id,
                experiment=trial.experiment,
            )
        return TrialStatus.COMPLETED.value
