"""Files that other programs wrote or changed; see ``files/README.md`` for how they were made."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from aiostorage import BackendError, InvalidResult, Storage, Trial, open_storage, storage_factory
from aiostorage.trial import Param, Result

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("may_block")]

FILES = Path(__file__).parent / "files"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tune.json"


def opened(path: Path, **options: Any) -> Storage:
    return open_storage(f"track:///{path}", **options)


def tree_of(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def edited(path: Path, change: Callable[[Any], None]) -> None:
    """Change a file as a program does that knows nothing of aiostorage."""
    tree = json.loads(path.read_text("utf-8"))
    change(tree)
    path.write_text(json.dumps(tree, indent=2))


async def everything(storage: Storage) -> list[Any]:
    experiments = await storage.fetch_experiments({})
    found: list[Any] = [experiments, await storage.fetch_benchmark({})]
    for experiment in experiments:
        trials = await storage.fetch_trials(uid=experiment["_id"])
        found += [trial.to_dict() for trial in trials or ()]
        info = await storage.get_algorithm_lock_info(uid=experiment["_id"])
        found.append(info and (info.state, info.locked, info.configuration))
    return found


# ----------------------------------------------------------------------- files of other programs


async def test_what_orion_s_own_track_wrote(path: Path) -> None:
    shutil.copy(FILES / "by_orion.json", path)
    before = path.read_bytes()
    async with opened(path, objective="loss") as storage:
        (experiment,) = await storage.fetch_experiments({})
        assert (experiment["name"], experiment["version"]) == ("tune", 2)
        assert experiment["algorithm"] == {"random": {"seed": 1}}
        trials = await storage.fetch_trials(uid=experiment["_id"])
        assert trials is not None
        # Oríon reserves from a set, so that it is chance which of them were
        assert sorted(t.params["net"]["depth"] for t in trials) == [1, 2, 3, 4, 5]
        assert [t.params["net"]["depth"] for t in trials] == [1, 2, 3, 4, 5]
        assert all(t.id == t.compute_trial_hash(t) for t in trials)
        assert trials[0].params == {"lr": 0.1, "net": {"depth": 1}, "kind": "a"}
        assert [p.type for p in trials[0].param_list] == ["real", "integer", "categorical"]
        for trial in trials:
            assert trial.submit_time is not None
            if trial.status in ("completed", "broken"):
                assert trial.objective is not None
                assert trial.objective.name == "loss"
                assert trial.objective.value in {-1.0, -2.0}  # of step 11, not of step 9
                assert [r.name for r in trial.statistics] == ["accuracy"]
        by_status = [t.status for t in trials]
        assert by_status.count("completed") == by_status.count("broken") == 1
        (running,) = [t for t in trials if t.status == "reserved"]
        assert running.heartbeat is not None
        assert path.read_bytes() == before, "reading writes nothing"
        # and work goes on
        (lost,) = await storage.fetch_lost_trials(uid_of(experiment))
        assert lost.id == running.id
        new = await storage.reserve_trial(uid_of(experiment))
        assert new is not None
        await storage.complete_trial(new, {"loss": 0.25})
        await storage.initialize_algorithm_lock(experiment["_id"], experiment["algorithm"])
        async with storage.acquire_algorithm_lock(uid_of(experiment)) as algorithm:
            algorithm.set_state({"seed": 2})
    async with opened(path) as again:
        found = await again.fetch_trials(uid=experiment["_id"])
        assert found is not None
        assert [t.id for t in found] == [t.id for t in trials], "the order stays"


def uid_of(experiment: dict[str, Any]) -> Any:
    return {"_id": experiment["_id"]}


async def test_what_track_wrote_alone(path: Path) -> None:
    shutil.copy(FILES / "by_track.json", path)
    async with opened(path, objective="loss") as storage:
        (experiment,) = await storage.fetch_experiments({})
        assert experiment["name"] == "alone/first"
        trials = await storage.fetch_trials(uid=experiment["_id"])
        assert trials is not None
        first, second = trials
        assert (first.params, first.status) == ({"depth": 1, "opt": {"lr": 0.5}}, "completed")
        assert first.objective == Result("loss", "objective", -10.0)
        assert isnan(second.statistics[0].value)
        bare = Trial(experiment=experiment["_id"], _id=second._id, params=second.param_list)
        assert (await storage.retrieve_result(bare)).objective == second.objective
        await storage.update_experiment(uid=experiment["_id"], seen=True)
    (project, _) = tree_of(path)  # strict JSON now, though it had a NaN
    assert project["trials"][1]["metrics"]["last"] == [{"$float": "nan"}]
    assert project["trials"][1]["chronos"]["epoch"]["dtype"] == "statstream"
    assert project["groups"][0]["metadata"]["seen"] is True


async def test_what_track_made_of_a_file_of_ours(path: Path, tmp_path: Path) -> None:
    shutil.copy(FILES / "written.json", path)
    other = tmp_path / "rewritten.json"
    shutil.copy(FILES / "rewritten.json", other)
    async with opened(path) as ours, opened(other) as theirs:
        found = await everything(theirs)
        assert str(found) == str(await everything(ours))  # there is a NaN in it, or may be
        assert found[0][0]["space"] == {"a.b": "uniform(0, 1)"}
        assert found[1][0]["dotted"] == {"a.b": 1}
        assert found[2]["params"][1]["value"] == b"\0\1"
        assert found[2]["results"][0]["value"] == float("inf")
        # as before, the tokens and the clock count
        experiment = found[0][0]
        assert await theirs.fetch_lost_trials(uid_of(experiment)) != []
        await theirs.update_experiment(uid=experiment["_id"], seen=True)


def test_what_the_loader_of_track_needs_is_there() -> None:
    """These are the keys that its ``serialization.py`` reads without asking."""
    needed = {
        "project": "uid name description metadata groups trials",
        "trial_group": "uid name description metadata trials project_id",
        "trial": "hash revision name description tags version group_id project_id parameters "
        "metadata metrics chronos errors status uid",
    }
    projects = tree_of(FILES / "written.json")
    assert [p["dtype"] for p in projects] == ["project", "project"]
    for project in projects:
        for entry in (project, *project["groups"], *project["trials"]):
            assert entry.keys() >= set(needed[entry["dtype"]].split())
        for trial in project["trials"]:
            assert trial["uid"] == f"{trial['hash']}_{trial['revision']}"
            assert trial["status"].keys() == {"name", "value"}
            assert trial["uid"] in project["groups"][0]["trials"]


# ------------------------------------------------------------------------------- foreign changes


@pytest.fixture
async def trial(path: Path) -> Trial:
    async with opened(path) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        params = [Param("x", "real", float("nan")), Param("y", "integer", 2**62)]
        await storage.register_trial(Trial(experiment=experiment.id, params=params))
        reserved = await storage.reserve_trial(experiment)
        assert reserved is not None
        return reserved


async def test_what_they_change_counts_and_what_we_do_not_know_stays(
    path: Path, trial: Trial
) -> None:
    def log(tree: Any) -> None:
        entry = tree[0]["trials"][0]
        entry["metrics"] = {"loss": {"0": 3.0, "9": 2.0, "10": 1.0}, "note": ["hello"]}
        entry["status"] = {"value": 101, "name": "Running"}
        entry["chronos"]["epoch"] = 1.5
        entry["tags"]["mine"] = entry["of_another_program"] = {"a": [1]}
        tree[0]["theirs"] = 1
        tree.append({"dtype": "trial", "uid": "x_0", "group_id": None, "hash": "x"})

    async with opened(path, objective="loss") as storage:
        edited(path, log)
        found = await storage.get_trial(trial)
        assert found is not None
        assert (found.status, found.worker) == ("reserved", trial.worker)
        assert [(r.name, r.type, r.value) for r in found.results] == [("loss", "objective", 1.0)]
        assert isnan(found.params["x"])
        assert found.params["y"] == 2**62
        await storage.update_heartbeat(trial)
        entry = tree_of(path)[0]["trials"][0]
        assert entry["status"]["name"] == "Running"
        assert entry["metrics"]["loss"] == {"0": 3.0, "9": 2.0, "10": 1.0}
        await storage.complete_trial(trial, (await storage.retrieve_result(trial)).results)
        tree = tree_of(path)
        entry = tree[0]["trials"][0]
        assert entry["status"] == {"value": 302, "name": "Completed"}
        assert entry["metrics"] == {"loss": {"0": 3.0, "9": 2.0, "10": 1.0}, "note": ["hello"]}
        assert entry["tags"]["mine"] == entry["of_another_program"] == {"a": [1]}
        assert entry["chronos"] == {"epoch": 1.5}
        assert tree[0]["theirs"] == 1
        assert next(e for e in tree if e["dtype"] == "trial")["uid"] == "x_0"

        def finish(tree: Any) -> None:
            tree[0]["trials"][0]["status"] = {"value": 203, "name": "Broken"}
            tree[0]["trials"][0]["metrics"]["loss"]["11"] = 7
            tree[0]["trials"][0]["parameters"]["x"] = 0.5

        edited(path, finish)
        found = await storage.get_trial(trial)
        assert found is not None
        assert (found.status, found.params["x"]) == ("broken", 0.5)
        assert found.objective == Result("loss", "objective", 7)


@pytest.mark.parametrize("same_time", [False, True])
async def test_a_change_of_the_same_size_is_seen(path: Path, trial: Trial, same_time: bool) -> None:
    """By whatever program, in the same file or another one, and within the same tick."""
    async with opened(path) as storage:
        for number in range(5):
            before = path.stat()
            text = path.read_text("utf-8")
            word, other = ("e0", "e1") if number % 2 else ("e1", "e0")
            new = text.replace('"name": "e"', f'"name": "{word}"').replace(
                f'"name": "{other}"', f'"name": "{word}"'
            )
            path.write_text(new)
            if same_time:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            (experiment,) = await storage.fetch_experiments({})
            assert experiment["name"] == word


async def test_a_trial_that_nobody_can_read_is_left_out(
    path: Path, trial: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(tree: Any) -> None:
        tree[0]["trials"][0]["status"] = 5
        tree[0]["trials"][0]["metadata"]["submit_time"] = "yesterday"
        tree[0]["trials"][0]["metadata"]["heartbeat"] = [1]

    async with opened(path) as storage:
        other = Trial(experiment=trial.experiment, params={"x": 1})
        await storage.register_trial(other)
        edited(path, damage)
        found = await storage.fetch_trials(uid=trial.experiment)
        assert found == [other]
        assert "left out" in caplog.text


# ------------------------------------------------------------------------------ logged results


async def test_the_objective_that_was_logged(path: Path, trial: Trial) -> None:
    def log(metrics: Any) -> None:
        edited(path, lambda tree: tree[0]["trials"][0].update(metrics=metrics))

    async with opened(path, objective="loss") as storage:
        with pytest.raises(InvalidResult, match="'loss' was not logged; logged was nothing"):
            await storage.retrieve_result(trial)
        log({"accuracy": [0.1]})
        with pytest.raises(InvalidResult, match="'loss' was not logged; logged was 'accuracy'"):
            await storage.retrieve_result(trial)
        for metrics in ({"loss": [3, 2.5]}, {"loss": [[1, 3], [2, 2.5]]}, {"loss": 2.5}):
            log({**metrics, "text": ["no number"], "accuracy": {"0": 0.1, "1": 0.5}})
            assert (await storage.retrieve_result(trial)).results == [
                Result("loss", "objective", 2.5),
                Result("accuracy", "statistic", 0.5),
            ]
    async with opened(path) as storage:
        with pytest.raises(InvalidResult, match="which metric is the objective"):
            await storage.retrieve_result(trial.copy())
        log({"only": [1, 2], "text": ["no number"]})
        found = await storage.retrieve_result(trial)
        assert found.results == [Result("only", "objective", 2)]
        log({"only": [1], "objective": [4]})
        found = await storage.retrieve_result(trial)
        assert found.objective == Result("objective", "objective", 4)


async def test_a_second_attempt_begins_without_the_results_of_the_first(
    path: Path, trial: Trial
) -> None:
    async with opened(path, objective="loss") as storage:
        edited(path, lambda tree: tree[0]["trials"][0].update(metrics={"loss": [3, 2]}))
        await storage.set_trial_status(trial, "interrupted")
        again = await storage.reserve_trial({"_id": trial.experiment})
        assert again is not None
        assert again.results == []
        with pytest.raises(InvalidResult):
            await storage.retrieve_result(again)
        edited(path, lambda tree: tree[0]["trials"][0]["metrics"]["loss"].append(2))
        assert (await storage.retrieve_result(again)).objective == Result("loss", "objective", 2)


# ------------------------------------------------------------------------------ what a diff shows


async def test_a_diff_shows_what_changed(path: Path) -> None:
    async with opened(path) as storage:
        experiment = await storage.create_experiment({"name": "e", "note": "a"})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(5)]
        await storage.register_trials(trials)
        lines = path.read_text("utf-8").splitlines()
        assert max(map(len, lines)) < 120
        await storage.update_experiment(experiment, note="b")
        new = path.read_text("utf-8").splitlines()
        changed = [line.strip() for line in new if line not in lines]
        assert changed[0] == '"note": "b",'
        assert len([line for line in changed if '"expires"' not in line]) <= 2  # and a receipt
        reserved = await storage.reserve_trial(experiment)
        assert reserved is not None
        lines = path.read_text("utf-8").splitlines()
        await storage.update_heartbeat(reserved)
        new = path.read_text("utf-8").splitlines()
        assert len(new) == len(lines)
        assert len([n for n, o in zip(new, lines, strict=True) if n != o]) <= 3


async def test_what_is_no_json_is_not_written_again(path: Path, trial: Trial) -> None:
    async with opened(path) as storage:
        text = path.read_text("utf-8").replace('"tags": {}', '"tags": {"a": 1e999}')
        path.write_text(text)
        with pytest.raises(BackendError, match="cannot be written"):
            await storage.update_heartbeat(trial)
        assert path.read_text("utf-8") == text
        path.write_text(text.replace("1e999", "1"))
        await storage.update_heartbeat(trial)


async def test_two_experiments_may_have_the_same_trials(path: Path) -> None:
    """The ids of trials do not tell experiments apart, but in Track uids are unique."""
    async with opened(path) as storage:
        for version in (1, 2):
            experiment = await storage.create_experiment({"name": "e", "version": version})
            await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        await storage.create_experiment({"name": "other"})
        await storage.delete_experiment(uid=experiment.id, cascade=False)
    projects = {project["uid"]: project for project in tree_of(path)}
    first, second = projects["e"]["trials"]
    assert first["hash"] == second["hash"]
    assert (first["revision"], second["revision"]) == (0, 1)
    assert [group["trials"] for group in projects["e"]["groups"]] == [[first["uid"]]]
    async with opened(path) as storage:
        assert len(await storage.fetch_trials(uid=experiment.id) or ()) == 1
        await storage.delete_experiment((await storage.fetch_experiments({"name": "other"}))[0])
    assert "other" not in {project["uid"] for project in tree_of(path)}


async def test_many_trials_are_warned_of_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aiostorage.drivers.track.store.MANY_TRIALS", 3)
    for _ in range(2):
        async with opened(path) as storage:
            if not (experiments := await storage.fetch_experiments({})):
                experiment = await storage.create_experiment({"name": "e"})
                trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(4)]
                await storage.register_trials(trials)
            assert len(experiments) <= 1
    assert caplog.text.count("has 4 trials, and each write writes them all") == 1


async def test_the_form_of_the_original_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "file://orion_test.json?objective=loss"
    async with storage_factory.create("track", uri=uri) as storage:
        await storage.create_experiment({"name": "e"})
    assert (tmp_path / "orion_test.json").exists()
    for options in ({"path": "orion_test.json"}, {"uri": f"file://{tmp_path}/orion_test.json"}):
        async with storage_factory.create("Track", **options) as storage:
            assert len(await storage.fetch_experiments({})) == 1


async def test_who_waits_hears_of_other_processes(path: Path, trial: Trial) -> None:
    async with opened(path) as one, opened(path) as other:
        start = time.monotonic()

        async def register() -> None:
            await other.register_trial(Trial(experiment=trial.experiment, params={"x": 1}))

        import anyio

        async with anyio.create_task_group() as group:
            group.start_soon(register)
            found = await one.reserve_trial({"_id": trial.experiment}, wait=20)
        assert found is not None
        assert time.monotonic() - start < 10


def test_times_are_seconds_since_1970() -> None:
    (project, _) = tree_of(FILES / "written.json")
    seconds = project["trials"][0]["metadata"]["submit_time"]
    assert abs(datetime.fromtimestamp(seconds, UTC).year - 2026) <= 1
