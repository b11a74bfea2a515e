"""How the benchmarks are carried out: turns, processes, failures, and the command itself."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.definitions import Side, Workload
from benchmarks.process import peak_memory
from benchmarks.registry import WORKLOADS
from benchmarks.runner import Conditions, carry_out
from benchmarks.samples import LeftOut, Sample
from tests.benchmarks.toy_sides import dying, earlier, failing, large, noted, unready

ROOT = Path(__file__).parents[2]


def carried_out(
    tmp_path: Path, *sides: Side, rounds: int = 2
) -> tuple[list[Sample], list[LeftOut], list[str]]:
    work = Workload("work", "Work", "", "jobs", sides, (sides[0].who, sides[0].case), rounds=rounds)
    conditions = Conditions(tmp_path, "b-", {"mongodb": "no server"})
    found = list(carry_out(work, conditions, lambda _: None))
    notes = tmp_path / "notes"
    return (
        [one for one in found if isinstance(one, Sample)],
        [one for one in found if isinstance(one, LeftOut)],
        notes.read_text().splitlines() if notes.exists() else [],
    )


def test_sides_take_turns(tmp_path: Path) -> None:
    sides = [Side(who, "", noted, 4, store=who) for who in ("a", "b")]
    samples, left_out, notes = carried_out(tmp_path, *sides)
    begin, turns, end = notes[:2], notes[2:8], notes[8:]
    assert sorted(begin) == ["b-a begin 0", "b-b begin 0"]
    assert [turn.removesuffix(" block") for turn in turns] == [
        "b-a",
        "b-b",
        "b-b",
        "b-a",
        "b-a",
        "b-b",
    ]
    assert sorted(end) == ["b-a end", "b-b end"]
    assert not left_out
    assert [(one.who, one.round, one.count) for one in samples] == [
        *(("b", 1, 4), ("a", 1, 4), ("a", 2, 4), ("b", 2, 4))
    ]


def test_there_are_trials_for_all_rounds_and_processes(tmp_path: Path) -> None:
    side = Side("a", "", noted, 4, processes=2, size=10, store="a")
    samples, _, notes = carried_out(tmp_path, side)
    assert notes[:2] == ["b-a begin 24", "b-a end"]  # it is filled by a process of its own
    assert notes.count("b-a block") == 6
    assert [one.count for one in samples] == [8, 8]


def test_the_others_go_on_without_one_that_fails(tmp_path: Path) -> None:
    sides = [
        *(Side("a", "", noted, 4, store="a"), Side("b", "", failing, 4)),
        *(Side("c", "", unready, 4), Side("d", "", dying, 4)),
        Side("e", "", noted, 4, needs=("mongodb",)),
    ]
    samples, left_out, _ = carried_out(tmp_path, *sides)
    assert [one.who for one in samples] == ["a", "a"]
    assert {one.who: (one.reason, one.failed) for one in left_out} == {
        "b": ("RuntimeError: it is busy", True),
        "c": ("RuntimeError: no such file", True),
        "d": ("its process ended with 3", True),
        "e": ("no server", False),
    }


def test_earlier_code_is_taken_from_its_checkout(tmp_path: Path) -> None:
    package = tmp_path / "aiostorage"
    package.mkdir()
    (package / "__init__.py").write_text("EARLIER = 7")
    side = Side("a", "", earlier, 1, needs=("before",))
    for before, shown in ((tmp_path, 7), (tmp_path / "nothing", None)):
        conditions = Conditions(tmp_path, "b-", {}, before=before)
        work = Workload("work", "Work", "", "jobs", (side,), ("a", ""), rounds=1)
        (found,) = carry_out(work, conditions, lambda _: None)
        assert shown == (found.count if isinstance(found, Sample) else None)


def test_memory_is_that_of_the_work(tmp_path: Path) -> None:
    before = peak_memory()
    samples, _, _ = carried_out(tmp_path, Side("a", "", large, 1), rounds=1)
    assert 60 * 2**20 < samples[0].memory_above < 100 * 2**20
    assert peak_memory() - before < 30 * 2**20  # it was that of another process


def test_the_command_writes_a_report(tmp_path: Path) -> None:
    output, samples = tmp_path / "report.md", tmp_path / "samples.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)]
    command += ["--json", str(samples), "--directory", str(tmp_path)]
    command += ["--only", "call"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert "## A call of the facade above the async call" in text
    assert "| aiostorage, SQLite | awaited | 1.00 \u00d7 |" in text
    assert "| a call of the facade, memory |" in text
    found = json.loads(samples.read_text())["samples"]
    assert [one["round"] for one in found if one["case"] == "facade"] == [1, 1, 2, 2]
    assert not list(tmp_path.glob("tmp*"))  # its files are gone


def test_the_command_refuses_what_there_is_not() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "nothing"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr


@pytest.mark.parametrize("name", ["begin", "who", "case"])
def test_a_side_of_a_workload_can_go_to_its_process(name: str) -> None:
    for workload in WORKLOADS.values():
        for side in workload.sides:
            copy = pickle.loads(pickle.dumps(side))
            assert repr(getattr(copy, name)) == repr(getattr(side, name))
