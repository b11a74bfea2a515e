"""Generate the synchronous twins of `AsyncStorageProtocol`: the facade and the original's protocol.

    python tools/generate_sync.py            writes both modules
    python tools/generate_sync.py --check    changes nothing; shows what differs, and exits with 1

The signatures and docstrings come from ``aiostorage/protocols.py``; ``ruff format`` formats the
result, so it has to be installed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "aiostorage/protocols.py"
FACADE = "aiostorage/sync/facade.py"
ORIGINAL = "aiostorage/sync/base_protocol.py"

Method = ast.FunctionDef | ast.AsyncFunctionDef

LIFETIME = frozenset({"aclose"})
"""Written by hand, in ``aiostorage/sync/portal_storage.py``."""

BEYOND_THE_ORIGINAL = frozenset(
    {
        "best_trial",
        "changes_since",
        "complete_trial",
        "count_trials",
        "flush_tracker",
        "get_or_create_experiment",
        "iter_trials",
        "limit_reached",
        "recover_lost_trials",
        "register_trials",
        "reserve_trials",
        "reserved_trial",
        "resume_reservation",
        "summary",
        "to_arrow",
        "to_dataframe",
        "tracker_environment",
        "trial_history",
        "wait_for",
        "watch_trials",
    }
)
"""Methods that the original's protocol does not have."""

TYPES = {
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncIterator": "Iterator",
}

WORDS = {
    "a heartbeat notices that, the body is cancelled. The": (
        "a heartbeat notices that, the body runs on. The"
    ),
    "if the body was cancelled or ended": "if the body was interrupted or ended",
    "the body was cancelled, or the state": "the state",
    "exception, cancellation included,": "exception, Ctrl-C included,",
}
"""Words of the docstrings that hold for tasks, and those that hold for threads instead."""

HEADER = '''"""{title}

Generated from `aiostorage.protocols` by ``python tools/generate_sync.py``; do not edit it here.
"""

from __future__ import annotations

from collections.abc import {abstract}
from contextlib import AbstractContextManager
from datetime import datetime
from typing import {typing}

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.experiment import Experiment
{imports}

__all__ = ["{name}"]


class {name}{bases}:
'''

FACADE_HEADER = HEADER.format(
    title="The synchronous facade: the original's methods over any async storage.",
    abstract="Collection, Iterator, Mapping, Sequence",
    typing="Any, Literal, overload",
    imports="""from aiostorage.operations import Document
from aiostorage.protocols import ExperimentLike, Uid
from aiostorage.reservation import Reservation
from aiostorage.summary import Direction, ExperimentSummary
from aiostorage.sync.base_protocol import BaseStorageProtocol
from aiostorage.sync.portal_storage import PortalStorage
from aiostorage.trial import Trial
from aiostorage.trial_change import TrialChange, TrialChanges
from aiostorage.values import FINAL_STATUSES, Results""",
    name="SyncStorage",
    bases="(PortalStorage, BaseStorageProtocol)",
)

FACADE_DOC = '''\
    """A storage for callers without an event loop: legacy code, scripts, Oríon.

    Every method does what the async one of the same name does, in an event loop in a thread of its
    own, and waits for it. Any number of threads may share one. It opens with its first call; it is
    closed by ``with``, by `close`, or at exit. A pickled or forked copy opens the storage again.

    Parameters
    ----------
    storage
        The async storage, made by `aiostorage.open_storage` and not opened. It belongs to this
        facade from now on.
    in_running_loop
        Whether calls are allowed in a thread whose event loop runs. They block that loop until
        they return; that may be wanted in a notebook, and is a fault anywhere else.

    Examples
    --------
    >>> with SyncStorage(open_storage("sqlite:///tune.db")) as storage:
    ...     experiment = storage.create_experiment({"name": "tune"})
    """
'''

ORIGINAL_HEADER = HEADER.format(
    title="The synchronous protocol, as the original declares it.",
    abstract="Mapping",
    typing="Any",
    imports="""from aiostorage.protocols import ExperimentLike, Uid
from aiostorage.trial import Trial""",
    name="BaseStorageProtocol",
    bases="",
)

