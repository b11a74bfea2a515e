"""The documents of a database of Oríon's, checked and sorted by experiment for an import.

Nothing here reads or writes a store, and nothing imports Oríon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiostorage._core.documents import changes_of, document_of
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.record_checks import check_record
from aiostorage.errors import DuplicateKeyError, EncodingError
from aiostorage.operations import Document
from aiostorage.orion.conversion import interrupt_reserved, with_times
from aiostorage.orion.progress import SkippedRecord
from aiostorage.orion.references import parent_of
from aiostorage.trial import Trial

__all__ = ["BadRecords", "ImportedExperiment", "imported_benchmarks", "imported_experiments"]


@dataclass(slots=True)
class ImportedExperiment:
    """An experiment of the source, with everything that belongs to it.

    Parameters
    ----------
    uid
        Its ``_id`` in the source.
    config
        Its document, in the form in which it can be stored here.
    lock
        The lock record of its algorithm, as it is in the source; empty if there is none.
    trials
        Its trials by their ids, in the form in which they can be stored here.
    interrupted
        The ids of those that are reserved in the source, and interrupted here.
    """

    uid: Any
    config: Document
    lock: Document = field(default_factory=dict)
    trials: dict[str, Document] = field(default_factory=dict)
    interrupted: set[str] = field(default_factory=set)

    @property
    def key(self) -> tuple[Any, int]:
        """Name and version, which identify an experiment in every store."""
        return self.config["name"], self.config["version"]

    @property
    def title(self) -> str:
        """The name of the experiment in error messages."""
        return f"experiment {self.config['name']!r} v{self.config['version']}"

    @property
    def parent(self) -> Any:
        """The ``_id`` in the source of the experiment that this one was branched from."""
        return parent_of(self.config)


class BadRecords:
    """What becomes of records that cannot be stored.

    Parameters
    ----------
    skip
        Whether they are left out and noted in `skipped`. Otherwise the first one is an error.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self._skip = skip
        self.skipped: list[SkippedRecord] = []

    @contextmanager
    def named(self, collection: str, title: str) -> Iterator[None]:
        """Name the record in an error that is raised inside, or note the record.

        Raises
        ------
        EncodingError
            The record cannot be stored, and is not to be skipped.
        """
        try:
            yield
        except (EncodingError, DuplicateKeyError) as error:
            path = error.path if isinstance(error, EncodingError) else ""
            reason = str(error) if str(error).startswith(title) else f"{title}: {error}"
            if self._skip:
                self.skipped.append(SkippedRecord(collection, title, path, reason))
            elif isinstance(error, DuplicateKeyError):
                raise
            else:
                raise EncodingError(reason, path=path) from error

    def add_trials(self, trials: Mapping[str, int]) -> None:
        """Note the number of trials of each experiment that was skipped, by its title."""
        self.skipped = [
            replace(one, trials=trials.get(one.record, 0)) if one.collection == EXPERIMENTS else one
            for one in self.skipped
        ]


