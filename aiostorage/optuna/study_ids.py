"""The ints by which Optuna knows studies and trials, and what they are in the store.

Optuna knows a trial by an int that no other trial of any study has. It is made of the study's and
of the trial's number, and the store has neither: a trial that is copied to another store, where its
experiment may get another ``_id``, needs no change.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

__all__ = ["MAX_STUDIES", "parts_of_trial_id", "study_id_of", "trial_id_of", "trial_uid_of"]

_NUMBER_BITS: Final = 28
"""Bits for the number of a trial. With those of a study it is an int that JavaScript knows, too."""

MAX_STUDIES: Final = 2**24
"""Studies have smaller ints than this; what has another ``_id`` gets one from here on."""

_LAST_NUMBER: Final = 2**_NUMBER_BITS - 1


def study_id_of(uid: Any) -> int:
    """Return the study id of an experiment.

    A study has its id as the ``_id`` of the experiment. Where a copy could not keep that, or the
    experiment is none of Optuna's, the id is made of the ``_id``.
    """
    if type(uid) is int and 0 <= uid < MAX_STUDIES:
        return uid
    digest = hashlib.sha256(repr(uid).encode("utf-8", "surrogatepass")).digest()
    return MAX_STUDIES + int.from_bytes(digest[:8]) % MAX_STUDIES


def trial_id_of(study_id: int, number: int) -> int:
    """Return the id of a trial.

    Raises
    ------
    OverflowError
        A study has no trial of so high a number.
    """
    if number > _LAST_NUMBER:
        raise OverflowError(f"a study has at most {_LAST_NUMBER + 1} trials")
    return study_id << _NUMBER_BITS | number


def parts_of_trial_id(trial_id: int) -> tuple[int, int]:
    """Return the study id and the number of a trial."""
    return trial_id >> _NUMBER_BITS, trial_id & _LAST_NUMBER


@lru_cache(maxsize=65536)
def trial_uid_of(number: int) -> str:
    """Return the ``id`` in the store of the trial with a number.

    An experiment has each id once. So each number exists once, and whoever inserts a trial has its
    number by the same write.
    """
    return hashlib.md5(f"optuna trial {number}".encode(), usedforsecurity=False).hexdigest()
