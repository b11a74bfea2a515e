"""Storages with telemetry for OpenTelemetry.

A storage without a tracer or a meter is not touched: its calls cost what they cost without this
module. One that has them becomes an instance of a subclass with spans around the public methods.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache, wraps
from time import perf_counter
from types import TracebackType
from typing import Any, Final

from aiostorage._core.telemetry import Telemetry, driver_within, is_wanted
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial

__all__ = ["COLLECTIONS", "observe", "observe_by"]

NOT_OBSERVED: Final = frozenset({"open", "aclose", "watch_trials"})
"""Methods without a span: they last as long as the storage, or as long as their caller reads."""

COLLECTIONS: Final = (
    ("algorithm_lock", "algo"),
    ("benchmark", "benchmarks"),
    ("trial", "trials"),
    ("result", "trials"),
    ("reservation", "trials"),
    ("heartbeat", "trials"),
    ("experiment", "experiments"),
)
"""The collection of an operation: that of the first of these words in its name."""

LOCK: Final = "acquire_algorithm_lock"

PLAIN: Final = "_observed_class_of"
"""The attribute of an observed class that is the class without spans."""


def observe(storage: Any, telemetry: bool | None) -> None:
    """Give a storage telemetry, if that is wanted and it has none yet.

    Raises
    ------
    ConfigurationError
        It is asked for, and OpenTelemetry's API is not installed.
    """
    if is_wanted(telemetry):
        gateway = storage._gateway  # noqa: SLF001  of the class that calls this
        observe_by(storage, gateway.telemetry or Telemetry(gateway.driver))


def observe_by(storage: Any, telemetry: Telemetry) -> None:
    """Use this telemetry for a storage."""
    gateway = storage._gateway  # noqa: SLF001  as above
    gateway.telemetry = telemetry
    engine = driver_within(gateway.driver)
    if hasattr(engine, "on_group"):
        engine.on_group = telemetry.grouped
    cls: Any = type(storage)
    if PLAIN not in vars(cls):
        storage.__class__ = _observed_class(cls)


@cache
def _observed_class(cls: Any) -> Any:
    """Return a subclass whose public operations are observed; it has the same name."""
    operations = {
        name: _observed(name, getattr(cls, name))
        for name, declared in vars(AsyncStorageProtocol).items()
        if inspect.isfunction(declared) and not name.startswith("_") and name not in NOT_OBSERVED
    }
    own = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduced,
        PLAIN: cls,
    }
    return type(cls)(cls.__name__, (cls,), {**own, **operations})


def _reduced(storage: Any, protocol: Any) -> tuple[Any, ...]:
    """Pickle as the original class: a copy decides for itself whether to have telemetry."""
    plain = getattr(type(storage), PLAIN)
    _, (_, *arguments), *rest = plain.__reduce_ex__(storage, max(int(protocol), 2))
    return _blank, (plain, *arguments), *rest


def _blank(cls: Any, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)


def _collection_of(name: str) -> str | None:
    return next((collection for word, collection in COLLECTIONS if word in name), None)


def _observed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    collection = _collection_of(name)
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            telemetry: Telemetry = self._gateway.telemetry
            with telemetry.operation(name, collection, _first_ids(args, kwargs)) as operation:
                result = await method(self, *args, **kwargs)
                operation.about(_ids_of(result))
                return result

        return call

    @wraps(method)
    def begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        telemetry: Telemetry = self._gateway.telemetry
        ids = _first_ids(args, kwargs)
        if hasattr(result, "__aenter__"):
            return _ObservedBlock(telemetry, name, collection, ids, result)
        return _iterated(telemetry, name, collection, ids, result)

    return begin


class _ObservedBlock(AbstractAsyncContextManager[Any]):
    """A block with two spans: one until its body begins, and one from the body's end on."""

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        collection: str | None,
        ids: Mapping[str, str],
        block: AbstractAsyncContextManager[Any],
    ) -> None:
        self._telemetry = telemetry
        self._name = name
        self._collection = collection
        self._ids: dict[str, str] = {**ids}
        self._block = block
        self._begun = 0.0

    async def __aenter__(self) -> Any:
        operation = self._telemetry.operation(self._name, self._collection, self._ids)
        error: BaseException | None = None
        try:
            with operation:
                value = await self._block.__aenter__()
                operation.about(found := _ids_of(value))
        except BaseException as raised:
            error = raised
            raise
        finally:
            if self._name == LOCK:
                self._telemetry.waited(operation.seconds, error)
        self._ids |= found
        self._begun = perf_counter()
        return value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            with self._telemetry.operation(f"{self._name}.end", self._collection, self._ids):
                return await self._block.__aexit__(exc_type, exc, traceback)
        finally:
            if self._name == LOCK:
                self._telemetry.held(perf_counter() - self._begun)

    def suppresses(self, error: BaseException) -> bool:
        """Return whether a block that was left before its body ended suppresses the error."""
        suppresses = getattr(self._block, "suppresses", None)
        return suppresses is not None and bool(suppresses(error))


async def _iterated(
    telemetry: Telemetry,
    name: str,
    collection: str | None,
    ids: Mapping[str, str],
    items: AsyncIterator[Any],
) -> AsyncIterator[Any]:
    """Yield the items in a single span, which measures the time that was spent on finding them.

    The span is not made the current one, since the caller's spans would become its children.
    """
    operation = telemetry.operation(name, collection, ids)
    operation.begin()
    spent, error = 0.0, None
    try:
        while True:
            start = perf_counter()
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            except BaseException as raised:
                error = raised
                raise
            finally:
                spent += perf_counter() - start
            yield item
    finally:
        operation.end(error, spent)
        if (aclose := getattr(items, "aclose", None)) is not None:
            await aclose()


def _first_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of the experiment or the trial that the first argument names."""
    return _ids_of(args[0] if args else next(iter(kwargs.values()), None))


def _ids_of(value: Any) -> dict[str, str]:
    if isinstance(value, Trial):
        ids = {"aiostorage.experiment.id": str(value.experiment)}
        if value.experiment is None:
            ids = {}
        return {**ids, "aiostorage.trial.id": value.id}
    if isinstance(value, Experiment):
        return {"aiostorage.experiment.id": str(value.id)}
    return {}
