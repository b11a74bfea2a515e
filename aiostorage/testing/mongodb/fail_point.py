"""Fail points: commands of a MongoDB server that fail on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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
        How often it made something fail; known when it is off again, and zero if the server was
        killed before.
    """

    hits: int = 0


@contextmanager
def fail_point_on(
    connect: Callable[[], AbstractContextManager[MongoClient[dict[str, Any]]]],
    name: str,
    mode: object,
    data: Mapping[str, Any],
    same: Callable[[], bool],
) -> Iterator[FailPoint]:
    """Turn a fail point on while a block runs.

    Parameters
    ----------
    connect
        Gives a client of the server for a moment.
    name, mode, data
        What ``configureFailPoint`` takes.
    same
        Whether the process is still the same one; fail points end with it.
    """
    point = FailPoint()
    # no client stays open: one whose server was killed would take long to close
    with connect() as client:
        before = client.admin.command("configureFailPoint", name, mode=mode, data=data)["count"]
    try:
        yield point
    finally:
        if same():
            with connect() as client:
                after = client.admin.command("configureFailPoint", name, mode="off")["count"]
            point.hits = after - before
