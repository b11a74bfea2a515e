"""`dump_trials` writes a table: a row for each trial, a column for each parameter and result."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

import anyio.to_thread

from aiostorage._core.document_json import dump_document
from aiostorage._core.kinds import check_values, choice
from aiostorage._core.layout import EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage._core.versions import FIRST_VERSION
from aiostorage.errors import BackendError
from aiostorage.operations import Document
from aiostorage.transfer.dump_files import imported
from aiostorage.transfer.dumping import drafted, path_of
from aiostorage.transfer.record_sources import StoreSource
from aiostorage.transfer.transfer_reports import MOVES, MoveProgress, TableReport

__all__ = ["dump_trials"]

TableFormat = Literal["csv", "parquet"]

_KINDS: Final = {**MOVES, "format": choice("csv", "parquet")}

_TEXTS: Final = ("experiment", "id", "status")
_TIMES: Final = ("submit_time", "start_time", "end_time")
FIXED: Final = (*("experiment", "version", "id", "status"), *_TIMES, "objective")
"""The columns that every table has."""


async def dump_trials(
    storage: Storage,
    file: str | os.PathLike[str] | IO[bytes],
    *,
    format: TableFormat = "csv",  # noqa: A002  the word of the command
    experiments: Collection[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> TableReport:
    """Write the trials of a store as a table, for other programs to read.

    Each trial is a row. The columns are ``experiment`` (the name), ``version``, ``id``, ``status``,
    ``submit_time``, ``start_time``, ``end_time`` and ``objective``; then one for each parameter,
    such as ``params.lr``, and one for each result, such as ``results.loss``. A value that a trial
    lacks is empty. In Parquet, a column has the common type of its values, or else it is text;
    lists and dicts are JSON. In CSV, times are in ISO 8601. The trials are read twice, page by
    page: first for the names of the columns.

    Parameters
    ----------
    storage
        The store to read.
    file
        The file, compressed if its name ends with ``.gz`` or ``.zst``; or a stream of bytes.
    format
        ``csv``, or ``parquet`` (extra ``arrow``).
    experiments, overwrite, progress
        See `dump_storage`.

    Returns
    -------
    TableReport
        The size and the columns of the table.

    Raises
    ------
    InvalidArgument, ConfigurationError, EncodingError
        See `dump_storage`.
    """
    given = {"storage": storage, "format": format, "experiments": experiments}
    check_values("dump_trials", _KINDS, {**given, "overwrite": overwrite, "progress": progress})
    target = path_of("dump_trials", file)
    report = progress or (lambda _: None)
    if format == "parquet":
        _pyarrow()
    source, columns = StoreSource(storage, experiments), _Columns()
    async with drafted(target, overwrite) as write:
        await source.check_names()
        total, done = await source.count(), 0
        async for collection, documents in source.pages():
            if collection == TRIALS:
                await anyio.to_thread.run_sync(columns.look_at, documents)
            done += len(documents)
            report(MoveProgress("reading", done, total))
        table = _ParquetTable(columns) if format == "parquet" else _CsvTable(columns)
        await write(table.begin)
        rows, config = 0, Document()
        async for collection, documents in source.pages():
            if collection == EXPERIMENTS:
                (config,) = documents
            elif collection == TRIALS:
                await write(partial(table.rows, config, documents))
                rows += len(documents)
                report(MoveProgress("writing", rows, max(columns.trials, rows)))
        await write(table.end)
    return TableReport(
        source=source.location,
        destination=str(target) if isinstance(target, Path) else None,
        trials=rows,
        columns=tuple(columns.names),
    )


@dataclass(slots=True)
class _Columns:
    """The columns of the parameters and results, with the types of their values."""

    types: dict[str, set[type]] = field(default_factory=dict)
    trials: int = 0

    @property
    def names(self) -> list[str]:
        return [*FIXED, *sorted(self.types)]

    def look_at(self, trials: list[Document]) -> None:
        self.trials += len(trials)
        for trial in trials:
            for name, value in _values(trial):
                self.types.setdefault(name, set()).add(type(value))

    def row(self, config: Document, trial: Document) -> dict[str, Any]:
        """Return the values of a trial, without those of columns that were not seen before."""
        version = config.get("version")
        row = {
            "experiment": config.get("name"),
            "version": FIRST_VERSION if version is None else version,
            "objective": _objective(trial),
            **{name: trial.get(name) for name in ("id", "status", *_TIMES)},
        }
        row.update((name, value) for name, value in _values(trial) if name in self.types)
        return row


def _values(trial: Document) -> Iterator[tuple[str, Any]]:
    for field_ in ("params", "results"):
        for number, item in enumerate(trial.get(field_) or ()):
            if isinstance(item, dict):
                name = item.get("name")
                yield f"{field_}.{number if name is None else name}", item.get("value")


def _objective(trial: Document) -> float | None:
    for item in trial.get("results") or ():
        if isinstance(item, dict) and item.get("type") == "objective":
            value = item.get("value")
            return float(value) if isinstance(value, int | float) else None
    return None


def _text(value: Any) -> Any:
    """Return a value for a column of text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return dump_document({"": value})[4:-1]


