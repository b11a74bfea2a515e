"""Arguments of functions and constructors: one clear error when they are of the wrong kind."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from aiostorage import (
    AioStorageError,
    Experiment,
    ReadOnlyStorage,
    RetryPolicy,
    Storage,
    SyncStorage,
    Trial,
    get_trial_uid_and_exp,
    get_uid,
    open_storage,
    setup_storage,
    storage_factory,
    upgrade_storage,
)
from aiostorage._core.arguments import KINDS, KNOWN, check_arguments
from aiostorage._core.kinds import COUNT, SECONDS, TEXT, choice, optional, shown
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.errors import ConfigurationError, EncodingError, InvalidArgument
from aiostorage.orion import export_orion, import_orion
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.imports import import_runs

SECRET = ["mongodb://user:SECRET@host/database"]


def _storage(**options: Any) -> Storage:
    return Storage(MemoryDriver(), **options)


Tried: TypeAlias = tuple[Callable[..., Any], dict[str, Any], str, tuple[Any, ...]]

CALLS: list[Tried] = [
    (open_storage, {}, "url", (None, 5, b"x", SECRET, {}, "\ud800")),
    (open_storage, {"url": "memory://"}, "retry", (5, {}, "x")),
    (open_storage, {"url": "memory://"}, "tracker", (5, object(), [])),
    (upgrade_storage, {}, "url", (5, b"x", SECRET)),
    (upgrade_storage, {"url": "memory://"}, "backup", (None, 5, [])),
    (upgrade_storage, {"url": "memory://"}, "dry_run", (None, "no", 5)),
    (setup_storage, {}, "storage", (5, SECRET, object())),
    (setup_storage, {}, "debug", (None, "no", 5)),
    (storage_factory.create, {"of_type": "legacy"}, "database", (5, "x", SECRET)),
    (storage_factory.create, {"of_type": "mongodb"}, "host", (5, [], {})),
    (storage_factory.create, {"of_type": "mongodb"}, "port", (1.5, [], True)),
    (storage_factory.create, {"of_type": "mongodb"}, "name", (5, [], b"x")),
    (storage_factory.create, {"of_type": "mongodb"}, "client", (5, [], "other")),
    (storage_factory.create, {"of_type": "mongodb"}, "read_only", (5, None, "no")),
    (storage_factory.create, {"of_type": "mongodb"}, "password", (5, SECRET)),
    (Storage, {}, "driver", (None, 5, object(), MemoryDriver)),
    (_storage, {}, "retry", (5, {})),
    (_storage, {}, "lost_after", ("x", None, True, 0, -1, float("nan"), 10**400)),
    (_storage, {}, "lock_lease", ("x", None, True, 0, -1, float("nan"))),
    (_storage, {}, "state_codec", (None, 5, [])),
    (_storage, {}, "nan", (5, [], "x", True)),
    (_storage, {}, "fill_version", (5, None, "x")),
    (_storage, {}, "tracker", (5, object())),
    (_storage, {}, "objective", (5, [])),
    (_storage, {}, "deliver_on_close", ("x", None, True, -1, float("inf"), float("nan"))),
    (SyncStorage, {}, "storage", (None, 5, MemoryDriver(), "sqlite:///x.db")),
    (SyncStorage, {"storage": _storage()}, "in_running_loop", (None, "x", 5)),
    (ReadOnlyStorage, {}, "storage", (None, 5)),
    *[
        (RetryPolicy, {}, name, (None, "x", True, float("nan"), -1, 10**400))
        for name in ("attempts", "total", "attempt_timeout", "initial", "maximum", "jitter")
    ],
    (SQLiteDriver, {"path": "x.db"}, "synchronous", (5, None, [], "full")),
    (Trial, {}, "experiment", (1.5, True, [], 2**70, "\ud800")),
    (Trial, {}, "params", (5, "x", b"x", [5], [{"name": "x", "typ": 1}])),
    (Trial, {}, "results", ("x", [5], True)),
    (Trial, {}, "status", (5, None, [], "bogus")),
    (Trial, {}, "worker", (5, [])),
    (Trial, {}, "submit_time", (5, "2026-01-01")),
    (Trial, {}, "heartbeat", (5, True)),
    (Trial, {}, "parent", (1.5, [])),
    (Trial, {}, "exp_working_dir", (5, [])),
    (Trial, {}, "_id", (1.5, [])),
    (Trial.from_dict, {}, "document", (None, 5, "x", [])),
    (Trial.build, {}, "documents", (None, 5)),
    (Trial.compute_trial_hash, {}, "trial", (None, 5, {})),
    (Trial.format_params, {}, "params", (None, 5, [5])),
    (Trial(params={"x": 1, "y": 2}).params_repr, {}, "sep", (None, 5)),
    (Trial(params={"x": 1}).branch, {}, "params", (5, "x", [1])),
    (Experiment, {"name": "x"}, "id", (None, 1.5, [], 2**70)),
    (Experiment, {"id": 1, "name": "x"}, "config", (None, 5, [1])),
    (Experiment.from_config, {}, "config", (None, 5, [])),
    (get_uid, {}, "uid", (1.5, [], True, b"x")),
    (get_trial_uid_and_exp, {}, "trial", (5, "x", {})),
    (tracker_from_url, {}, "url", (None, 5, SECRET)),
    (import_runs, {"experiment": "e", "storage": _storage()}, "tracker", (None, 5)),
    (import_orion, {"source": "x"}, "storage", (None, 5)),
    (import_orion, {"storage": _storage()}, "source", (None, 5, b"a")),
    (import_orion, {"storage": _storage(), "source": "x"}, "overwrite", (None, "x")),
    (export_orion, {"destination": "x"}, "storage", (None, 5)),
    (export_orion, {"storage": _storage()}, "destination", (None, 5, b"a")),
    (export_orion, {"storage": _storage(), "destination": "x"}, "progress", (5, "x")),
]


async def _awaited(made: Awaitable[object]) -> None:
    await made


@pytest.mark.parametrize(
    "tried", CALLS, ids=[f"{getattr(tried[0], '__qualname__', '')}-{tried[2]}" for tried in CALLS]
)
def test_what_an_argument_may_not_be(
    tried: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, others, argument, values = tried
    monkeypatch.chdir(tmp_path)
    for value in values:
        with pytest.raises(AioStorageError) as raised:
            made = call(**others, **{argument: value})
            if inspect.isawaitable(made):
                anyio.run(_awaited, made)
        message = str(raised.value)
        assert argument in message
        assert "SECRET" not in message
        assert len(message) < 400
    assert not list(tmp_path.iterdir())


def test_the_error_is_of_all_kinds_that_callers_catch() -> None:
    error = COUNT.refusal("reserve_trials", "count", "x")
    assert str(error) == "reserve_trials: count is an int of 64 bits, at least 1, not 'x'"
    assert isinstance(error, InvalidArgument)
    assert isinstance(error, TypeError)
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.call, again.argument) == (str(error), "reserve_trials", "count")


def test_every_method_has_kinds_for_its_arguments() -> None:
    unchecked = {"algo_state", "state", "new_state", "results", "reservation"}
    for method, kinds in KINDS.items():
        parameters = inspect.signature(getattr(AsyncStorageProtocol, method)).parameters
        named = [
            name
            for name, parameter in parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        assert list(kinds) == [name for name in named[1:] if name not in unchecked]


def test_what_needs_no_further_look_is_right() -> None:
    assert ("update_heartbeat", Trial) in KNOWN
    assert ("reserve_trial", Experiment, float, bool) in KNOWN
    with pytest.raises(InvalidArgument):
        check_arguments("reserve_trials", Experiment(1, "x"), 0, True)


def test_kinds() -> None:
    assert not any(map(SECONDS.accepts, [float("nan"), True, "1", None, 10**400, 1j]))
    assert all(map(SECONDS.accepts, [0, 0.5, -1, float("inf")]))
    assert optional(TEXT).accepts(None)
    assert optional(TEXT).wants == "a str, or None"
    assert not choice("a", "b").accepts(["a"])
    assert choice("a", "b", "c").wants == "one of 'a', 'b', 'c'"


def test_values_are_shown_in_one_short_line() -> None:
    class Many:
        def __repr__(self) -> str:
            return "line\n" * 1000

    assert shown("x" * 1000).startswith("'xxx")
    for value in (Many(), "x" * 1000, 10**5000, [["y" * 100] * 100] * 100, {1: {2: {3: {4: 5}}}}):
        assert len(shown(value)) <= 120
        assert "\n" not in shown(value)


def test_a_configuration_error_for_options() -> None:
    with pytest.raises(ConfigurationError, match="open_storage: url is a str, not a list"):
        open_storage(SECRET)  # type: ignore[arg-type]


def test_a_path_instead_of_a_url() -> None:
    path: Any = Path("tune.db")
    with pytest.raises(ConfigurationError, match=r"of a path, write f'sqlite:///\{path\}'$"):
        open_storage(path)


@pytest.mark.anyio
async def test_the_error_says_where_an_id_belongs() -> None:
    async with _storage() as storage:
        wrong: Any = "id"
        with pytest.raises(InvalidArgument, match=r"; pass an id as uid='id'$"):
            await storage.get_trial(wrong)
        with pytest.raises(InvalidArgument, match=r"; get_trial\(uid=…, experiment_uid=…\)"):
            await storage.complete_trial(wrong, 1)
        with pytest.raises(EncodingError, match=r"Trial\(experiment=experiment\.id"):
            await storage.register_trial(Trial(params={"x": 1}))
