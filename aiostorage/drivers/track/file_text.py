"""The text of a Track file: indented, and in an order that lasts, so that a diff says something."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

from aiostorage.drivers.track.contents import (
    EXPERIMENTS,
    LOOSE,
    SECTION,
    TRIALS,
    Contents,
    Item,
)
from aiostorage.drivers.track.exact import OURS, ours_of

__all__ = ["IN_A_LINE", "text_of", "text_of_record"]

IN_A_LINE: Final = frozenset({"deliverers", "lock_waiters", "mirrored", "outbox", "receipts"})
"""Collections whose records come and go: each is one line."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)

_DEPTHS: Final = {EXPERIMENTS: 6, TRIALS: 6}
"""Spaces before a record; those of other collections stand deeper, in the section."""


def text_of_record(collection: str, raw: Mapping[str, Any]) -> str:
    """Return the text of a record, as it stands in the file."""
    if collection in IN_A_LINE:
        return json.dumps(raw, ensure_ascii=False, allow_nan=False)
    return _indented(raw, _DEPTHS.get(collection, 12))


def text_of(contents: Contents) -> bytes:
    """Return the text of a file; every item has its own."""
    groups, trials = contents.items.get(EXPERIMENTS, {}), contents.items.get(TRIALS, {})
    members: dict[str, list[str]] = {}
    for trial in trials.values():
        if isinstance(uid := trial.raw.get("group_id"), str):
            members.setdefault(uid, []).append(trial.raw["uid"])
    written = {LOOSE: _Entries(), **{uid: _Entries() for uid in contents.heads}}
    for group in groups.values():
        uids = [*members.get(group.raw["uid"], ()), *group.others]
        written[group.home].groups.append(_with_list(group, uids))
    for trial in trials.values():
        written[trial.home].trials.append(trial.text or "")
    projects = [
        _project(head, written[uid], _metadata_of(uid, head, contents))
        for uid, head in contents.heads.items()
    ]
    loose = [text.replace("\n    ", "\n") for text in _all_of(written[LOOSE])]
    entries = ",\n".join(["  " + entry for entry in (*projects, *loose)])
    return f"[\n{entries}\n]\n".encode("utf-8", "backslashreplace")  # a lone surrogate


class _Entries:
    """The texts of what stands in a project."""

    def __init__(self) -> None:
        self.trials: list[str] = []
        self.groups: list[str] = []


def _all_of(entries: _Entries) -> Iterable[str]:
    return chain(entries.groups, entries.trials)


def _with_list(group: Item, uids: list[str]) -> str:
    """Return the text of a group with the list of its trials."""
    head = (group.text or "").removesuffix("\n      }")
    lines = ",\n          ".join(map(_string, uids))
    trials = f"[\n          {lines}\n        ]" if uids else "[]"
    return f'{head},\n        "trials": {trials}\n      }}'


def _project(head: Mapping[str, Any], entries: _Entries, metadata: str) -> str:
    fields = [
        f'"{name}": {metadata}' if name == "metadata" else f"{_string(name)}: {_indented(value, 4)}"
        for name, value in head.items()
    ]
    fields += [f'"trials": {_list(entries.trials)}', f'"groups": {_list(entries.groups)}']
    return "{\n    " + ",\n    ".join(fields) + "\n  }"


def _list(texts: list[str]) -> str:
    return "[\n      " + ",\n      ".join(texts) + "\n    ]" if texts else "[]"


def _metadata_of(uid: str, head: Mapping[str, Any], contents: Contents) -> str:
    metadata = head.get("metadata")
    if uid != SECTION:
        return _indented(metadata, 4)
    fields = [
        f"{_string(name)}: {_indented(value, 6)}"
        for name, value in (metadata or {}).items()
        if name != OURS
    ]
    fields.append(f'"{OURS}": {_section(ours_of(metadata or {}), contents)}')
    return "{\n      " + ",\n      ".join(fields) + "\n    }"


def _section(ours: Mapping[str, Any], contents: Contents) -> str:
    fields = {name: _indented(value, 8) for name, value in ours.items()}
    fields["layout"] = str(contents.version)
    if contents.boot is not None:
        number, name = contents.boot
        fields["boot"] = _indented({"number": number, "id": name}, 8)
    fields.pop("collections", None)  # they stand last
    collections = [
        f"{_string(name)}: {_records(records)}"
        for name, records in contents.items.items()
        if name not in _DEPTHS and records
    ]
    known = "{\n          " + ",\n          ".join(collections) + "\n        }"
    fields["collections"] = known if collections else "{}"
    lines = [f"{_string(name)}: {text}" for name, text in fields.items()]
    return "{\n        " + ",\n        ".join(lines) + "\n      }"


def _records(records: Mapping[int, Item]) -> str:
    lines = [f'"{place}": {item.text}' for place, item in records.items()]
    return "{\n            " + ",\n            ".join(lines) + "\n          }"


def _indented(tree: Any, spaces: int) -> str:
    text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)
    return text.replace("\n", "\n" + " " * spaces)


def _string(text: str) -> str:
    return _ENCODER.encode(text)
