"""A trial group in the format of Track, and the config of an experiment as a document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from aiostorage._core.document_json import to_tree
from aiostorage.drivers.track.exact import (
    OURS,
    differences,
    lenient,
    ours_of,
    same,
    with_differences,
)
from aiostorage.operations import Document

__all__ = ["config_of", "group_of"]


def config_of(raw: Mapping[str, Any]) -> Document:
    """Return the config of the experiment that a group is."""
    return with_differences(_read(raw), ours_of(_metadata(raw)).get("exact"), {})


def group_of(document: Document, old: Mapping[str, Any] | None, project: str) -> dict[str, Any]:
    """Return the group that shows a config; what is not of the config stays as it was.

    Parameters
    ----------
    document
        The config.
    old
        The group in the file so far, None for a new one.
    project
        The uid of the project.
    """
    raw = dict(old) if old is not None else _new(document, project)
    metadata = raw["metadata"] = dict(_metadata(raw))
    before = _read(raw) if old is not None else {}
    for name in [n for n in before if n not in document and n in metadata]:
        del metadata[name]
    for name, value in document.items():
        if name in before and same(before[name], value):
            continue
        if name != OURS:
            metadata[name] = _unfolded(to_tree(value))
    ours = dict(ours_of(metadata))
    ours.pop("exact", None)
    metadata.pop(OURS, None)  # it stands last
    if noted := differences(document, _read(raw), {}):
        ours["exact"] = noted
    metadata[OURS] = ours
    return raw


def _read(raw: Mapping[str, Any]) -> Document:
    metadata = _metadata(raw)
    document: Document = {"_id": raw.get("uid")}
    if "name" not in metadata:  # Oríon has not made it
        document["name"] = f"{raw.get('project_id')}/{raw.get('name')}"
    for name, value in metadata.items():
        if name != OURS:
            document[name] = lenient(value)
    return document


def _new(document: Document, project: str) -> dict[str, Any]:
    name, uid = _names_of(document, project)
    return {
        "dtype": "trial_group",
        "uid": uid,
        "name": name,
        "description": None,
        "metadata": {},
        "project_id": project,
    }


def _names_of(document: Document, project: str) -> tuple[str, str]:
    """Return the name and the uid that Oríon's Track gives a group, so that it makes no second."""
    name, version = str(document.get("name")), document.get("version")
    if type(version) is not int or not 0 <= version < 256:
        return f"{name} {version}", str(document["_id"])
    group = hashlib.sha256(name.encode("utf-8", "surrogatepass") + bytes([version])).hexdigest()
    return group, hashlib.sha256((group + project).encode("utf-8", "surrogatepass")).hexdigest()


def _unfolded(tree: Any) -> Any:
    """Return a tree as Track writes it: dotted keys become dicts in dicts, at the top of a dict."""
    if not isinstance(tree, dict) or not any("." in key for key in tree):
        return tree
    unfolded: dict[str, Any] = {}
    for key, value in tree.items():
        *branches, leaf = key.split(".")
        node = unfolded
        for branch in branches:
            inner = node.get(branch)
            node[branch] = node = dict(inner) if isinstance(inner, dict) else {}
        node[leaf] = value
    return unfolded


def _metadata(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
