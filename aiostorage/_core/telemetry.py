"""The telemetry of a storage for OpenTelemetry: spans, instruments and their attributes.

This is the one module that knows `opentelemetry`, which is imported when a storage has something
to tell.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiostorage.errors import ConfigurationError
from aiostorage.protocols import Driver

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, MeterProvider
    from opentelemetry.trace import Span, StatusCode, TracerProvider

__all__ = [
    "ObservedCall",
    "Telemetry",
    "driver_within",
    "error_type",
    "is_wanted",
    "store_attributes",
]

SCOPE: Final = "aiostorage"
"""The name of the tracer and of the meter."""

SCHEMA: Final = "https://opentelemetry.io/schemas/1.42.0"
"""The version of the semantic conventions whose names are used."""

PROVIDER_VARIABLES: Final = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")
"""Name a provider that OpenTelemetry makes at its first use."""

CALL_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Boundaries of the buckets of operation times, as the semantic conventions want them."""

WAIT_BUCKETS: Final = (*CALL_BUCKETS, 30.0, 60.0, 300.0, 600.0)
GROUP_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QUEUE_BUCKETS: Final = (0, *GROUP_BUCKETS, 512, 1024)


def is_wanted(telemetry: bool | None) -> bool:
    """Return whether a storage is to have telemetry.

    Parameters
    ----------
    telemetry
        The option of the storage. None: if a provider of traces or of metrics is set.
    """
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if (
        telemetry is False
        or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or SCOPE in (name.strip() for name in disabled.split(","))
    ):
        return False
    return telemetry is True or _is_provider_set()


def _is_provider_set() -> bool:
    if any(name in os.environ for name in PROVIDER_VARIABLES):
        return True
    for signal, getter in (("trace", "get_tracer_provider"), ("metrics", "get_meter_provider")):
        # whoever has set a provider has imported this
        get_provider = getattr(sys.modules.get(f"opentelemetry.{signal}"), getter, None)
        if get_provider is not None:
            owner = type(get_provider()).__module__
            if not f"{owner}.".startswith(f"opentelemetry.{signal}."):  # the API's own do nothing
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Instruments:
    start_span: Callable[..., Span]
    current_span: Callable[[], Span]
    with_span: Callable[[Span], Context]
    attach: Callable[[Context], Token[Context]]
    detach: Callable[[Token[Context]], None]
    failed: StatusCode
    duration: Histogram
    retries: Counter
    lock_wait: Histogram
    lock_hold: Histogram
    heartbeat_lag: Histogram
    group_size: Histogram
    queue_length: Histogram


@cache
def _instruments(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> _Instruments:
    try:
        from opentelemetry import context, metrics, trace  # noqa: PLC0415  most processes do without
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "telemetry needs OpenTelemetry's API: pip install 'aiostorage-orion[telemetry]'"
        ) from error
    version = sys.modules[SCOPE].__version__
    tracer = trace.get_tracer(SCOPE, version, tracer_provider, SCHEMA)
    meter = metrics.get_meter(SCOPE, version, meter_provider, SCHEMA)

    def histogram(name: str, unit: str, boundaries: Sequence[float], text: str) -> Histogram:
        return meter.create_histogram(
            name, unit, text, explicit_bucket_boundaries_advisory=boundaries
        )

    return _Instruments(
        partial(tracer.start_span, kind=trace.SpanKind.CLIENT),
        trace.get_current_span,
        trace.set_span_in_context,
        context.attach,
        context.detach,
        trace.StatusCode.ERROR,
        histogram(
            "db.client.operation.duration",
            "s",
            CALL_BUCKETS,
            "Duration of database client operations.",
        ),
        meter.create_counter(
            "aiostorage.operation.retries",
            "{retry}",
            "Attempts after one that failed in a way that may pass.",
        ),
        histogram(
            "aiostorage.lock.wait_time", "s", WAIT_BUCKETS, "Time to get the algorithm lock."
        ),
        histogram(
            "aiostorage.lock.hold_time", "s", WAIT_BUCKETS, "Time the algorithm lock was held."
        ),
        histogram(
            "aiostorage.heartbeat.lag", "s", WAIT_BUCKETS, "How late heartbeats reached the store."
        ),
        histogram(
            "aiostorage.group.size",
            "{operation}",
            GROUP_BUCKETS,
            "Operations that shared one write.",
        ),
        histogram(
            "aiostorage.queue.length",
            "{operation}",
            QUEUE_BUCKETS,
            "Operations that waited when a write began.",
        ),
    )


