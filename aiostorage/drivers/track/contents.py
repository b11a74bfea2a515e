"""What a Track file contains: projects with groups and trials, and what is ours beside.

Experiments are groups, trials are trials, and each stands in the project that has the name of the
experiment. All other collections, the version of the layout and the number of the boot stand in the
metadata of one more project, `SECTION`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiostorage._core.file_kinds import HEAD, kind_of
from aiostorage.drivers.track.exact import OURS, ours_of
from aiostorage.errors import NotADatabaseError
from aiostorage.operations import Document

__all__ = [
    "EXPERIMENTS",
    "MANY",
    "SECTION",
    "TOO_DEEP",
    "TRIALS",
    "Contents",
    "Item",
    "Parts",
    "parts_of",
]

EXPERIMENTS: Final = "experiments"
TRIALS: Final = "trials"
"""The collections that Track has a place for."""

SECTION: Final = OURS
"""The uid of the project with what Track has no place for."""

TOO_DEEP: Final = "its values are nested too deeply"

LOOSE: Final = ""
"""In place of the uid of a project, which is never empty: what stands beside the projects."""

MANY: Final = 10**18
"""More than aiostorage can ever have counted."""

_PLACE: Final = re.compile("[1-9][0-9]{0,17}")
"""The place of a record in the order."""


@dataclass(frozen=True, slots=True)
class Item:
    """A record in the file, and its document.

    Attributes
    ----------
    home
        The uid of the project that it stands in.
    raw
        The record as JSON has it; of a group, without the list of its trials.
    document
        Its document, as it is in the table.
    placed
        Whether its place in the order is in the file.
    text
        The record as it was last written.
    others
        Of a group, what is in the list of its trials and is none.
    """

    home: str
    raw: dict[str, Any]
    document: Document
    placed: bool = True
    text: str | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file, as last read or written.

    Attributes
    ----------
    heads
        The projects by uid, without their trials and groups.
    version
        The version of the layout; None if aiostorage has not written the file.
    boot
        The number and the id of the last boot in which it was written.
    experiments
        The ids of the experiments by the uids of their groups.
    items
        The records by collection and place in the order.
    """

    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int | None = None
    boot: tuple[int, str] | None = None
    experiments: dict[str, Any] = field(default_factory=dict)
    items: dict[str, dict[int, Item]] = field(default_factory=dict)


@dataclass(slots=True)
class Parts:
    """The parts of a file, before they are documents."""

    heads: dict[str, dict[str, Any]]
    section: dict[str, Any]
    groups: dict[int, tuple[str, dict[str, Any], bool]]
    trials: dict[int, tuple[str, dict[str, Any], bool]]
    collections: dict[str, dict[int, dict[str, Any]]]


def parts_of(data: bytes, path: Path, *, repeats: bool) -> Parts:
    """Take the text of a file apart.

    Parameters
    ----------
    repeats
        Whether to look for keys that an object has twice, which takes a third longer.

    Raises
    ------
    NotADatabaseError
        It is not a Track file; the message says what is wrong, and where.
    """
    tree = _parsed(data, path, _checked if repeats else None)
    heads: dict[str, dict[str, Any]] = {}
    groups: list[tuple[str, dict[str, Any]]] = []
    trials: list[tuple[str, dict[str, Any]]] = []
    for number, entry in enumerate(tree, 1):
        kind = entry.get("dtype") if isinstance(entry, dict) else None
        if kind == "project":
            uid = entry.get("uid") or entry.get("name")
            if not isinstance(uid, str) or not uid:
                raise _damaged(path, f"entry {number} is a project without a uid")
            if uid in heads:
                raise _damaged(path, f"there are two projects {uid!r}")
            heads[uid] = {k: v for k, v in entry.items() if k not in ("trials", "groups")}
            groups += _listed(path, uid, entry, "groups")
            trials += _listed(path, uid, entry, "trials")
        elif kind == "trial_group":
            groups.append((LOOSE, entry))
        elif kind == "trial":
            trials.append((LOOSE, entry))
        else:
            raise _damaged(path, f"entry {number} is none of a project, a group and a trial")
    _check_uids(path, "group", groups)
    _check_uids(path, "trial", trials)
    section = ours_of(_metadata(heads.get(SECTION, {})))
    collections = _collections(path, section.get("collections", {}))
    return Parts(heads, dict(section), _placed(groups), _placed(trials), collections)


