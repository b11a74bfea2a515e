"""Records of a Track file as documents, and documents as its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from aiostorage._core.document_json import to_tree
from aiostorage._core.in_memory.steady_clock import SteadyMoment, micros
from aiostorage.drivers.track.contents import (
    COUNTER_LIMIT,
    EXPERIMENTS,
    LOOSE,
    SECTION,
    TRIALS,
    Contents,
    Item,
    Parts,
)
from aiostorage.drivers.track.exact import OURS, lenient, ours_of
from aiostorage.drivers.track.file_text import text_of_record
from aiostorage.drivers.track.group_record import config_of, group_of
from aiostorage.drivers.track.trial_record import (
    TrialFormat,
    empty_trial,
    has_id_by_params,
    id_by_uid,
)
from aiostorage.operations import Collection, Document, Layout

__all__ = ["Records"]


class Records:
    """Reads and writes the records of all collections.

    Parameters
    ----------
    layout
        The collections.
    objective
        The name of the metric that is the objective, if it is known.
    """

    def __init__(self, layout: Layout, objective: str | None) -> None:
        self._collections = {collection.name: collection for collection in layout.collections}
        self._clocked = {
            name: {field.name: f"{field.name} (steady)" for field in c.fields if field.clocked}
            for name, c in self._collections.items()
        }
        trials = self._collections.get(TRIALS)
        times = [field.name for field in trials.fields if field.kind == "time"] if trials else ()
        self._trials = TrialFormat(frozenset(times), objective)

    # --------------------------------------------------------------------------------- reading

    def read(
        self,
        parts: Parts,
        version: int | None,
        boot: tuple[int, str] | None,
        before: Contents,
        now: SteadyMoment,
    ) -> Contents:
        """Return the contents of a file; what has not changed since `before` is taken from there.

        Parameters
        ----------
        now
            The time, for heartbeats that another program has written.
        """
        items: dict[str, dict[int, Item]] = {}
        groups = items[EXPERIMENTS] = {}
        uids = {raw["uid"] for _, raw, _ in parts.trials.values()}
        for place, (home, whole, placed) in parts.groups.items():
            raw = {name: value for name, value in whole.items() if name != "trials"}
            listed = whole.get("trials")
            others = tuple(
                uid
                for uid in (listed if isinstance(listed, list) else ())
                if isinstance(uid, str) and uid not in uids
            )
            known = _unchanged(before, EXPERIMENTS, place, home, raw)
            if known is not None and (known.placed, known.others) == (placed, others):
                groups[place] = known
            else:
                document = self._complete(EXPERIMENTS, config_of(raw), raw, now)
                groups[place] = Item(home, raw, document, placed, None, others)
        experiments = {item.raw["uid"]: item.document["_id"] for item in groups.values()}
        trials = items[TRIALS] = {}
        unsure: list[int] = []
        for place, (home, raw, placed) in parts.trials.items():
            known = _unchanged(before, TRIALS, place, home, raw)
            group = str(raw.get("group_id"))
            if (
                known is not None
                and known.placed == placed
                and before.experiments.get(group) == experiments.get(group)
            ):
                trials[place] = known
            else:
                read = self._trials.document_of(raw, experiments)
                trials[place] = Item(home, raw, self._complete(TRIALS, read, raw, now), placed)
            if has_id_by_params(raw):
                unsure.append(place)
        _tell_apart(trials, unsure)
        for name, records in parts.collections.items():
            items[name] = {
                place: _unchanged(before, name, place, LOOSE, raw) or self._other(name, raw, now)
                for place, raw in sorted(records.items())
            }
        return Contents(parts.heads, version, boot, experiments, items)

    def _other(self, name: str, raw: dict[str, Any], now: SteadyMoment) -> Item:
        read = lenient(raw.get("record"))
        if name not in self._collections or not isinstance(read, dict) or "_id" not in read:
            return Item(LOOSE, raw, {})  # nothing of ours: it stays as it is
        return Item(LOOSE, raw, self._complete(name, read, raw, now))

    def _complete(
        self, name: str, document: Document, raw: Mapping[str, Any], now: SteadyMoment
    ) -> Document:
        """Return a document whose declared fields are of their kinds, with its steady times."""
        collection = self._collections.get(name)
        if collection is None:
            return document
        _correct(document, collection)
        ahead = _ahead_of(name, raw)
        for field, steady in self._clocked[name].items():
            if field in document:
                time, noted = document[field], ahead.get(field)
                by = noted if type(noted) is int else now.ahead
                document[steady] = micros(time) + by if isinstance(time, datetime) else None
        return document

    # --------------------------------------------------------------------------------- writing

    def write(
        self,
        before: Contents,
        tables: Mapping[str, Mapping[int, Document]],
        version: int,
        boot: tuple[int, str] | None,
    ) -> Contents:
        """Return the contents that show documents; what has not changed is taken from `before`.

        Parameters
        ----------
        tables
            The documents by collection and place in the order.
        """
        items = dict(before.items)
        heads = dict(before.heads)
        groups = items[EXPERIMENTS] = self._written_groups(before, tables.get(EXPERIMENTS, {}))
        experiments = {item.raw["uid"]: item.document["_id"] for item in groups.values()}
        items[TRIALS] = self._written_trials(before, tables.get(TRIALS, {}), groups, experiments)
        for name, documents in tables.items():
            if name not in (EXPERIMENTS, TRIALS):
                items[name] = self._written_others(before, name, documents)
        for name in before.items.keys() - tables.keys():  # of a newer aiostorage, for example
            items[name] = {p: _with_text(name, item) for p, item in before.items[name].items()}
        used = {item.home for name in (EXPERIMENTS, TRIALS) for item in items[name].values()}
        was = {i.home for n in (EXPERIMENTS, TRIALS) for i in before.items.get(n, {}).values()}
        for uid in [u for u in heads if u in was - used and heads[u] == _head(u)]:
            del heads[uid]  # its last experiment was deleted, and nothing else is in it
        for uid in sorted(used - heads.keys() - {LOOSE}):
            heads[uid] = _head(uid)
        section = heads.pop(SECTION, None) or _head(SECTION)
        metadata = section.get("metadata")
        section = {**section, "metadata": metadata if isinstance(metadata, dict) else {}}
        heads[SECTION] = section  # it stands last
        return Contents(heads, version, boot, experiments, items)

    def _written_groups(
        self, before: Contents, documents: Mapping[int, Document]
    ) -> dict[int, Item]:
        old, new = before.items.get(EXPERIMENTS, {}), {}
        taken = {item.raw["uid"] for item in old.values()}
        for place, document in documents.items():
            item = old.get(place)
            if not _is_current(item, document):
                home = item.home if item is not None else str(document.get("name"))
                raw = item.raw if item is not None else None
                raw = group_of(self._plain(EXPERIMENTS, document), raw, home)
                while item is None and raw["uid"] in taken:
                    raw["uid"] = f"{raw['uid']}-{place}"  # deleted under another name, for example
                taken.add(raw["uid"])
                _note(raw["metadata"], place, self._ahead(EXPERIMENTS, document))
                others = item.others if item is not None else ()
                text = text_of_record(EXPERIMENTS, raw)
                new[place] = Item(home, raw, document, True, text, others)
            else:
                new[place] = _with_text(EXPERIMENTS, item)
        return new

    def _written_trials(
        self,
        before: Contents,
        documents: Mapping[int, Document],
        groups: Mapping[int, Item],
        experiments: Mapping[str, Any],
    ) -> dict[int, Item]:
        old, new = before.items.get(TRIALS, {}), {}
        places: dict[Any, tuple[str, str]] = {}
        revisions: dict[Any, int] = {}
        taken: set[str] = set()
        for place, document in documents.items():
            item = old.get(place)
            if _is_current(item, document):
                new[place] = _with_text(TRIALS, item)
                continue
            if item is None and not places:
                places = {g.document["_id"]: (g.raw["uid"], g.home) for g in groups.values()}
                for one in old.values():
                    taken.add(one.raw["uid"])
                    hash_, revision = one.raw.get("hash"), one.raw.get("revision")
                    if (
                        isinstance(hash_, str)
                        and type(revision) is int
                        and revision < COUNTER_LIMIT
                    ):
                        revisions[hash_] = max(revisions.get(hash_, 0), revision)
            experiment = document.get("experiment")
            group, home = places.get(experiment, (str(experiment), SECTION))

            def empty(hash_: str, group: str = group, home: str = home) -> dict[str, Any]:
                revision = revisions.get(hash_, -1) + 1
                while f"{hash_}_{revision}" in taken:  # another program has other hashes
                    revision += 1
                revisions[hash_] = revision
                return empty_trial(hash_, revision, group, home)

            raw = self._trials.record_of(
                self._plain(TRIALS, document),
                item.raw if item is not None else None,
                experiments,
                empty,
            )
            _note(raw["metadata"], place, self._ahead(TRIALS, document))
            home = item.home if item is not None else home
            new[place] = Item(home, raw, document, True, text_of_record(TRIALS, raw))
        return new

    def _written_others(
        self, before: Contents, name: str, documents: Mapping[int, Document]
    ) -> dict[int, Item]:
        old = before.items.get(name, {})
        new = {place: _with_text(name, item) for place, item in old.items() if not item.document}
        for place, document in documents.items():
            item = old.get(place)
            if _is_current(item, document):
                new[place] = _with_text(name, item)
                continue
            raw: dict[str, Any] = {"record": to_tree(self._plain(name, document))}
            if ahead := self._ahead(name, document):
                raw["ahead"] = ahead
            new[place] = Item(LOOSE, raw, document, True, text_of_record(name, raw))
        return new

    def _plain(self, name: str, document: Document) -> Document:
        """Return a document without its steady times."""
        steady = self._clocked[name].values()
        return {field: value for field, value in document.items() if field not in steady}

    def _ahead(self, name: str, document: Document) -> dict[str, int]:
        """Return by how many microseconds the steady times of a document are ahead."""
        return {
            field: document[steady] - micros(document[field])
            for field, steady in self._clocked[name].items()
            if document.get(steady) is not None and isinstance(document.get(field), datetime)
        }


def _is_current(item: Item | None, document: Document) -> bool:
    return item is not None and item.placed and item.document is document


def _with_text(name: str, item: Item | None) -> Item:
    assert item is not None  # noqa: S101  `_is_current` has said so
    if item.text is not None:
        return item
    text = text_of_record(name, item.raw)
    return Item(item.home, item.raw, item.document, item.placed, text, item.others)


def _unchanged(
    before: Contents, name: str, place: int, home: str, raw: Mapping[str, Any]
) -> Item | None:
    item = before.items.get(name, {}).get(place)
    return item if item is not None and item.home == home and item.raw == raw else None


def _tell_apart(trials: dict[int, Item], unsure: Sequence[int]) -> None:
    """Give trials of Track's own other ids where aiostorage has a trial with the same params."""
    if not unsure:
        return
    others = (trials[place].document for place in trials.keys() - set(unsure))
    taken = {(document["experiment"], document["id"]) for document in others}
    for place in unsure:
        item = trials[place]
        key = item.document["experiment"], item.document["id"]
        if key in taken:
            document = {**item.document, "id": id_by_uid(item.raw)}
            trials[place] = replace(item, document=document)
        taken.add(key)


