"""A trial in the format of Track, and as a document."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from aiostorage._core.document_json import to_tree
from aiostorage._core.steady_clock import EPOCH
from aiostorage.drivers.track.contents import COUNTER_LIMIT
from aiostorage.drivers.track.exact import (
    OURS,
    differences,
    lenient,
    ours_of,
    same,
    with_differences,
)
from aiostorage.drivers.track.metrics import results_of, with_results
from aiostorage.operations import Document
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["TrialFormat", "empty_trial", "has_id_by_params", "id_by_uid"]

_STATUSES: Final = {
    TrialStatus.NEW.value: (1, "new"),
    TrialStatus.RESERVED.value: (2, "reserved"),
    TrialStatus.INTERRUPTED.value: (201, "Interrupted"),
    TrialStatus.BROKEN.value: (203, "Broken"),
    TrialStatus.SUSPENDED.value: (301, "Suspended"),
    TrialStatus.COMPLETED.value: (302, "Completed"),
}
"""Track's statuses by ours; it has no name of its own for the first two, and Oríon chose these."""

_READ_AS: Final = {
    "createdgroup": TrialStatus.NEW.value,
    "runninggroup": TrialStatus.RESERVED.value,
    "running": TrialStatus.RESERVED.value,
    "errorgroup": TrialStatus.BROKEN.value,
    "exception": TrialStatus.BROKEN.value,
    "finishedgroup": TrialStatus.COMPLETED.value,
}
"""Our statuses by those that only Track itself gives."""

_BY_NUMBER: Final = {number: status for status, (number, _) in _STATUSES.items()}

_TYPES, _METRIC_TYPES, _COUNT = "params_types", "metric_types", "_update_count"
ID_LENGTH: Final = 32
"""Characters in the id of a trial: one of another length is not kept, but made from the params."""

_NO_FIELDS: Final = frozenset({_TYPES, _METRIC_TYPES, _COUNT, "_last_change", OURS})
"""Keys of the metadata that are not fields of a document."""

_ELSEWHERE: Final = frozenset({"id", "status", "params", "results"})
"""Fields of a document that do not stand in the metadata."""


class TrialFormat:
    """Reads and writes trials.

    Parameters
    ----------
    times
        The fields that hold times: Track has them as seconds since 1970.
    objective
        The name of the metric that is the objective, if it is known.
    """

    def __init__(self, times: frozenset[str], objective: str | None) -> None:
        self._times = times
        self._objective = objective

    def document_of(self, raw: Mapping[str, Any], experiments: Mapping[str, Any]) -> Document:
        """Return the document of a trial.

        Parameters
        ----------
        raw
            The trial in the file.
        experiments
            The ids of the experiments by the uids of their groups.
        """
        noted = ours_of(_metadata(raw)).get("exact")
        return with_differences(self._read(raw, experiments), noted, _sources(raw))

    def _read(self, raw: Mapping[str, Any], experiments: Mapping[str, Any]) -> Document:
        metadata, group = _metadata(raw), raw.get("group_id")
        document: Document = {
            "_id": raw.get("uid"),
            "experiment": experiments.get(group, group) if isinstance(group, str) else group,
            "id": raw.get("hash"),
            "status": _status_of(raw.get("status")),
            "params": _params_of(raw.get("parameters"), metadata.get(_TYPES)),
            "results": results_of(raw.get("metrics"), metadata.get(_METRIC_TYPES), self._objective),
        }
        for name, value in metadata.items():
            if name in self._times:
                document[name] = _time_of(value)
            elif name not in _NO_FIELDS and name not in _ELSEWHERE:
                document[name] = lenient(value)
        if has_id_by_params(raw):
            document["id"] = _id_by_params(raw, document["params"])
        if document.get("heartbeat") == EPOCH:  # as Oríon writes that there is none
            document["heartbeat"] = None
        return document

    def record_of(
        self,
        document: Document,
        old: Mapping[str, Any] | None,
        experiments: Mapping[str, Any],
        new: Callable[[str], dict[str, Any]],
    ) -> dict[str, Any]:
        """Return the trial that shows a document; what is not of the document stays as it was.

        Parameters
        ----------
        old
            The trial in the file so far, None for a new one.
        experiments
            As for `document_of`.
        new
            Makes an empty trial of a hash, if there is none so far; see `empty_trial`.
        """
        raw = dict(old) if old is not None else new(str(document.get("id", document["_id"])))
        metadata = raw["metadata"] = dict(_metadata(raw))
        before = self._read(raw, experiments) if old is not None else {}
        for name in [n for n in before if n not in document and n in metadata]:
            del metadata[name]
        for name, value in document.items():
            if name in before and same(before[name], value):
                continue
            self._show(raw, metadata, name, value, before)
        if old is not None:
            count = metadata.get(_COUNT)
            metadata[_COUNT] = count + 1 if type(count) is int and count < COUNTER_LIMIT else 1
        noted = differences(document, self._read(raw, experiments), _sources(raw))
        ours = dict(ours_of(metadata))
        ours.pop("exact", None)
        if noted:
            ours["exact"] = noted
        metadata.pop(OURS, None)  # it stands last
        metadata[OURS] = ours
        return raw

    def _show(
        self,
        raw: dict[str, Any],
        metadata: dict[str, Any],
        name: str,
        value: Any,
        before: Document,
    ) -> None:
        """Write a field of a document into its place, as far as that can hold it."""
        match name:
            case "id":
                pass  # it is the hash, or differs
            case "status":
                number, shown = _STATUSES.get(value, (0, str(value)))
                raw["status"] = {"value": number, "name": shown}
            case "params":
                raw["parameters"], metadata[_TYPES] = _parameters_of(value)
            case "results":
                raw["metrics"], metadata[_METRIC_TYPES] = with_results(
                    raw.get("metrics"),
                    metadata.get(_METRIC_TYPES),
                    value,
                    before.get("results", ()),
                )
            case "_id" if value == raw["uid"]:
                metadata.pop("_id", None)
            case "experiment" if value == raw.get("group_id"):
                metadata.pop("experiment", None)
            case "heartbeat" if value is None:
                metadata[name] = 0
            case _ if name in self._times:
                metadata[name] = _seconds_of(value)
            case _ if name not in _NO_FIELDS:
                metadata[name] = to_tree(value)


