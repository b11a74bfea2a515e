"""The ids of experiments, and the references by which an experiment names its ancestors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiostorage.operations import Document

__all__ = ["parent_of", "renumber", "replace_ids"]


def parent_of(config: Mapping[str, Any]) -> Any:
    """Return the ``_id`` of the experiment that this one was branched from, None for a root."""
    return (config.get("refers") or {}).get("parent_id")


def replace_ids(config: Document, uid: Any, ids: Mapping[Any, Any]) -> Document:
    """Return a copy of an experiment with a new ``_id`` and new ids of its ancestors.

    An ancestor that `ids` lacks was deleted: without a parent, the experiment is the root of its
    tree.

    Parameters
    ----------
    config
        The document of the experiment.
    uid
        Its new ``_id``.
    ids
        The new ids by the old ones.
    """
    refers = config.get("refers")
    if isinstance(refers, dict):
        refers = dict(refers)
        for name, default in (("parent_id", None), ("root_id", uid)):
            if refers.get(name) is not None:
                refers[name] = ids.get(refers[name], default)
        config = {**config, "refers": refers}
    return {**config, "_id": uid}


def renumber(uids: Sequence[Any]) -> dict[Any, int]:
    """Return a positive int for each id.

    An id that is a positive int stays; the others continue after the largest.
    """
    numbers: dict[Any, int] = {uid: uid for uid in uids if isinstance(uid, int) and uid > 0}
    last = max(numbers.values(), default=0)
    for uid in uids:
        if uid not in numbers:
            last += 1
            numbers[uid] = last
    return numbers