def _ahead_of(name: str, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    if name in (EXPERIMENTS, TRIALS):
        metadata = raw.get("metadata")
        ahead = ours_of(metadata if isinstance(metadata, dict) else {}).get("ahead")
    else:
        ahead = raw.get("ahead")
    return ahead if isinstance(ahead, dict) else {}


def _note(metadata: dict[str, Any], place: int, ahead: Mapping[str, int]) -> None:
    """Put the place of a record in the order, and its clock, into what is ours of it."""
    ours = {name: value for name, value in metadata[OURS].items() if name not in ("order", "ahead")}
    metadata[OURS] = {"order": place, **({"ahead": dict(ahead)} if ahead else {}), **ours}


def _correct(document: Document, collection: Collection) -> None:
    """Put values of the declared kinds into the declared fields: other programs may not know."""
    if type(document.get("_id")) not in (str, int):
        document["_id"] = str(document.get("_id"))
    for field in collection.fields:
        value = document.get(field.name)
        if value is None:
            if field.required:
                document[field.name] = ""
        elif field.kind == "key":
            if type(value) not in (str, int):
                document[field.name] = str(value)
        elif not isinstance(value, datetime if field.kind == "time" else bytes):
            document[field.name] = None


def _head(uid: str) -> dict[str, Any]:
    about = "What aiostorage keeps beside the experiments" if uid == SECTION else None
    return {"dtype": "project", "uid": uid, "name": uid, "description": about, "metadata": {}}