def empty_trial(hash_: str, revision: int, group: str, project: str) -> dict[str, Any]:
    """Return a trial as Track makes it.

    Parameters
    ----------
    hash_, revision
        Together they are its uid: of two trials with the same hash, the second has revision 1.
    group, project
        The uids of its group and of its project.
    """
    return {
        "dtype": "trial",
        "uid": f"{hash_}_{revision}",
        "revision": revision,
        "hash": hash_,
        "name": None,
        "description": None,
        "version": None,
        "tags": {},
        "group_id": group,
        "project_id": project,
        "parameters": {},
        "metadata": {_TYPES: {}, _METRIC_TYPES: {}, _COUNT: 0},
        "metrics": {},
        "chronos": {},
        "errors": [],
        "status": {"value": 0, "name": "CreatedGroup"},
    }


def _metadata(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def has_id_by_params(raw: Mapping[str, Any]) -> bool:
    """Return whether Track made a trial without Oríon, so that its hash is not an id of a trial."""
    hash_ = raw.get("hash")
    return _TYPES not in _metadata(raw) or not (isinstance(hash_, str) and len(hash_) == ID_LENGTH)


def id_by_uid(raw: Mapping[str, Any]) -> str:
    """Return an id for a trial whose params another one has."""
    uid = str(raw.get("uid")).encode("utf-8", "surrogatepass")
    return hashlib.sha256(uid).hexdigest()[:ID_LENGTH]


def _id_by_params(raw: Mapping[str, Any], params: list[dict[str, Any]]) -> str:
    if not raw.get("revision") and params:  # else there are the same params once more
        with suppress(TypeError, ValueError):
            return Trial.from_dict({"params": params}).id
    return id_by_uid(raw)


def _sources(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"results": raw.get("metrics")}  # one more value may be the same as the last one


def _status_of(tree: Any) -> Any:
    name = tree.get("name") if isinstance(tree, dict) else tree
    if name is None and isinstance(tree, dict) and isinstance(tree.get("value"), int):
        return _BY_NUMBER.get(tree["value"], TrialStatus.NEW.value)
    if not isinstance(name, str):
        return TrialStatus.NEW.value if name is None else str(name)
    name = name.lower()
    return _READ_AS.get(name, name)


def _time_of(tree: Any) -> Any:
    if isinstance(tree, int | float) and not isinstance(tree, bool):
        try:
            return EPOCH + timedelta(microseconds=round(tree * 1_000_000))
        except OverflowError:
            return None
    value = lenient(tree)
    return value if isinstance(value, datetime) else None


def _seconds_of(value: Any) -> Any:
    if not isinstance(value, datetime):
        return to_tree(value)
    seconds = (value - EPOCH) / timedelta(seconds=1)
    return seconds if seconds and same(_time_of(seconds), value) else to_tree(value)


def _params_of(parameters: Any, types: Any) -> list[dict[str, Any]]:
    if not isinstance(parameters, dict):
        return []
    if not isinstance(types, dict):
        types = _guessed_types(parameters)
    return [
        {"name": name, "type": kind, "value": lenient(_at(parameters, name))}
        for name, kind in types.items()
    ]


def _parameters_of(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters as a tree by the parts of their names, and their types by name."""
    tree: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for param in params if isinstance(params, list) else ():
        if not isinstance(param, dict) or not isinstance(param.get("name"), str):
            continue
        name = param["name"]
        *branches, leaf = name.split(".")
        node: Any = tree
        for branch in branches:
            node = node.setdefault(branch, {}) if isinstance(node, dict) else None
        if isinstance(node, dict) and leaf not in node:
            node[leaf] = to_tree(param.get("value"))
            types[name] = to_tree(param.get("type"))
    return tree, types


def _at(tree: Any, name: str) -> Any:
    if isinstance(tree, dict) and name in tree:
        return tree[name]
    for part in name.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _guessed_types(tree: Any, prefix: str = "") -> dict[str, str]:
    """Return types for the parameters of a trial that Oríon has not made."""
    types: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value and not any(key.startswith("$") for key in value):
            types |= _guessed_types(value, f"{prefix}{name}.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            types[prefix + name] = "categorical"
        else:
            types[prefix + name] = "integer" if isinstance(value, int) else "real"
    return types
