"""The original's names, with the original's colour."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import aiostorage
from aiostorage import (
    ConfigurationError,
    SyncStorage,
    Trial,
    UnknownStorageType,
    base,
    open_storage,
)
from aiostorage.base import (
    BaseStorageProtocol,
    LockedAlgorithmState,
    ReadOnlyStorageProtocol,
    setup_storage,
    storage_factory,
)
from aiostorage.sync import BaseStorageProtocol as Door


def test_names() -> None:
    assert sorted(base.__all__) == list(base.__all__)
    for name in base.__all__:
        assert hasattr(base, name)
    for name in ("FailedUpdate", "LockAcquisitionTimeout", "MissingArguments", "get_uid"):
        assert getattr(base, name) is getattr(aiostorage, name)
    assert BaseStorageProtocol is Door


@pytest.mark.parametrize("by", ["url", "type", "mapping with a url", "memory"])
def test_setup_storage(tmp_path: Path, by: str) -> None:
    path = tmp_path / "store.db"
    configuration: Any = {
        "url": f"sqlite:///{path}",
        "type": {"type": "sqlite", "path": str(path), "lost_after": 7},
        "mapping with a url": {"url": f"sqlite:///{path}"},
        "memory": {"type": "memory"},
    }[by]
    with setup_storage(configuration) as storage:
        assert isinstance(storage, SyncStorage)
        storage.create_experiment({"name": "tune"})
        assert path.exists() == (by != "memory")


def test_setup_storage_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOSTORAGE_URL", f"sqlite:///{tmp_path}/env.db")
    with setup_storage() as storage:
        assert storage.location.endswith("env.db")
    with setup_storage(debug=True) as storage:
        assert storage.fetch_experiments({}) == []
    assert (tmp_path / "env.db").exists()
    with pytest.raises(UnknownStorageType):
        setup_storage({"type": "odd"})
    with pytest.raises(ConfigurationError):
        setup_storage({})


def test_storage_factory(tmp_path: Path) -> None:
    with storage_factory.create("SQLite", path=tmp_path / "store.db") as storage:
        assert isinstance(storage, SyncStorage)
    assert {"legacy", "memory", "sqlite"} <= set(storage_factory.known())
    with pytest.raises(UnknownStorageType, match="sqlite"):
        storage_factory.create("odd")


def test_orions_configuration(tmp_path: Path) -> None:
    database = {"type": "pickleddb", "host": str(tmp_path / "store.db")}
    with setup_storage({"type": "legacy", "database": database}) as storage:
        storage.create_experiment({"name": "tune"})
    with setup_storage({"database": {"type": "EphemeralDB"}}) as storage:
        assert storage.fetch_experiments({}) == []


def test_read_only() -> None:
    with SyncStorage(open_storage("memory://")) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        params = [{"name": "x", "type": "real", "value": 1.0}]
        trial = storage.register_trial(Trial(experiment=experiment.id, params=params))
        view = ReadOnlyStorageProtocol(storage)
        assert view.fetch_trials(experiment) == [trial]
        assert view.get_trial(trial) == trial
        assert view.count_completed_trials(experiment) == 0
        assert list(view.iter_trials(experiment)) == [trial]
        for name in ("register_trial", "reserve_trial", "close", "acquire_algorithm_lock"):
            with pytest.raises(AttributeError, match=name):
                getattr(view, name)


def test_a_subclass_may_lack_methods() -> None:
    """As with the original: what it lacks raises, what it has is its own."""

    class Legacy(BaseStorageProtocol):
        def fetch_experiments(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
            return [{"query": query, "selection": selection}]

    legacy = Legacy()
    assert legacy.fetch_experiments({"name": "x"}) == [{"query": {"name": "x"}, "selection": None}]
    assert ReadOnlyStorageProtocol(legacy).fetch_experiments({}) != []
    for name, method in vars(BaseStorageProtocol).items():
        if not inspect.isfunction(method) or name == "fetch_experiments":
            continue
        required = [
            None
            for parameter in list(inspect.signature(method).parameters.values())[1:]
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        with pytest.raises(NotImplementedError):
            getattr(legacy, name)(*required)


def test_locked_algorithm_state() -> None:
    state = LockedAlgorithmState({"seed": 1}, {"random": {}})
    assert (state.state, state.configuration, state.locked) == ({"seed": 1}, {"random": {}}, True)
    state.set_state({"seed": 2})
    assert state.state == {"seed": 2}
    state.reset()
    assert state.state == {"seed": 1}


def test_pickled(tmp_path: Path) -> None:
    storage = setup_storage(f"sqlite:///{tmp_path}/store.db")
    storage.create_experiment({"name": "tune"})
    with pickle.loads(pickle.dumps(storage)) as copy:
        assert copy.fetch_experiments({}) == storage.fetch_experiments({})
    storage.close()