ORIGINAL_DOC = '''\
    """The original's synchronous protocol: what legacy code calls and legacy storages subclass.

    As in the original, a subclass need not have all methods: one that it lacks raises
    `NotImplementedError`. `aiostorage.SyncStorage` has them all.
    """
'''


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated modules; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; show what differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout; default: this one")
    options = parser.parse_args(arguments)
    stale = False
    for name, text in generate(options.root).items():
        file = options.root / name
        if options.check:
            stale |= differs(name, file.read_text(encoding="utf-8"), text)
        else:
            file.write_text(text, encoding="utf-8")
    if stale:
        print("write them again with: python tools/generate_sync.py")
    return int(stale)


def differs(name: str, committed: str, generated: str) -> bool:
    """Return whether the texts differ, and print how."""
    diff = difflib.unified_diff(
        committed.splitlines(), generated.splitlines(), name, f"{name} (generated)", lineterm=""
    )
    lines = list(diff)
    print(*lines, sep="\n", end="\n" if lines else "")
    return bool(lines)


def generate(root: Path) -> dict[str, str]:
    """Return the text of each generated module by its path."""
    source = (root / SOURCE).read_text(encoding="utf-8")
    methods = [synchronous(method) for method in protocol_methods(source)]
    missing = [words for words in WORDS if words not in source]
    if missing:
        raise SystemExit(f"{SOURCE} does not say any more what WORDS translates: {missing}")
    facade = (with_body(method, call(method)) for method in methods)
    original = (
        with_body(method, ast.parse("raise NotImplementedError").body[0])
        for method in methods
        if method.name not in BEYOND_THE_ORIGINAL
    )
    return {
        FACADE: formatted(FACADE_HEADER + FACADE_DOC + unparsed(facade)),
        ORIGINAL: formatted(ORIGINAL_HEADER + ORIGINAL_DOC + unparsed(original)),
    }


def protocol_methods(source: str) -> Iterator[Method]:
    """Return the methods of the async protocol, overloads included."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "AsyncStorageProtocol":
            yield from (
                method
                for method in node.body
                if isinstance(method, Method) and method.name not in LIFETIME
            )


def synchronous(method: Method) -> ast.FunctionDef:
    """Return the method without ``async``, with the types and words of synchronous code."""
    text = ast.unparse(method).removeprefix("async ")
    for old, new in (TYPES | WORDS).items():
        text = text.replace(old, new)
    return cast("ast.FunctionDef", ast.parse(text).body[0])


def with_body(method: ast.FunctionDef, statement: ast.stmt) -> ast.FunctionDef:
    """Return the method with this statement after its docstring; an overload stays as it is."""
    if method.decorator_list:
        return method
    return ast.FunctionDef(
        name=method.name,
        args=method.args,
        body=[method.body[0], statement],
        decorator_list=[],
        returns=method.returns,
        lineno=0,
    )


def call(method: ast.FunctionDef) -> ast.stmt:
    """Return the statement that passes a call on to the async method."""
    name, given = method.name, method.args
    arguments = [argument.arg for argument in given.args[1:]]
    arguments += [f"*{given.vararg.arg}"] if given.vararg else []
    arguments += [f"{argument.arg}={argument.arg}" for argument in given.kwonlyargs]
    arguments += [f"**{given.kwarg.arg}"] if given.kwarg else []
    passed = ", ".join([f"self._storage.{name}", *arguments])
    returns = ast.unparse(method.returns) if method.returns else ""
    if returns.startswith("Iterator"):
        items = f"self._storage.{name}({', '.join(arguments)})"
        batch = "batch_size" if "batch_size" in passed else "1"  # what never ends has no batches
        text = f"return self._iterate({name!r}, {items}, {batch})"
    elif returns.startswith("AbstractContextManager"):
        text = f"return self._portal.context({passed})"
    elif returns == "None":
        text = f"self._portal.call({passed})"
    else:
        text = f"return self._portal.call({passed})"
    return ast.parse(text).body[0]


def unparsed(methods: Iterator[ast.FunctionDef]) -> str:
    """Return the source of a class body."""
    body = ast.ClassDef("_", [], [], list(methods), [])
    return ast.unparse(ast.fix_missing_locations(body)).partition("\n")[2] + "\n"


def formatted(text: str) -> str:
    """Return the text as ``ruff format`` writes it by the settings of this checkout."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", FACADE, "-"]
    done = subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
