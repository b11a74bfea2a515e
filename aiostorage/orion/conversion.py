"""What another store of Oríon's holds, made ours: sorted, checked, and compared with what is here.

Nothing here reads or writes a store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiostorage._core.documents import document_of
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage.errors import DuplicateKeyError, EncodingError
from aiostorage.operations import Document
from aiostorage.trial import Trial

__all__ = [
    "Study",
    "benchmarks_of",
    "differing_field",
    "differing_trial",
    "listed",
    "naive",
    "renumbered",
    "same_benchmark",
    "studies_of",
    "with_references",
]

_FINAL: Final = ("completed", "broken")
_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values are the same for Oríon and for us."""
_TICK: Final = timedelta(milliseconds=1)
"""The coarsest clock among the engines."""


def listed(value: Any) -> Any:
    """Answer a copy with lists for tuples, which Oríon's MongoDB makes of them as well."""
    if value.__class__ in _ATOMS:  # nearly all are, and Oríon asks for all trials all the time
        return value
    if isinstance(value, Mapping):
        return {key: listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [listed(item) for item in value]
    return value


def naive(value: Any) -> Any:
    """Answer a copy with naive UTC for aware times, as Oríon expects them."""
    if value.__class__ in _ATOMS:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive(item) for key, item in value.items()}
    if isinstance(value, list):
        return [naive(item) for item in value]
    return value


@dataclass(slots=True)
class Study:
    """An experiment of the other store, with all that belongs to it.

    Parameters
    ----------
    uid
        Its ``_id`` there.
    config
        Its document, as it may be stored here.
    lock
        The record of its algorithm as it stands there; empty if there is none.
    trials
        Its trials by their ids, as they may be stored here.
    """

    uid: Any
    config: Document
    lock: Document
    trials: dict[str, Document] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, int]:
        """What names it in any store."""
        return self.config["name"], self.config["version"]

    @property
    def title(self) -> str:
        """How an error calls it."""
        return f"experiment {self.config['name']!r} v{self.config['version']}"

    @property
    def parent(self) -> Any:
        """The experiment there that it was branched from."""
        return _parent(self.config)


def studies_of(documents: Mapping[str, Iterable[Document]]) -> tuple[list[Study], int]:
    """Sort documents by experiment, parents before what was branched from them.

    What older versions of Oríon wrote becomes what this one writes: ``version`` is 1 if it is
    missing, ``algorithms`` is called ``algorithm``, and trials get the `id` that their params have.

    Parameters
    ----------
    documents
        By collection.

    Returns
    -------
    tuple
        The studies, and how many trials belong to none.

    Raises
    ------
    EncodingError
        A document cannot be stored here; it is named.
    DuplicateKeyError
        Two experiments have one name and version, or two trials of an experiment one id.
    """
    locks: dict[Any, Document] = {}
    for lock in documents.get(ALGO, ()):
        # `orion db upgrade` adds another one, empty, to a MongoDB that has one
        if locks.get(lock.get("experiment"), {}).get("state") is None:
            locks[lock.get("experiment")] = lock
    studies: dict[Any, Study] = {}
    keys = set()
    for document in documents.get(EXPERIMENTS, ()):
        uid = document.get("_id")
        study = Study(uid, _experiment(document), locks.get(uid, {}))
        if study.key in keys:
            raise DuplicateKeyError(f"there are two of {study.title}; rename or delete one of them")
        keys.add(study.key)
        studies[uid] = study
    orphans = 0
    for document in documents.get(TRIALS, ()):
        owner = studies.get(document.get("experiment"))
        if owner is None:
            orphans += 1
            continue
        trial = _trial(document, owner)
        if trial["id"] in owner.trials:
            raise DuplicateKeyError(
                f"{owner.title} has two trials {trial['id']}; delete one of them"
            )
        owner.trials[trial["id"]] = trial
    return _parents_first(studies), orphans


def benchmarks_of(documents: Mapping[str, Iterable[Document]]) -> list[Document]:
    """Make benchmarks that may be stored here.

    Raises
    ------
    EncodingError
        One cannot be stored; it is named.
    """
    return [
        _storable(BENCHMARKS, document, f"benchmark {document.get('name')!r}")
        for document in documents.get(BENCHMARKS, ())
    ]