class _CsvTable:
    def __init__(self, columns: _Columns) -> None:
        self._columns = columns

    def begin(self) -> bytes:
        return self._written([self._columns.names])

    def rows(self, config: Document, trials: list[Document]) -> bytes:
        names = self._columns.names
        rows = (self._columns.row(config, trial) for trial in trials)
        return self._written([[_text(row.get(name)) for name in names] for row in rows])

    def end(self) -> bytes:
        return b""

    @staticmethod
    def _written(rows: list[list[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode("utf-8", "backslashreplace")


class _ParquetTable:
    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self._chunks = _Chunks()
        self._arrow = arrow = _pyarrow()
        self._schema = arrow.schema([(name, self._type(name)) for name in columns.names])
        self._writer: Any = None

    def begin(self) -> bytes:
        import pyarrow.parquet  # noqa: PLC0415  an extra

        sink = self._arrow.PythonFile(self._chunks, mode="w")
        self._writer = pyarrow.parquet.ParquetWriter(sink, self._schema, compression="zstd")
        return self._chunks.taken()

    def rows(self, config: Document, trials: list[Document]) -> bytes:
        rows = [self._columns.row(config, trial) for trial in trials]
        arrays = []
        for column in self._schema:
            values = [row.get(column.name) for row in rows]
            if self._arrow.types.is_string(column.type):
                values = [_text(value) for value in values]
            elif self._arrow.types.is_floating(column.type):
                values = [float(v) if isinstance(v, int) else v for v in values]
            try:
                arrays.append(self._arrow.array(values, column.type))
            except self._arrow.ArrowException as error:
                raise BackendError(
                    f"the values of {column.name} have changed meanwhile; begin again: {error}"
                ) from error
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))
        return self._chunks.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._chunks.taken()

    def _type(self, name: str) -> Any:
        arrow = self._arrow
        if name in _TIMES:
            return arrow.timestamp("us", tz="UTC")
        if name in _TEXTS:
            return arrow.string()
        if name in ("version", "objective"):
            return arrow.int64() if name == "version" else arrow.float64()
        match self._columns.types[name] - {type(None)}:
            case types if types == {bool}:
                return arrow.bool_()
            case types if types == {int}:
                return arrow.int64()
            case types if types in ({float}, {int, float}):
                return arrow.float64()
            case types if types == {datetime}:
                return arrow.timestamp("us", tz="UTC")
            case types if types == {bytes}:
                return arrow.binary()
        return arrow.string()


class _Chunks(io.RawIOBase):
    """A file in memory that keeps written data until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(self._written[-1])

    def taken(self) -> bytes:
        data = b"".join(self._written)
        self._written.clear()
        return data


def _pyarrow() -> Any:
    return imported("pyarrow", "arrow")
