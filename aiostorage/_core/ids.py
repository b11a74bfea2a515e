"""Ids of records, taken from objects or made anew, and tokens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from aiostorage._core.kinds import KEY, is_key, shown
from aiostorage.errors import InvalidArgument, MismatchedIds, MissingArguments

__all__ = ["experiment_uid", "get_trial_uid_and_exp", "get_uid", "new_id", "new_token"]

_PLAIN: Final = frozenset((str, int))

_HOST = socket.gethostname()
_counter = count(int.from_bytes(os.urandom(3), "big"))


def new_id() -> str:
    """Return a new ``_id``: 24 hex digits that sort by the second in which they were made.

    Made as MongoDB makes its ObjectIds (seconds, a random part, a counter), but with a new random
    part each time: two processes after a fork cannot make the same id.
    """
    return f"{int(time.time()):08x}{os.urandom(5).hex()}{next(_counter) & 0xFFFFFF:06x}"


def new_token() -> str:
    """Return a new token for a reservation or a lock: host, process and a random part."""
    return f"{_HOST}:{os.getpid()}:{os.urandom(8).hex()}"


def _id_of(item: Any) -> Any:
    if isinstance(item, Mapping):
        uid = item.get("_id")
    else:
        uid = getattr(item, "id", None)
        if uid is None:
            uid = getattr(item, "_id", None)
    return uid


def get_uid(item: Any = None, uid: Any = None, force_uid: bool = True) -> Any:
    """Return the uid of `item`, or `uid` itself.

    Parameters
    ----------
    item
        Anything with ``.id`` or ``._id``, or a mapping with ``_id``.
    uid
        The id itself.
    force_uid
        Whether one of them must be passed.

    Raises
    ------
    MissingArguments
        Neither was passed and `force_uid` is true, or `item` has no id.
    MismatchedIds
        Both were passed and do not agree.
    InvalidArgument
        The uid is neither a str nor an int of 64 bits.
    """
    if item is None:
        if uid is None and force_uid:
            raise MissingArguments("pass either the object or its uid")
        return uid if uid is None or uid.__class__ in _PLAIN else _plain(uid)
    found = _id_of(item)
    if found is None:
        raise MissingArguments(
            f"{type(item).__name__} {shown(item)} has neither `.id` nor `._id` (nor, as a mapping, "
            "an `_id`); store it first"
        )
    if uid is not None and found != uid:
        raise MismatchedIds(f"the object has the id {found!r}, but uid={shown(uid)} was passed")
    return found if found.__class__ in _PLAIN else _plain(found)


def _plain(uid: Any) -> str | int:
    """Return an id, such as an int of numpy's, as engines know it."""
    if not is_key(uid):
        raise InvalidArgument(f"a uid is {KEY.wants}, not {shown(uid)}", argument="uid")
    return str.__str__(uid) if isinstance(uid, str) else int(uid)


def experiment_uid(experiment: Any) -> Any:
    """Return the uid of an experiment that has to be given.

    Raises
    ------
    MissingArguments
        It is None or has no id.
    """
    return get_uid(experiment, None)


def get_trial_uid_and_exp(
    trial: Any = None, uid: str | None = None, experiment_uid: Any = None
) -> tuple[Any, Any]:
    """Return the uid of a trial and of its experiment, from the trial or from the uids.

    The uid of a trial is its `id`, the hash, while that of an experiment is its ``_id``.

    Raises
    ------
    MissingArguments
        Neither `trial` nor both uids were passed.
    MismatchedIds
        `trial` and a uid were passed and do not agree.
    InvalidArgument
        `trial` is not a trial, or a uid is neither a str nor an int of 64 bits.
    """
    if trial is None:
        if experiment_uid is None or uid is None:
            raise MissingArguments("pass either the trial or both its uid and its experiment_uid")
        return get_uid(uid=uid), get_uid(uid=experiment_uid)
    if not hasattr(trial, "experiment"):
        raise InvalidArgument(f"trial is a Trial, not {shown(trial)}", argument="trial")
    if experiment_uid is not None and trial.experiment != experiment_uid:
        raise MismatchedIds(
            f"the trial belongs to experiment {trial.experiment!r}, "
            f"but experiment_uid={shown(experiment_uid)} was passed"
        )
    if uid is not None and uid != trial.id and uid == getattr(trial, "id_override", None):
        raise MismatchedIds(
            f"uid={uid!r} is the `_id` of the trial; its uid is its `id`, {trial.id!r}"
        )
    return get_uid(trial, uid), trial.experiment