def _experiment(document: Mapping[str, Any]) -> Document:
    config = {key: value for key, value in document.items() if key != "algorithms"}
    if config.get("algorithm") is None and "algorithms" in document:
        config["algorithm"] = document["algorithms"]
    if config.get("version") is None:
        config["version"] = 1
    return _storable(EXPERIMENTS, config, f"experiment {config.get('name')!r}")


def _trial(document: Mapping[str, Any], owner: Study) -> Document:
    title = f"trial {document.get('id') or document.get('_id')!r} of {owner.title}"
    try:
        trial = Trial.from_dict(document).to_dict()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EncodingError(f"{title} is none: {error}") from error
    return _storable(TRIALS, {**trial, "_id": document.get("_id")}, title)


def _storable(collection: str, document: Mapping[str, Any], title: str) -> Document:
    try:
        return document_of(collection, document)
    except EncodingError as error:
        raise EncodingError(f"{title}: {error}", path=error.path) from error


def _parents_first(studies: Mapping[Any, Study]) -> list[Study]:
    ordered: dict[Any, Study] = {}
    for study in studies.values():
        line: dict[Any, Study] = {}
        uid = study.uid
        while uid in studies and uid not in ordered and uid not in line:
            line[uid] = studies[uid]
            uid = studies[uid].parent
        ordered.update(reversed(line.items()))
    return list(ordered.values())


# --------------------------------------------------------------------------------- references


def with_references(config: Document, uid: Any, ids: Mapping[Any, Any]) -> Document:
    """Answer an experiment under another ``_id``, whose ancestors are under other ones as well.

    An ancestor that is missing in `ids` is gone: without a parent, it is the root of its tree.
    """
    refers = config.get("refers")
    if isinstance(refers, dict):
        refers = dict(refers)
        for name, instead in (("parent_id", None), ("root_id", uid)):
            if refers.get(name) is not None:
                refers[name] = ids.get(refers[name], instead)
        config = {**config, "refers": refers}
    return {**config, "_id": uid}


def renumbered(uids: Sequence[Any]) -> dict[Any, int]:
    """Answer a positive int for each id: those that are one stay, the others count on from them."""
    numbers: dict[Any, int] = {uid: uid for uid in uids if isinstance(uid, int) and uid > 0}
    last = max(numbers.values(), default=0)
    for uid in uids:
        if uid not in numbers:
            last += 1
            numbers[uid] = last
    return numbers


# --------------------------------------------------------------------------------- comparison


def differing_field(config: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Name what tells two experiments of one name and version apart; None if they are the same.

    They are the same if they were created at the same moment and have the same space, algorithm and
    parent. The rest of a config is written anew by every worker that starts. What older versions of
    Oríon did not write is not compared.
    """
    pairs = {
        "time of creation": (_created(config), _created(stored)),
        "space": (config.get("space"), stored.get("space")),
        "algorithm": (config.get("algorithm"), stored.get("algorithm")),
    }
    for name, (ours, theirs) in pairs.items():
        if ours is not None and not _alike(ours, theirs):
            return name
    return None if _parent(config) == _parent(stored) else "parent"


def differing_trial(trial: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Tell how two trials of one id differ; None if what is stored may stay.

    Their params are the same, or the ids would not be. A trial that was completed or broken must
    be so in the store, with the same results; any other may have gone on there.
    """
    if trial["status"] not in _FINAL:
        return None
    if trial["status"] != stored.get("status"):
        return f"{trial['status']!r}, not {stored.get('status')!r}"
    return None if _alike(trial["results"], stored.get("results") or []) else "of other results"


def same_benchmark(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two benchmarks differ in nothing but their ``_id``."""
    return _alike({**one, "_id": None}, {**other, "_id": None})


def _created(config: Mapping[str, Any]) -> Any:
    return (config.get("metadata") or {}).get("datetime")


def _parent(config: Mapping[str, Any]) -> Any:
    return (config.get("refers") or {}).get("parent_id")


def _alike(one: Any, other: Any) -> bool:
    """Compare normalised values as any engine gives them back; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) < _TICK
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
