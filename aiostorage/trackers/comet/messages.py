"""The contents of a run as messages of ``comet_ml``, whose form its own version knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiostorage.trackers.comet.comet_contents import RunContents, Scalar
from aiostorage.trackers.comet.package import import_comet

__all__ = ["archive_messages", "metric_batch", "param_batch"]


def param_batch(params: Mapping[str, Scalar], timestamp: int) -> list[dict[str, Any]]:
    """Return params in the form of the batch endpoint."""
    return [message.to_batch_message_dict() for message in _params(params, timestamp)]


def metric_batch(metrics: Mapping[str, int | float | str], timestamp: int) -> list[dict[str, Any]]:
    """Return metrics in the form of the batch endpoint."""
    return [message.to_batch_message_dict() for message in _metrics(metrics, timestamp)]


def archive_messages(contents: RunContents) -> list[dict[str, Any]]:
    """Return all that a run has, in the form of the lines of an offline archive."""
    classes = import_comet("comet_ml.messages")
    messages = [
        *_params(contents.params, contents.timestamp),
        *_metrics(contents.metrics, contents.timestamp),
        *(classes.LogOtherMessage(key, value) for key, value in contents.others.items()),
    ]
    for number, message in enumerate(messages, start=1):
        message.message_id = number
    return [{"type": each.type, "payload": each.to_message_dict()} for each in messages]


def _params(params: Mapping[str, Scalar], timestamp: int) -> Iterator[Any]:
    classes = import_comet("comet_ml.messages")
    for name, value in params.items():
        message = classes.ParameterMessage(timestamp=timestamp)
        message.set_param(name, value, source=message.source_manual)
        yield message


def _metrics(metrics: Mapping[str, int | float | str], timestamp: int) -> Iterator[Any]:
    classes = import_comet("comet_ml.messages")
    for name, value in metrics.items():
        message = classes.MetricMessage(timestamp=timestamp)
        message.set_metric(name, value)
        yield message
