"""Makes the sides of workloads: their names in the report, and what they need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from benchmarks.definitions import BEFORE, Need, Side
from benchmarks.sides import optuna_peers, orion_peers
from benchmarks.sides.ours import Engine

__all__ = ["OURS", "bare", "before", "optuna", "orion", "ours", "plain"]

OURS: Final[dict[str, str]] = {
    "memory": "aiostorage, memory",
    "sqlite": "aiostorage, SQLite",
    "motor": "aiostorage, MongoDB by motor",
    "pymongo": "aiostorage, MongoDB by PyMongo",
}
OPTUNA: Final[dict[str, str]] = {
    "journal": "Optuna, journal",
    "rdb": "Optuna, RDB on SQLite",
    "memory": "Optuna, memory",
}
ORION: Final[dict[str, str]] = {
    "pickleddb": "Oríon, PickledDB",
    "ephemeraldb": "Oríon, EphemeralDB",
    "mongodb": "Oríon, MongoDB",
}

Beginning = Callable[..., Any]
"""A `Begin` that takes more arguments than the setting."""


def ours(engine: Engine, case: str, begin: Beginning, count: int, **more: Any) -> Side:
    """Return aiostorage on an engine."""
    needs: tuple[Need, ...] = ("mongodb",) if engine in ("motor", "pymongo") else ()
    return Side(OURS[engine], case, partial(begin, engine=engine), count, needs=needs, **more)


def before(engine: Engine, case: str, begin: Beginning, count: int, **more: Any) -> Side:
    """Return the aiostorage of an earlier checkout on an engine."""
    return Side(BEFORE, case, partial(begin, engine=engine), count, needs=("before",), **more)


def plain(case: str, begin: Beginning, count: int, **more: Any) -> Side:
    """Return ``sqlite3`` alone."""
    return Side("plain sqlite3", case, begin, count, **more)


def bare(
    library: Literal["motor", "pymongo"], case: str, begin: Beginning, count: int, **more: Any
) -> Side:
    """Return a client of MongoDB alone."""
    name = {"motor": "bare motor", "pymongo": "bare PyMongo"}[library]
    return Side(name, case, partial(begin, library=library), count, needs=("mongodb",), **more)


def optuna(kind: optuna_peers.Kind, case: str, begin: Beginning, count: int, **more: Any) -> Side:
    """Return one of Optuna's storages."""
    return Side(OPTUNA[kind], case, partial(begin, kind=kind), count, needs=("optuna",), **more)


def orion(kind: orion_peers.Kind, case: str, begin: Beginning, count: int, **more: Any) -> Side:
    """Return one of Oríon's storages."""
    needs: tuple[Need, ...] = ("orion", "mongodb") if kind == "mongodb" else ("orion",)
    return Side(ORION[kind], case, partial(begin, kind=kind), count, needs=needs, **more)
