"""Dumps as files: of today and of later, damaged, compressed, and as tables."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pyarrow.parquet
import pytest
import zstandard

from aiostorage import (
    AioStorageError,
    ConfigurationError,
    EncodingError,
    NotADatabaseError,
    SchemaVersionError,
    open_storage,
)
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.transfer import TableReport, dump_storage, dump_trials, load_storage
from aiostorage.transfer.dump_files import DraftFile
from tests.transfer.stores import fill, records, texts

KEPT = Path(__file__).parent / "files" / "dump-1.jsonl.gz"
"""What the first version that has dumps wrote of `fill`: it is never made anew."""


@pytest.mark.anyio
async def test_the_dump_of_the_first_version_loads_for_ever() -> None:
    async with open_storage("memory://") as storage, open_storage("memory://") as filled:
        report = await load_storage(KEPT, storage, keep_reservations=True)
        assert (len(report.experiments), report.trials, report.benchmarks) == (3, 8, 2)
        await fill(filled)
        expected = texts(await records(filled))
        expected["trials"].pop()  # the orphan is left out
        assert texts(await records(storage)) == expected


def plain() -> bytes:
    return gzip.decompress(KEPT.read_bytes())


def edited(old: bytes, new: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        assert old in plain()
        return plain().replace(old, new, 1)

    return make


HEADER = b'{"format":"aiostorage dump","version":1,'

DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut at a line": (lambda: plain()[: plain().rindex(b'{"end"')], "the last line is missing"),
    "cut in a line": (lambda: plain()[:-30], "damaged in line .*it was cut off in this line"),
    "cut gzip": (lambda: KEPT.read_bytes()[:-20], "it was cut off, so load none of it"),
    "cut Zstandard": (lambda: zstandard.compress(plain())[:-20], "damaged"),
    "bad gzip": (lambda: KEPT.read_bytes()[:400] + b"?" * 50, "is damaged: "),
    "bad Zstandard": (lambda: zstandard.compress(plain())[:99] + b"?" * 99, "is damaged: "),
    "another compression": (lambda: bz2.compress(plain()), "not a dump of.*a bzip2 file"),
    "edited value": (edited(b'"status":"new"', b'"status":"old"'), "changed after it was made"),
    "edited line": (edited(b'{"trial":{', b'{"trial":{{'), "damaged in line .*JSON"),
    "a line of another kind": (edited(b'{"trial":{', b'{"trail":{'), "none of the records"),
    "a line too many": (lambda: plain() + b"{}\n", "continues after its last line"),
    "lines in another order": (
        edited(b'"experiment":7,', b'"experiment":8,'),
        "does not belong to the experiment before it",
    ),
    "a bad tag": (edited(b'{"$float":"nan"}', b'{"$float":"man"}'), "damaged in line 2.*not a tag"),
    "no dump": (lambda: b'{"name": "tune"}\n', "is not a dump of aiostorage"),
    "text": (lambda: b"Dear all,\n", "is not a dump of .*; it is a text file"),
    "empty": (lambda: b"", "is not a dump of .*; it is an empty file"),
    "no lines": (lambda: b"x" * 200_000, "is not a dump of"),
    "wrong version": (edited(HEADER, HEADER[:-2] + b"null,"), "version None of the format"),
    "newer version": (edited(HEADER, HEADER[:-2] + b"9,"), "made by a newer aiostorage.*upgrade"),
    "newer layout": (edited(b'"layout":2', b'"layout":99'), "made by a newer aiostorage"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_dump_is_refused_whole(tmp_path: Path, damage: str) -> None:
    make, message = DAMAGED[damage]
    dump, database = tmp_path / "store.jsonl.gz", tmp_path / "store.db"
    dump.write_bytes(make())
    with pytest.raises((NotADatabaseError, SchemaVersionError), match=message) as caught:
        anyio.run(load_storage, dump, open_storage(f"sqlite:///{database}"))
    assert "\n" not in str(caught.value)
    assert not database.exists()


def test_a_file_is_replaced_only_as_a_whole_and_on_request(tmp_path: Path) -> None:
    target, database = tmp_path / "store.jsonl.gz", tmp_path / "a.db"
    url = f"sqlite:///{database}"

    async def filled() -> None:
        async with open_storage(url) as storage:
            await fill(storage)

    def dump(path: Path, **options: Any) -> None:
        async def make() -> None:
            async with open_storage(url) as storage:
                await dump_storage(storage, path, **options)

        anyio.run(make)

    anyio.run(filled)
    dump(target)
    assert target.stat().st_mode & 0o777 == 0o600
    first = gzip.decompress(target.read_bytes())
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ConfigurationError, match="exists; it was left as it is"):
        dump(target)
    for path, message in (
        (tmp_path, "is not a file"),
        (tmp_path / "no" / "x", "does not exist; create"),
        (link, "is a link"),
        (database, "is a SQLite database"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            dump(path, overwrite=True)
    with pytest.raises(NotADatabaseError, match="SQLite database, not a dump"):
        anyio.run(load_storage, database, open_storage(url))
    dump(target, overwrite=True, experiments=["tune"])
    second = gzip.decompress(target.read_bytes())
    assert 0 < second.count(b"\n") < first.count(b"\n")
    assert b'{"benchmark"' in first
    assert b'{"benchmark"' not in second

    def fail(_: Any) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        dump(target, overwrite=True, progress=fail)
    assert gzip.decompress(target.read_bytes()) == second
    assert {path.name for path in tmp_path.iterdir()} == {target.name, database.name, link.name}


@pytest.mark.anyio
async def test_a_record_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    dump = tmp_path / "store.jsonl"
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)
        table = one._gateway.driver._tables["trials"]  # type: ignore[attr-defined]
        next(iter(table.documents.values()))["params"] = [{"name": 5}]
        await dump_storage(one, dump)
        with pytest.raises(EncodingError, match=r"trial '.*' of .* cannot be stored: params\[0\]"):
            await load_storage(dump, two)
        assert not any((await records(two)).values())


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_draft_that_is_discarded_leaves_nothing_open(tmp_path: Path, suffix: str) -> None:
    draft = DraftFile(tmp_path / f"store.jsonl{suffix}")
    draft.open()
    draft.write(b"{}\n")
    draft.discard()
    assert draft.stream.closed
    assert not list(tmp_path.iterdir())


def test_tables(tmp_path: Path) -> None:
    target, stream = tmp_path / "trials.csv.gz", io.BytesIO()

    async def dump() -> TableReport:
        async with open_storage("memory://") as storage:
            await fill(storage)
            access = CollectionAccess(storage)
            trial = (await access.find("trials", {"experiment": 7}))[0]
            mixed = [{"name": "lr", "type": "real", "value": 3}, {"name": "b", "value": b"\0"}]
            await access.update("trials", {"_id": trial["_id"]}, {"params": mixed})
            await dump_trials(storage, stream, format="parquet", experiments=["tune@2"])
            return await dump_trials(storage, target)

    report = anyio.run(dump)
    assert report.trials == 8
    with gzip.open(target, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(report.columns)
    assert (rows[0]["experiment"], rows[0]["version"]) == ("tune", "1")
    assert rows[0]["objective"] == "inf"
    assert rows[0]["end_time"] == "2026-02-28T23:59:59.987654+00:00"
    assert json.loads(rows[1]["params.deep"]) == {"layers": [1, None]}
    assert rows[1]["results.loss"] == ""

    table = pyarrow.parquet.read_table(io.BytesIO(stream.getvalue()))
    assert table.column("params.lr").to_pylist() == [3.0, 1 / 7, 2 / 7]
    assert table.column("params.b").to_pylist() == [b"\0", None, None]
    assert table.column("submit_time").to_pylist()[0].isoformat().startswith("2026-02-28T23")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiostorage.transfer.dump_files import imported

    with pytest.raises(AioStorageError, match=r"pip install 'aiostorage-orion\[zstd\]'"):
        imported("no_such_library", "zstd")
