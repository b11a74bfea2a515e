"""Values that PickledDB takes and documents do not: through Oríon, and in imports."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 ends at Python 3.11", allow_module_level=True)

import orion.core.io.database.pickleddb as orion_pickleddb
from orion.core.worker.trial import Trial as OrionTrial

from aiostorage._core.normalise import normalise
from aiostorage.errors import EncodingError
from aiostorage.orion import export_orion, import_orion
from aiostorage.orion.conversion import plain
from aiostorage.orion.python_values import NOTES

from .support import call, plugged_in, stored, using

pytestmark = pytest.mark.filterwarnings("default")

EAST = timezone(timedelta(hours=5))

KINDS: dict[str, tuple[Any, Any]] = {
    "date": (date(2020, 1, 31), "2020-01-31"),
    "time": (time(1, 2), "01:02:00"),
    "timedelta": (timedelta(1, 2, 3), "1 day, 0:00:02.000003"),
    "Decimal": (Decimal("1.50"), "1.50"),
    "Fraction": (Fraction(1, 3), "1/3"),
    "complex": (1 + 2j, "(1+2j)"),
    "big int": (2**70, "1180591620717411303424"),
    "set": ({2, 1}, [1, 2]),
    "frozenset": (frozenset({3}), [3]),
    "mixed set": ({1, "a"}, [1, "a"]),
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "path": (PurePosixPath("a/b"), "a/b"),
    "uuid": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "bytearray": (bytearray(b"a"), b"a"),
    "list of dates": ([date(2020, 1, 31)], ["2020-01-31"]),
}
KEYS = {None: "b", date(2020, 1, 31): "d", 2.5: "e", 7: {8: "f"}}

FROM_A_FILE = {
    "date": date(2020, 1, 31),
    "here": datetime(2020, 1, 31, 12, 0, 0, 123_000),  # noqa: DTZ001
    "there": datetime(2020, 1, 31, 12, 0, 0, 123_456, EAST),
    "big": 2**70,
    "small": 3,
    "tags": {"a", "b"},
    "span": timedelta(1, 2, 3),
    "exact": [Decimal("1.50"), Fraction(1, 3), 1j, time(1, 2)],
    "weights": [KEYS],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "orion.pkl"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tune.db'}"


def config(**metadata: Any) -> dict[str, Any]:
    created = datetime(2020, 1, 1)  # noqa: DTZ001  as Oríon's
    return {"name": "e", "version": 1, "metadata": {"datetime": created, **metadata}}


def trial_of(experiment: Any, value: Any) -> Any:
    param = {"name": "x", "type": "categorical", "value": value}
    return OrionTrial(experiment=experiment, params=[param])


def test_each_kind_has_one_form() -> None:
    for value, form in KINDS.values():
        # what one form stands for in every document is left to `normalise`
        assert normalise(plain(value)) == form
    assert plain([KEYS]) == [{"None": "b", "2020-01-31": "d", "2.5": "e", "7": {"8": "f"}}]
    assert plain({1: "a", "1": "b"}) == {1: "a", "1": "b"}  # refused, with its place
    assert plain(np.complex64(1j)) == "1j"
    assert plain(np.array([{1}, (2, 3)], dtype=object)) == [[1], [2, 3]]
    endless: list[Any] = []
    endless.append(endless)
    plain(endless)


def test_imported_trials_keep_their_ids(source: Path, url: str) -> None:
    experiment = {"_id": 1, **config()}
    trials = [trial_of(1, value) for value, _ in KINDS.values()]
    ids = [trial.id for trial in trials]
    database = orion_pickleddb.PickledDB(str(source))  # as `Legacy` writes them, but all at once
    database.write("experiments", [experiment])
    database.write("trials", [trial.to_dict() for trial in trials])
    using(url, lambda storage: import_orion(source, storage))
    with plugged_in(url) as ours:
        found = ours.fetch_trials(uid=experiment["_id"])
        assert [trial.id for trial in found] == ids
        for trial, (value, form) in zip(found, KINDS.values(), strict=True):
            assert trial.params["x"] == form, value
            assert trial.to_dict()["id"] == trial.id
        odd = found[list(KINDS).index("tuple")]
        ours.set_trial_status(odd, "reserved")
        odd.results = [OrionTrial.Result(name="o", type="objective", value=1.0)]
        odd.results.append(OrionTrial.Result(name="seen", type="statistic", value=object()))
        odd.status = "completed"
        ours.push_trial_results(odd)
        again = ours.get_trial(odd)
        assert (again.id, again.status, len(again.results)) == (odd.id, "completed", 1)
        changed = OrionTrial(**{**again.to_dict(), "results": []})
        assert changed.id != odd.id
        again.params  # noqa: B018
        again._params[0].value = [1]
        assert again.id == trial_of(experiment["_id"], [1]).id


@pytest.mark.parametrize("engine", ["memory", "sqlite", "track"])
def test_a_configuration_file_comes_back_to_orion(tmp_path: Path, engine: str) -> None:
    url = "memory://" if engine == "memory" else f"{engine}:///{tmp_path / 'tune'}"
    with plugged_in(url) as ours:
        given = config(parser={"config_file_data": FROM_A_FILE})
        ours.create_experiment(given)
        [found] = ours.fetch_experiments({"name": "e"})
        assert found["metadata"] == given["metadata"]
        assert found["metadata"]["parser"]["config_file_data"]["there"].tzinfo is not None
        assert ours._db.read("experiments", {"name": "e"})[0]["metadata"] == given["metadata"]
        ours.update_experiment(uid=given["_id"], metadata={"x": 1, "y": {5: date(2021, 1, 1)}})
        [found] = ours.fetch_experiments({"name": "e"}, {"metadata": 1})
        assert found["metadata"] == {"x": 1, "y": {5: date(2021, 1, 1)}}
        ours.update_experiment(uid=given["_id"], **{"metadata.y": "changed"})
        [found] = ours.fetch_experiments({"name": "e"})
        assert found["metadata"] == {"x": 1, "y": "changed"}


def test_a_configuration_file_goes_there_and_back(source: Path, url: str, tmp_path: Path) -> None:
    given = config(parser={"config_file_data": FROM_A_FILE})
    orion_pickleddb.PickledDB(str(source)).write("experiments", [{"_id": 1, **given}])
    using(url, lambda storage: import_orion(source, storage))
    [document] = stored(url)["experiments"]
    data = document["metadata"]["parser"]["config_file_data"]
    assert (data["date"], data["there"]) == (
        "2020-01-31",
        datetime(2020, 1, 31, 7, 0, 0, 123_456, UTC),
    )
    assert NOTES in document["metadata"]
    back = tmp_path / "back.pkl"
    using(url, lambda storage: export_orion(storage, back))
    [document] = orion_pickleddb.PickledDB(str(back)).read("experiments")
    again = document["metadata"]["parser"]["config_file_data"]
    assert {**again, "weights": None} == {**FROM_A_FILE, "weights": None}
    assert NOTES not in document["metadata"]


# ----------------------------------------------------------------------------------- bad records


@pytest.fixture
def bad(source: Path) -> Path:
    database = orion_pickleddb.PickledDB(str(source))
    database.write("experiments", [{"_id": 1, **config()}, {"_id": 2, "name": "bad", "x": len}])
    for number, value in enumerate([len, "\ud800", 3, 4]):
        param = {"name": "x", "type": "categorical", "value": value}
        trial = {"experiment": 1, "status": "new", "id": f"{number:032x}", "params": [param]}
        database.write("trials", [trial])
    database.write("trials", [{"experiment": 2, "status": "new", "params": []}])
    database.write("benchmarks", [{"name": "b", "x": len}, {"name": "good"}])
    database.write("algo", [{"experiment": 1, "state": b"\x80no pickle", "configuration": {}}])
    return source


def test_one_bad_value_is_named_and_nothing_is_written(bad: Path, url: str) -> None:
    with pytest.raises(EncodingError, match=r"experiment 'bad': x: .*<built-in function len>"):
        using(url, lambda storage: import_orion(bad, storage))
    assert not any(stored(url).values())


def test_bad_records_are_skipped_and_listed(bad: Path, url: str) -> None:
    done = call("import-orion", bad, url, "--skip-bad")
    assert done.exit_code == 1
    assert "copied 1 experiment, 2 trials, 1 benchmark" in done.output
    assert "skipped 5 records that cannot be stored" in done.output
    listed = [line for line in done.output.splitlines() if line.startswith("skipped ")]
    assert len(listed) == 5
    assert listed[0].endswith("(with its 1 trial)")
    assert [trial["params"][0]["value"] for trial in stored(url)["trials"]] == [3, 4]
    again = call("import-orion", bad, url, "--skip-bad", "--json")
    assert again.exit_code == 1
    result = json.loads(again.stdout)
    assert result["trials"] == {"copied": 0, "present": 2, "replaced": 0}
    assert [one["collection"] for one in result["skipped"]] == [
        *("experiments", "trials", "trials", "benchmarks"),
    ]
    assert {one["path"] for one in result["skipped"]} == {"x", "params[0].value"}
    refused = call("import-orion", bad, url)
    assert refused.exit_code == 2