def _collections(path: Path, tree: Any) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the records of the other collections by their places."""
    where = "in the metadata of the project aiostorage"
    if not isinstance(tree, dict):
        raise _damaged(path, f"the collections {where} are not an object")
    collections = {}
    for name, records in tree.items():
        if name in (EXPERIMENTS, TRIALS) or not isinstance(records, dict):
            raise _damaged(path, f"the collection {name!r} {where} is none that aiostorage writes")
        for place, record in records.items():
            if not _PLACE.fullmatch(place) or not isinstance(record, dict):
                raise _damaged(path, f"record {place[:20]!r} of the collection {name!r} {where}")
        collections[name] = {int(place): record for place, record in records.items()}
    return collections


def _parsed(
    data: bytes, path: Path, hook: Callable[[list[tuple[str, Any]]], Any] | None
) -> list[Any]:
    try:
        tree = json.loads(data.decode("utf-8-sig"), parse_constant=_tag, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise _not_json(path, data, where) from error
    except UnicodeDecodeError as error:
        raise _not_json(path, data, f"byte {error.start} is not UTF-8") from error
    except RecursionError:
        raise _damaged(path, TOO_DEEP) from None
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(tree, list):
        raise _damaged(path, f"it has a JSON {type(tree).__name__} where a list of projects is due")
    return tree


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of two values for one key, JSON would silently drop the first."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in tree if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice[:40]!r} twice")
    return tree


def _tag(name: str) -> dict[str, str]:
    """Return the form of a number that is not finite, which Python's JSON writes as a word."""
    return {"$float": {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}[name]}


def _listed(
    path: Path, uid: str, project: Mapping[str, Any], kind: str
) -> list[tuple[str, dict[str, Any]]]:
    found = project.get(kind, [])
    if not isinstance(found, list):
        raise _damaged(path, f"the {kind} of project {uid!r} are not a list")
    for number, raw in enumerate(found, 1):
        if not isinstance(raw, dict):
            what = f"number {number} of the {kind} of project {uid!r} is not an object"
            raise _damaged(path, what)
    return [(uid, raw) for raw in found]


def _check_uids(path: Path, kind: str, found: Iterable[tuple[str, dict[str, Any]]]) -> None:
    seen: set[str] = set()
    for home, raw in found:
        uid = raw.get("uid")
        if not isinstance(uid, str) or not uid:
            raise _damaged(path, f"a {kind} of project {home!r} has no uid")
        if uid in seen:
            raise _damaged(path, f"there are two of {kind} {uid}")
        seen.add(uid)


def _placed(
    found: Iterable[tuple[str, dict[str, Any]]],
) -> dict[int, tuple[str, dict[str, Any], bool]]:
    """Return records by their places in the order; those that have none come last, by time."""
    places: dict[int, tuple[str, dict[str, Any], bool]] = {}
    rest = []
    for home, raw in found:
        place = ours_of(_metadata(raw)).get("order")
        if type(place) is int and 0 < place < MANY and place not in places:
            places[place] = home, raw, True
        else:
            rest.append((home, raw))
    rest.sort(key=_submitted)
    places |= {
        place: (home, raw, False)
        for place, (home, raw) in enumerate(rest, max(places, default=0) + 1)
    }
    return dict(sorted(places.items()))


def _submitted(record: tuple[str, dict[str, Any]]) -> float:
    metadata = _metadata(record[1])
    time = metadata.get("submit_time", metadata.get("_last_change"))
    return time if isinstance(time, int | float) else 0.0  # an int may be too large for a float


def _metadata(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _not_json(path: Path, data: bytes, what: str) -> NotADatabaseError:
    """Return the error about a file that is not JSON, which may be something else altogether."""
    if data.lstrip()[:1] in (b"[", b"{"):
        return _damaged(path, what)
    kind = kind_of(data[:HEAD])
    advice = f"; open it with sqlite:///{path}" if kind == "a SQLite database" else ""
    return NotADatabaseError(
        f"{path} is not a Track file but {kind}, and was left as it is: {what}{advice}"
    )


def _damaged(path: Path, what: str) -> NotADatabaseError:
    return NotADatabaseError(f"{path} is not a Track file, and was left as it is: {what}")