class Telemetry:
    """The telemetry of one storage.

    Parameters
    ----------
    driver
        The engine, whose name and location are attributes of everything.
    tracer_provider, meter_provider
        Who is told. Default: those that are set, now or later.

    Raises
    ------
    ConfigurationError
        OpenTelemetry's API is not installed.
    """

    def __init__(
        self,
        driver: Driver,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._instruments = _instruments(tracer_provider, meter_provider)
        self._driver = driver
        self.locate()

    def locate(self) -> None:
        """Ask the engine where it is; one that has just been opened may know better."""
        self._store = store_attributes(self._driver)
        self._named: dict[str, dict[str, Any]] = {}

    def operation(
        self, name: str, collection: str | None, ids: Mapping[str, str] | None = None
    ) -> ObservedCall:
        """Return a public operation that is about to begin; it is a context manager.

        Parameters
        ----------
        name
            The operation.
        collection
            The collection it is about, if there is one.
        ids
            What it is about, for the span alone.
        """
        attributes = self._named.get(name)
        if attributes is None:
            attributes = {**self._store, "db.operation.name": name}
            if collection is not None:
                attributes["db.collection.name"] = collection
            self._named[name] = attributes
        target = collection or self._store.get("db.namespace")
        title = f"{name} {target}" if target else name
        return ObservedCall(self._instruments, title, attributes, ids)

    def retried(self, error: BaseException) -> None:
        """Count another attempt, after one that has failed; the span that is current shows it."""
        named = {"error.type": error_type(error)}
        self._instruments.retries.add(1, {**self._store, **named})
        self._instruments.current_span().add_event("aiostorage.retry", named)

    def beaten(self, lag: float) -> None:
        """Record by how many seconds a heartbeat was late."""
        self._instruments.heartbeat_lag.record(max(lag, 0.0), self._store)

    def waited(self, seconds: float, error: BaseException | None) -> None:
        """Record how long a caller waited for the algorithm lock, whether it got it or not."""
        attributes = self._store
        if error is not None:
            attributes = {**attributes, "error.type": error_type(error)}
        self._instruments.lock_wait.record(seconds, attributes)

    def held(self, seconds: float) -> None:
        """Record how long the algorithm lock was held."""
        self._instruments.lock_hold.record(seconds, self._store)

    def grouped(self, size: int, waiting: int) -> None:
        """Record a write: how many operations share it, and how many wait for a later one."""
        self._instruments.group_size.record(size, self._store)
        self._instruments.queue_length.record(waiting, self._store)


class ObservedCall:
    """A span, and the time it takes; both know the error that ends it.

    Attributes
    ----------
    seconds
        How long it took, once it has ended.
    """

    __slots__ = (
        "_attributes",
        "_ids",
        "_instruments",
        "_span",
        "_start",
        "_title",
        "_token",
        "seconds",
    )

    def __init__(
        self,
        instruments: _Instruments,
        title: str,
        attributes: Mapping[str, Any],
        ids: Mapping[str, str] | None,
    ) -> None:
        self._instruments = instruments
        self._title = title
        self._attributes = attributes
        self._ids = ids
        self._span: Span
        self._token: Token[Context] | None = None
        self._start = 0.0
        self.seconds: float = 0.0

    def begin(self) -> None:
        """Start the span, without making it the current one."""
        attributes = {**self._attributes, **self._ids} if self._ids else self._attributes
        self._start = time.perf_counter()
        self._span = self._instruments.start_span(self._title, attributes=attributes)

    def about(self, ids: Mapping[str, str]) -> None:
        """Add what the operation has turned out to be about."""
        for name, value in ids.items():
            self._span.set_attribute(name, value)

    def end(self, error: BaseException | None = None, seconds: float | None = None) -> None:
        """End the span, and record the time: since the beginning, or so many seconds."""
        self.seconds = time.perf_counter() - self._start if seconds is None else seconds
        attributes, span = self._attributes, self._span
        if error is not None:
            kind = error_type(error)
            attributes = {**attributes, "error.type": kind}
            span.set_attribute("error.type", kind)
            span.set_status(self._instruments.failed, str(error) or kind)
        self._instruments.duration.record(self.seconds, attributes)
        span.end()

    def __enter__(self) -> Self:
        self.begin()
        self._token = self._instruments.attach(self._instruments.with_span(self._span))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.end(exc)
        finally:
            if self._token is not None:
                self._instruments.detach(self._token)


def driver_within(driver: Any) -> Any:
    """Return the engine within the drivers that stand around it."""
    while (inner := getattr(driver, "driver", None)) is not None:
        driver = inner
    return driver


def error_type(error: BaseException) -> str:
    """Return the full name of an error's class; of a built-in one, the name alone."""
    kind = type(error)
    named = kind.__qualname__
    return named if kind.__module__ == "builtins" else f"{kind.__module__}.{named}"


def store_attributes(driver: Driver) -> dict[str, Any]:
    """Return the attributes that name a store; a location has no secrets."""
    attributes: dict[str, Any] = {"db.system.name": driver.name}
    scheme, separator, _ = driver.location.partition("://")
    if not separator:
        attributes["db.namespace"] = driver.location
        return attributes
    from urllib.parse import urlsplit  # noqa: PLC0415  needed by telemetry that is on alone

    place = urlsplit(driver.location)
    if name := place.path.strip("/"):
        attributes["db.namespace"] = name
    if "," in place.netloc or "+" in scheme:  # several servers, which the client chooses among
        attributes["server.address"] = place.netloc
    elif place.hostname:
        attributes["server.address"] = place.hostname
        if place.port is not None:
            attributes["server.port"] = place.port
    return attributes
