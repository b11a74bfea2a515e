"""Whether an experiment that Oríon passes is in the storage at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiostorage._core.ids import get_uid
from aiostorage.errors import MismatchedIds, MissingArguments

__all__ = ["never_stored"]


def never_stored(experiment: Any, uid: Any = None) -> bool:
    """Return whether an experiment has no id yet, so that nothing of it can be found.

    Raises
    ------
    MismatchedIds
        The experiment has no id, but `uid` was passed.
    MissingArguments
        It is not an experiment: it has no attribute for an id.
    """
    if experiment is None:
        return isinstance(uid, Mapping)  # `orion db upgrade` passes a config, which nothing has
    try:
        get_uid(experiment)
    except MissingArguments:
        if not (isinstance(experiment, Mapping) or _has_place_for_id(experiment)):
            raise
    else:
        return False
    if uid is not None:
        raise MismatchedIds(f"the experiment has no id, but uid={uid!r} was passed")
    return True


def _has_place_for_id(experiment: Any) -> bool:
    return hasattr(experiment, "id") or hasattr(experiment, "_id")
