"""The words of statuses stand in `TrialStatus` alone: elsewhere they are its members."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import aiostorage
from aiostorage.values import TrialStatus

PACKAGE = Path(aiostorage.__file__).parent

WORDS = frozenset(status.value for status in TrialStatus)

CHANGE = "the kind of a change, in the log or in the outbox"
COLUMN = "the name of a column or of a row that is printed"
EVENT = "what happened to a worker"
NAN = "a value of the option `nan`"

ALLOWED = {
    ("configuration", "storage_options"): (1, NAN),
    ("display", "_processes"): (1, COLUMN),
    ("events", "EventKind"): (2, EVENT),
    ("list_experiments", "COLUMNS"): (1, COLUMN),
    ("list_experiments", "_read"): (1, COLUMN),
    ("list_experiments", "list_experiments"): (1, COLUMN),
    ("log_rows", "log_entries"): (2, CHANGE),
    ("nan_policy", "NanPolicy"): (1, NAN),
    ("nan_policy", "_CHOICES"): (2, NAN),
    ("noting", "_inserted"): (1, CHANGE),
    ("noting", "_kind"): (1, CHANGE),
    ("outbox", "MirrorRecord"): (1, CHANGE),
    ("report", "DemoReport"): (1, COLUMN),
    ("run", "DemoSettings"): (1, NAN),
    ("show", "_experiment_lines"): (1, COLUMN),
    ("show", "_read"): (1, COLUMN),
    ("trial_document", "_MOMENTS"): (1, "the name of a time of Optuna's"),
    ("trial_record", "_STATUSES"): (2, "Track's own word"),
    ("worker_progress", "_description"): (4, EVENT),
    ("worker_progress", "shown_progress"): (1, EVENT),
    ("worker_report", "Tally"): (3, EVENT),
    ("worker_tasks", "_became"): (3, EVENT),
}
"""How many such words are no statuses, and why: by the module, and by what contains them there."""


def test_the_word_of_a_status_stands_in_its_enumeration_alone() -> None:
    found = {
        (module.stem, place): words
        for module in modules()
        for place, words in words_by_place(ast.parse(module.read_text(encoding="utf-8")))
    }
    unexpected = {
        place: words
        for place, words in found.items()
        if place not in ALLOWED or len(words) != ALLOWED[place][0]
    }
    assert not unexpected, "use TrialStatus.…, or say in ALLOWED why it is no status"
    assert not ALLOWED.keys() - found.keys(), "no such word stands there any more"


def modules() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "testing" not in path.relative_to(PACKAGE).parts:
            yield path


def words_by_place(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each definition that has such words outside of types, with the words."""
    for statement in tree.body:
        words = [
            node.value
            for node in outside_of_literals(statement)
            if isinstance(node, ast.Constant) and node.value in WORDS
        ]
        if words and name_of(statement) != TrialStatus.__name__:
            yield name_of(statement), words


def outside_of_literals(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, without those in a ``Literal[…]``, which takes no other words."""
    yield node
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        return
    for child in ast.iter_child_nodes(node):
        yield from outside_of_literals(child)


def name_of(statement: ast.stmt) -> str:
    """Return the name that a statement gives, or the words it begins with."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return ast.unparse(statement)[:40]