def imported_experiments(
    documents: Mapping[str, Iterable[Document]], bad: BadRecords | None = None
) -> tuple[list[ImportedExperiment], int]:
    """Sort documents by experiment, each parent before the experiments branched from it.

    Documents of older versions of Oríon are brought to the form of the current one: a missing
    ``version`` is 1, ``algorithms`` is called ``algorithm``, and the `id` of a trial is computed
    from its params. Times of trials that are ISO strings become datetimes, and reserved trials
    become interrupted.

    Parameters
    ----------
    documents
        By collection.
    bad
        What becomes of records that cannot be stored. The trials of such an experiment are left out
        with it.

    Returns
    -------
    tuple
        The experiments, and the number of trials that belong to none.

    Raises
    ------
    EncodingError
        A document cannot be stored here. The message names it.
    DuplicateKeyError
        Two experiments have the same name and version, or two trials of an experiment the same id.
    """
    bad = bad or BadRecords()
    locks = _locks_by_experiment(documents.get(ALGO, ()))
    experiments: dict[Any, ImportedExperiment] = {}
    without: dict[Any, str] = {}
    for document in documents.get(EXPERIMENTS, ()):
        uid, title = document.get("_id"), f"experiment {document.get('name')!r}"
        without[uid] = title
        with bad.named(EXPERIMENTS, title):
            experiment = ImportedExperiment(uid, _storable_experiment(document))
            if any(experiment.key == other.key for other in experiments.values()):
                raise DuplicateKeyError(
                    f"there are two of {experiment.title}; rename or delete one of them"
                )
            experiments[uid] = experiment
            del without[uid]
    for uid, experiment in experiments.items():
        experiment.lock = {"state": locks.get(uid, {}).get("state")}
        with bad.named(ALGO, f"the algorithm of {experiment.title}"):
            experiment.lock = _storable_lock(locks.get(uid, {}))
    orphans = 0
    left_out: Counter[str] = Counter()
    for document in documents.get(TRIALS, ()):
        owner = experiments.get(document.get("experiment"))
        if owner is not None:
            title = f"trial {document.get('id') or document.get('_id')!r} of {owner.title}"
            with bad.named(TRIALS, title):
                _add_trial(owner, _storable_trial(document))
        elif document.get("experiment") in without:
            left_out[without[document["experiment"]]] += 1
        else:
            orphans += 1
    bad.add_trials(left_out)
    return _parents_first(experiments), orphans


def _add_trial(owner: ImportedExperiment, trial: Document) -> None:
    if trial["id"] in owner.trials:
        raise DuplicateKeyError(f"{owner.title} has two trials {trial['id']}; delete one of them")
    if interrupt_reserved(trial):
        owner.interrupted.add(trial["id"])
    owner.trials[trial["id"]] = trial


def imported_benchmarks(
    documents: Mapping[str, Iterable[Document]], bad: BadRecords | None = None
) -> list[Document]:
    """Return the benchmarks in the form in which they can be stored here.

    Raises
    ------
    EncodingError
        A benchmark cannot be stored here. The message names it.
    """
    bad = bad or BadRecords()
    benchmarks = []
    for document in documents.get(BENCHMARKS, ()):
        with bad.named(BENCHMARKS, f"benchmark {document.get('name')!r}"):
            benchmarks.append(document_of(BENCHMARKS, document))
    return benchmarks


def _locks_by_experiment(records: Iterable[Document]) -> dict[Any, Document]:
    locks: dict[Any, Document] = {}
    for record in records:
        # `orion db upgrade` adds a second record, an empty one, to a MongoDB that has one.
        if locks.get(record.get("experiment"), {}).get("state") is None:
            locks[record.get("experiment")] = record
    return locks


def _storable_experiment(document: Mapping[str, Any]) -> Document:
    config = {key: value for key, value in document.items() if key != "algorithms"}
    if config.get("algorithm") is None and "algorithms" in document:
        config["algorithm"] = document["algorithms"]
    if config.get("version") is None:
        config["version"] = 1
    return document_of(EXPERIMENTS, config)


def _storable_lock(record: Mapping[str, Any]) -> Document:
    """Return a lock record whose state alone is as it was."""
    others = {key: record[key] for key in ("configuration", "heartbeat") if key in record}
    return {**record, **changes_of(ALGO, others)}


def _storable_trial(document: Mapping[str, Any]) -> Document:
    try:
        trial = Trial.from_dict(with_times(TRIALS, document)).to_dict()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        lists = {name: document.get(name) for name in ("params", "results")}
        check_record(TRIALS, lists)  # it says where, if it can
        raise EncodingError(f"it cannot be read: {error}") from error
    return document_of(TRIALS, {**trial, "_id": document.get("_id")})


def _parents_first(experiments: Mapping[Any, ImportedExperiment]) -> list[ImportedExperiment]:
    ordered: dict[Any, ImportedExperiment] = {}
    for experiment in experiments.values():
        ancestry: dict[Any, ImportedExperiment] = {}  # the experiment, its parent, and so on
        uid = experiment.uid
        while uid in experiments and uid not in ordered and uid not in ancestry:
            ancestry[uid] = experiments[uid]
            uid = experiments[uid].parent
        ordered.update(reversed(ancestry.items()))
    return list(ordered.values())
