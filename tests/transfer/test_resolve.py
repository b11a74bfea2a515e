"""What a load does where something is there already, and after it was cut off anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from aiostorage import (
    ConfigurationError,
    DuplicateKeyError,
    IncompleteCopy,
    InvalidArgument,
    Storage,
    Trial,
    open_storage,
)
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.transfer import (
    MoveProgress,
    MoveReport,
    Resolve,
    copy_storage,
    dump_storage,
    load_storage,
    move_writer,
)
from aiostorage.transfer.record_sources import StoreSource
from tests.transfer.stores import MOMENT, fill, fill_plainly, records, sorted_texts, texts

pytestmark = pytest.mark.anyio


def outcomes(report: MoveReport) -> dict[str, tuple[str, int]]:
    return {f"{e.name}@{e.version}": (e.outcome, e.new_version) for e in report.experiments}


async def other_store(storage: Storage) -> None:
    """Write what stands in the way of `fill`: the same names, and the same ids."""
    access = CollectionAccess(storage)
    await fill_plainly(storage, 4, "tune")
    await access.insert("experiments", [{"_id": 7, "name": "seven", "version": 1}])
    taken = {"_id": "old-9", "experiment": 7, "id": "f" * 32, "status": "new"}
    await access.insert("trials", [taken, {**taken, "_id": 2**62, "id": "e" * 32}])
    await access.insert("algo", [{"_id": "l", "experiment": 7, "configuration": {}, "locked": 0}])
    await access.insert("benchmarks", [{"_id": 5, "name": "other"}, {"_id": "x", "name": "branin"}])


async def test_without_a_word_nothing_is_written_over(tmp_path: Path) -> None:
    dump = tmp_path / "store.jsonl"
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)
        await dump_storage(one, dump)
        await other_store(two)
        before = texts(await records(two))
        for resolve, named in ((None, "experiment 'tune' v1, benchmark 'branin'"), ("bump", "'br")):
            with pytest.raises(DuplicateKeyError, match=f"{named}.*nothing was written"):
                await load_storage(dump, two, resolve=resolve)  # type: ignore[arg-type]
        plan = await load_storage(dump, two, resolve="overwrite", dry_run=True)
        assert outcomes(plan)["tune@1"] == ("overwritten", 1)
        assert plan.dry_run
        assert texts(await records(two)) == before

        report = await load_storage(dump, two, resolve="ignore")
        assert outcomes(report) == {
            "tune@1": ("ignored", 1),
            "tune@2": ("copied", 2),
            "ä.b c@1": ("copied", 1),
        }
        after = await records(two)
        kept = {name: set(lines) for name, lines in texts(after).items()}
        assert all(kept[name] >= set(lines) for name, lines in before.items())
        (child,) = await two.fetch_experiments({"name": "tune", "version": 2})
        assert child["_id"] not in (7, "tune")  # it was taken
        assert child["refers"] == {"root_id": "tune", "parent_id": "tune"}
        trials = await two.fetch_trials(child)
        assert trials is not None
        assert len(trials) == 3


async def test_overwrite_replaces_all_of_it(tmp_path: Path) -> None:
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)
        await other_store(two)
        report = await copy_storage(one, two, experiments=["tune@1"], resolve="overwrite")
        assert outcomes(report) == {"tune@1": ("overwritten", 1)}
        (config,) = await two.fetch_experiments({"name": "tune"})
        assert config["_id"] == "6b0bc33ea5a209b8f3894bfa"
        assert await two.count_trials(config) == 5
        assert not await CollectionAccess(two).count("trials", {"experiment": "tune"})
        assert await two.get_algorithm_lock_info(uid="tune") is None
        await copy_storage(one, two, resolve="overwrite")
        (branin,) = await two.fetch_benchmark({"name": "branin"})
        assert branin["_id"] == "x"
        assert "values" in branin


async def test_bump_gives_the_next_version_once() -> None:
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)
        await fill_plainly(two, 4)
        for expected in ("bumped", "present"):
            report = await copy_storage(one, two, resolve="bump")
            assert outcomes(report)["tune@1"] == (expected, 3)  # 2 is that of the child
        (bumped,) = await two.fetch_experiments({"name": "tune", "version": 3})
        (child,) = await two.fetch_experiments({"name": "tune", "version": 2})
        assert child["refers"] == {"root_id": bumped["_id"], "parent_id": bumped["_id"]}
        assert await two.count_trials(bumped) == 5
        # the same experiment with more trials is another one
        await one.register_trial((await one.fetch_trials(uid=7) or [])[0].branch(params={"lr": 9}))
        report = await copy_storage(one, two, resolve="bump")
        assert outcomes(report)["tune@2"] == ("bumped", 4)


@pytest.mark.parametrize("resolve", ["ignore", "overwrite", "bump"])
async def test_a_store_of_which_half_is_equal(resolve: Resolve) -> None:
    """Version 1 is equal in both, 2 and 3 are not, and 4 is missing."""
    async with open_storage("memory://") as one, open_storage("memory://") as two:

        async def make(storage: Storage, version: int, first: int) -> None:
            experiment = await storage.create_experiment({"name": "e", "version": version})
            for x in range(first, first + version):
                trial = Trial(experiment=experiment.id, params={"x": x}, submit_time=MOMENT)
                await storage.register_trial(trial)

        await make(one, 1, 0)
        await copy_storage(one, two)
        for version in (2, 3):
            await make(two, version, 5)
        for version in (2, 3, 4):
            await make(one, version, 0)
        expected = {
            "ignore": {"e@2": ("ignored", 2), "e@3": ("ignored", 3), "e@4": ("copied", 4)},
            "overwrite": {"e@2": ("overwritten", 2), "e@3": ("overwritten", 3)},
            "bump": {"e@2": ("bumped", 5), "e@3": ("bumped", 6)},
        }[resolve]
        expected = {"e@1": ("present", 1), "e@4": ("copied", 4), **expected}
        dry = await copy_storage(one, two, resolve=resolve, dry_run=True)
        report = await copy_storage(one, two, resolve=resolve)
        assert outcomes(dry) == outcomes(report) == expected
        counts = {
            config["version"]: await two.count_trials(uid=config["_id"])
            for config in await two.fetch_experiments({})
        }
        assert counts == {1: 1, 2: 2, 3: 3, 4: 4, **({5: 2, 6: 3} if resolve == "bump" else {})}
        again = await copy_storage(one, two, resolve=resolve)
        assert {outcome for outcome, _ in outcomes(again).values()} <= {"present", "ignored"}
        assert again.checksum is None


async def test_what_a_worker_changes_meanwhile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    check = move_writer.MoveWriter.check
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)

        async def check_late(writer: move_writer.MoveWriter) -> str:
            [config] = await two.fetch_experiments({"name": "tune", "version": 1})
            [trial] = await two.fetch_trials(uid=config["_id"], limit=1) or []
            await two.update_trial(trial, note="mine")
            return await check(writer)

        monkeypatch.setattr(move_writer.MoveWriter, "check", check_late)
        with pytest.raises(IncompleteCopy, match="or their values differ"):
            await copy_storage(one, two)


class CutError(Exception):
    """The load ends here."""


def cut_after(steps: int) -> Callable[[MoveProgress], None]:
    left = steps

    def report(_: MoveProgress) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CutError

    return report


@pytest.mark.parametrize("resolve", [None, "overwrite", "bump"])
async def test_a_load_that_is_cut_off_anywhere_goes_on(
    monkeypatch: pytest.MonkeyPatch, resolve: Resolve | None
) -> None:
    monkeypatch.setattr(move_writer, "BATCH_SIZE", 3)
    monkeypatch.setattr("aiostorage.transfer.record_sources.PAGE_SIZE", 4)

    async def destination() -> Storage:
        storage = open_storage("memory://")
        await storage.open()
        if resolve is not None:
            await fill_plainly(storage, 5)
        return storage

    async def contents(storage: Storage) -> dict[str, Any]:
        found = await records(storage)
        for name, documents in found.items():  # but for those of `destination`
            found[name] = [d for d in documents if "tune" not in (d["_id"], d.get("experiment"))]
        return sorted_texts(found)

    async with open_storage("memory://") as one:
        await fill(one)
        await fill_plainly(one, 11, "more")
        whole = await destination()
        await copy_storage(one, whole, resolve=resolve)
        expected = await contents(whole)
        await whole.aclose()
        for steps in range(200):
            two = await destination()
            try:
                await copy_storage(one, two, resolve=resolve, progress=cut_after(steps))
            except CutError:
                configs = await two.fetch_experiments({"name": "more"})
                assert not configs or await two.count_trials(configs[0]) == 11  # never a half
                await copy_storage(one, two, resolve=resolve)
            else:
                break
            finally:
                found = await contents(two)
                await two.aclose()
            assert found == expected
        assert 15 < steps < 199


async def test_what_an_earlier_load_left_is_brought_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(move_writer, "BATCH_SIZE", 3)
    monkeypatch.setattr("aiostorage.transfer.record_sources.PAGE_SIZE", 4)
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill_plainly(one, 20)
        for steps in range(100):
            with pytest.raises(CutError):
                await copy_storage(one, two, progress=cut_after(steps))
            if await CollectionAccess(two).count("trials", {}) > 6:
                break
        access = CollectionAccess(one)
        first, *_ = await access.find("trials", {})
        await access.update("trials", {"_id": first["_id"]}, {"status": "broken"})
        second = (await access.find("trials", {}))[1]
        await access.delete("trials", {"_id": second["_id"]})
        await copy_storage(one, two)
        assert sorted_texts(await records(two)) == sorted_texts(await records(one))


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Give another name of the folder."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    return link


async def test_a_store_is_not_copied_onto_itself(tmp_path: Path, link: Path) -> None:
    async with (
        open_storage(f"sqlite:///{tmp_path}/a.db") as one,
        open_storage(f"sqlite:///{link}/a.db") as same,
    ):
        await fill_plainly(one, 2)
        for two in (one, same):
            with pytest.raises(ConfigurationError, match="one and the same store"):
                await copy_storage(one, two)
        from aiostorage.transfer.moving import _check_two_stores

        with pytest.raises(ConfigurationError, match="one and the same store"):
            await _check_two_stores(one, same)  # as under the names of two hosts
        assert await CollectionAccess(one).count("test", {}) == 0


async def test_arguments_are_checked_first(tmp_path: Path) -> None:
    storage: Any = open_storage("memory://")
    with pytest.raises(InvalidArgument, match="no experiment 'no', 'tune@3' in memory"):
        async with storage:
            await fill_plainly(storage, 1)
            await dump_storage(storage, tmp_path / "x", experiments=["tune", "no", "tune@3"])
    assert not await anyio.to_thread.run_sync(os.listdir, tmp_path)
    with pytest.raises(ConfigurationError, match="resolve is"):
        await load_storage(tmp_path / "x", storage, resolve="merge")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="storage is a Storage"):
        await dump_storage(tmp_path, storage)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="file is a path"):
        await dump_storage(storage, 5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there is no file"):
        await load_storage(tmp_path / "x", open_storage(f"sqlite:///{tmp_path}/new.db"))
    assert not await anyio.to_thread.run_sync(os.listdir, tmp_path)
    assert StoreSource(storage).orphans == 0
