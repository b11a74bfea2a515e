"""Trials as a table of pandas or pyarrow: one row a trial, read page by page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.trials import Trials
from aiostorage.errors import ConfigurationError
from aiostorage.trial import Trial

__all__ = ["Columns", "arrow_table", "dataframe"]

FIXED: Final = ("id", "status", "submit_time", "start_time", "end_time", "objective")
TIMES: Final = ("submit_time", "start_time", "end_time")

PAGE_SIZE: Final = 1000
"""Trials per read."""


class Columns:
    """Values by column, all of the same length; None where a trial has no value.

    Attributes
    ----------
    values : dict of str to list
        In this order: the fields of every trial, then params, then results.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._fixed: dict[str, list[Any]] = {name: [] for name in FIXED}
        self._params: dict[str, list[Any]] = {}
        self._results: dict[str, list[Any]] = {}

    @property
    def values(self) -> dict[str, list[Any]]:
        """The values by column."""
        return {**self._fixed, **self._params, **self._results}

    def add(self, trial: Trial) -> None:
        """Add the row of a trial."""
        objective = trial.objective
        for name, values in self._fixed.items():
            if name != "objective":
                values.append(getattr(trial, name))
        self._fixed["objective"].append(None if objective is None else objective.value)
        for param in trial.param_list:
            self._set(self._params, f"params.{param.name}", param.value)
        for result in trial.results:
            if result is not objective:
                self._set(self._results, f"results.{result.name}", result.value)
        self._rows += 1
        for columns in (self._params, self._results):
            for values in columns.values():
                if len(values) < self._rows:
                    values.append(None)

    def _set(self, columns: dict[str, list[Any]], name: str, value: Any) -> None:
        values = columns.get(name)
        if values is None:
            values = columns[name] = [None] * self._rows
        if len(values) == self._rows:  # of two results of one name, the first counts
            values.append(value)


async def dataframe(
    trials: Trials,
    experiment: Any,
    where: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
) -> Any:
    """Return the `pandas.DataFrame` of an experiment."""
    await anyio.to_thread.run_sync(_pandas)
    columns = await _read(trials, experiment, where, params)
    return await anyio.to_thread.run_sync(_frame, columns)


async def arrow_table(
    trials: Trials,
    experiment: Any,
    where: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
) -> Any:
    """Return the `pyarrow.Table` of an experiment."""
    await anyio.to_thread.run_sync(_pyarrow)
    columns = await _read(trials, experiment, where, params)
    return await anyio.to_thread.run_sync(_table, columns)


async def _read(
    trials: Trials,
    experiment: Any,
    where: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
) -> Columns:
    columns = Columns()
    async for trial in trials.iterate(experiment, where, params, None, PAGE_SIZE):
        columns.add(trial)
    return columns


def _frame(columns: Columns) -> Any:
    pandas = _pandas()
    series = {
        # without a value they would be of no type
        name: pandas.to_datetime(pandas.Series(values, dtype="object"), utc=True)
        if name in TIMES
        else values
        for name, values in columns.values.items()
    }
    return pandas.DataFrame(series)


def _table(columns: Columns) -> Any:
    pyarrow = _pyarrow()
    types = {
        **dict.fromkeys(("id", "status"), pyarrow.string()),
        **dict.fromkeys(TIMES, pyarrow.timestamp("us", tz="UTC")),
        "objective": pyarrow.float64(),
    }
    arrays = {}
    for name, values in columns.values.items():
        try:
            arrays[name] = pyarrow.array(values, type=types.get(name))
        except (pyarrow.ArrowException, OverflowError):
            arrays[name] = pyarrow.array(list(map(_text, values)), type=pyarrow.string())
    return pyarrow.table(arrays)


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _pandas() -> Any:
    try:
        import pandas as pd  # noqa: PLC0415  an extra, and half a second
    except ImportError as error:
        raise _missing("pandas", "pandas") from error
    return pd


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra
    except ImportError as error:
        raise _missing("pyarrow", "arrow") from error
    return pa


def _missing(library: str, extra: str) -> ConfigurationError:
    return ConfigurationError(
        f"this needs {library}, which is not installed: pip install 'aiostorage-orion[{extra}]'"
    )
