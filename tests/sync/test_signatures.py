"""The facade, the async protocol and the original agree, parameter by parameter."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aiostorage import Storage, SyncStorage
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.sync import BaseStorageProtocol

needs_orion = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Oríon 0.2.7 does not run on Python 3.12 and later"
)

LIFETIME = {"aclose": "close"}
"""What has another name because it is not awaited."""


def methods_of(owner: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


ASYNC = methods_of(AsyncStorageProtocol)
ORIGINAL = methods_of(BaseStorageProtocol)


@pytest.mark.parametrize("name", ASYNC)
def test_every_async_method_has_a_synchronous_twin(name: str) -> None:
    twin = vars(SyncStorage)[LIFETIME.get(name, name)]
    assert parameters(twin) == parameters(ASYNC[name])
    assert not inspect.iscoroutinefunction(twin)
    assert parameters(vars(Storage)[name]) == parameters(ASYNC[name])


def test_the_facade_has_nothing_else() -> None:
    ours = {LIFETIME.get(name, name) for name in ASYNC} | {"in_collections"}
    assert set(methods_of(SyncStorage)) == ours


def _given(annotation: object) -> str:
    """Answer the annotation of an answer without what makes it asynchronous."""
    text = str(annotation)
    for long, short in (
        ("AbstractAsyncContextManager", "AbstractContextManager"),
        ("AsyncIterator", "Iterator"),
    ):
        text = text.replace(long, short)
    return text


@pytest.mark.parametrize("name", ASYNC)
def test_annotations_are_the_same(name: str) -> None:
    twin = vars(SyncStorage)[LIFETIME.get(name, name)]
    theirs = dict(ASYNC[name].__annotations__)
    theirs["return"] = _given(theirs["return"])
    assert twin.__annotations__ == theirs


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_synchronous_door_is_the_facades(name: str) -> None:
    assert parameters(ORIGINAL[name]) == parameters(vars(SyncStorage)[name])
    assert issubclass(SyncStorage, BaseStorageProtocol)


@needs_orion
def test_orions_own_protocol_comes_first() -> None:
    """Whatever calls Oríon's methods, by position or by name, can call ours."""
    import orion.storage.base as original

    from aiostorage.orion import AioStorage

    theirs = methods_of(original.BaseStorageProtocol)
    assert len(theirs) > 25
    for name, method in theirs.items():
        wanted = parameters(method)
        for owner in (SyncStorage, BaseStorageProtocol, AioStorage):
            ours = parameters(vars(owner)[name])
            assert ours[: len(wanted)] == wanted, (owner, name)
            more = ours[len(wanted) :]
            assert all(
                default is not inspect.Parameter.empty
                or kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
                for _, kind, default in more
            ), (owner, name)


@needs_orion
def test_orions_other_names_are_there() -> None:
    import orion.storage.base as original

    import aiostorage.base as ours

    for name in (
        "BaseStorageProtocol",
        "FailedUpdate",
        "LockAcquisitionTimeout",
        "LockedAlgorithmState",
        "MissingArguments",
        "ReadOnlyStorageProtocol",
        "get_trial_uid_and_exp",
        "get_uid",
        "setup_storage",
        "storage_factory",
    ):
        assert hasattr(original, name)
        assert name in ours.__all__
    for name in ("get_trial_uid_and_exp", "setup_storage"):
        assert parameters(getattr(ours, name)) == parameters(getattr(original, name)), name
    assert parameters(ours.get_uid)[:2] == parameters(original.get_uid)[:2]
    assert (
        original.ReadOnlyStorageProtocol.valid_attributes
        <= ours.ReadOnlyStorageProtocol.valid_attributes
    )
    locked = parameters(original.LockedAlgorithmState.__init__)
    assert parameters(ours.LockedAlgorithmState.__init__)[: len(locked)] == locked
