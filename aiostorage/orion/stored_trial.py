"""Oríon's trials, made of those of a storage. Importing this imports Oríon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import orion.core.worker.trial as orion_trial

from aiostorage.orion.conversion import orion_trial_fields
from aiostorage.trial import Trial

__all__ = ["StoredTrial", "trials_for_orion"]

_CONTAINERS: Final = (list, dict, bytes)
"""What may have been of another type when Oríon computed the id."""


if TYPE_CHECKING:

    class OrionTrial:
        """Oríon's class, which has no types of its own."""

        hash_name: str
        id: str

        def __init__(self, **fields: Any) -> None: ...

else:
    OrionTrial = orion_trial.Trial


class StoredTrial(OrionTrial):
    """A trial of Oríon's whose id was computed from values that were stored in another form.

    Such as a tuple, which is a list in the storage. The trial keeps its id as long as its params
    are what was read.

    Parameters
    ----------
    stored_id
        The id.
    fields
        The arguments of Oríon's trial.
    """

    # without __slots__ of its own: `to_dict` reads those of the instance

    def __init__(self, stored_id: str, **fields: Any) -> None:
        super().__init__(**fields)
        self._of_values: str = super().hash_name
        self.stored_id: str = stored_id

    @property
    def hash_name(self) -> str:  # type: ignore[override]  # a property of Oríon's, too
        """The id."""
        name = super().hash_name
        return self.stored_id if name == self._of_values else name


def trials_for_orion(found: Trial | Sequence[Trial] | None) -> Any:
    """Return a trial or trials as Oríon's; None stays None."""
    if found is None:
        return None
    if isinstance(found, Trial):
        return _trial_for_orion(found)
    return [_trial_for_orion(trial) for trial in found]


def _trial_for_orion(trial: Trial) -> Any:
    fields = orion_trial_fields(trial)
    made = OrionTrial(**fields)
    if any(param.value.__class__ in _CONTAINERS for param in trial.param_list):
        uid = trial.id
        if made.id != uid:
            return StoredTrial(uid, **orion_trial_fields(trial))
    return made
