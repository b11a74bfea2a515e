"""Fail points: commands of a MongoDB server that fail on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["FailPoint", "fail_point_on"]


@dataclass(slots=True)
class FailPoint:
    """A fail point of a server.

    Attributes
    ----------
    hits : int
        How often it made something fail; known when it is off again.
    """

    hits: int = 0


@contextmanager
def fail_point_on(
    client: MongoClient[dict[str, Any]],
    name: str,
    mode: object,
    data: Mapping[str, Any],
    gone: Callable[[], bool],
) -> Iterator[FailPoint]:
    """Turn a fail point on while a block runs.

    Parameters
    ----------
    client
        A client of the server.
    name, mode, data
        What ``configureFailPoint`` takes.
    gone
        Whether the server does not run any more; then there is nothing to turn off.
    """
    from pymongo.errors import ConnectionFailure  # noqa: PLC0415  only for those who ask

    point = FailPoint()
    before = client.admin.command("configureFailPoint", name, mode=mode, data=data)["count"]
    try:
        yield point
    finally:
        try:
            after = client.admin.command("configureFailPoint", name, mode="off")["count"]
            point.hits = after - before
        except ConnectionFailure:
            if not gone():
                raise
