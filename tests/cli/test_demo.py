"""The demo, in real processes."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from .support import (
    DEADLINE,
    command,
    environment,
    eventually,
    interrupt,
    lives,
    points,
    run,
    started,
    stored,
    trials_of,
)

SMALL = ("--sample", "0.05", "--trials", "12", "--workers", "3", "--processes", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a directory where a user's module is."""
    module = Path(__file__).with_name("objectives.py").read_text()
    (tmp_path / "objectives.py").write_text(module)
    return tmp_path


def pids(folder: Path) -> list[int]:
    """Return the processes that have begun to evaluate `objectives.slow`."""
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def test_a_small_demo_completes_exactly_its_trials_and_says_how(folder: Path) -> None:
    outcome = run(folder, "demo", *SMALL)
    assert (outcome.code, outcome.err) == (0, "")
    assert trials_of(folder) == ["completed"] * 12
    assert len(points(folder)) == 12
    assert "\x1b" not in outcome.out  # this is not a terminal
    assert re.search(
        r"^ +\d+\.\d s  12/12 completed, .*, best [\d,]+ bytes$", outcome.out, re.MULTILINE
    )
    best = min(trial.objective.value for trial in stored(folder) if trial.objective)
    summary = outcome.out.partition("\n\n")[2]
    assert "12 trials completed" in summary
    assert f"\nbest        {best:,} bytes" in summary
    assert "by preset 9 | EXTREME" in summary
    assert re.search(r"^storage +\d+\.\d% of the workers' time$", summary, re.MULTILINE)
    assert f"{folder}/aiostorage-demo.db, experiment demo v1" in summary
    assert summary.rstrip().endswith("aiostorage status")


def test_a_seed_makes_the_same_points_whoever_works_and_both_kinds_of_function_do(
    folder: Path,
) -> None:
    alone = ("--processes", "1", "--workers", "1", "--objective", "objectives:plain")
    many = ("--processes", "2", "--workers", "5", "--objective", "objectives:coroutine")
    for version, (who, seed) in enumerate(((alone, "7"), (many, "7"), (alone, "2")), 1):
        outcome = run(folder, "demo", "--trials", "15", "--seed", seed, *who)
        assert (outcome.code, outcome.err) == (0, "")
        assert f"experiment demo v{version}" in outcome.out  # each run makes another version
    assert points(folder, 1) == points(folder, 2)
    assert len(points(folder, 1)) == 15
    assert not points(folder, 1) & points(folder, 3)
    assert trials_of(folder, 2) == ["completed"] * 15
    for mine, other in zip(
        *(sorted(stored(folder, version), key=lambda t: t.id) for version in (1, 2)), strict=True
    ):
        assert mine.objective
        assert mine.objective == other.objective
    assert {r.name for t in stored(folder, 2) for r in t.statistics} == {"accuracy"}


def test_what_a_killed_process_had_is_done_by_another(folder: Path) -> None:
    outcome = run(
        folder,
        *("demo", "--kill", "--lost-after", "1", "--trials", "24"),
        *("--workers", "3", "--objective", "objectives:paced"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert trials_of(folder) == ["completed"] * 24
    summary = outcome.out.partition("\n\n")[2]
    [killed] = re.findall(
        r"^killed +process 2 \(pid \d+\) by SIGKILL in the middle of (\d) trials?$",
        summary,
        re.MULTILINE,
    )
    fates = re.findall(
        r"recovered by process 1 after \d\.\d s, completed by process 1, worker \d$",
        summary,
        re.MULTILINE,
    )
    assert len(fates) == int(killed) > 0


def test_a_process_that_dies_by_itself_is_reported_and_replaced(folder: Path) -> None:
    outcome = run(
        folder,
        *("demo", "--objective", "objectives:first_one_dies", "--trials", "10"),
        *("--lost-after", "0.5"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert trials_of(folder) == ["completed"] * 10
    assert re.search(r"^failed +process \d died of SIGKILL$", outcome.out, re.MULTILINE)
    assert re.search(r"^recovered +\d lost trial", outcome.out, re.MULTILINE)


def test_a_run_whose_processes_all_die_ends_with_one_line(folder: Path) -> None:
    outcome = run(folder, "demo", "--objective", "objectives:crash", "--trials", "5")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "ended after 0 of 5 trials: process 1 failed with code 7" in outcome.err


def test_trials_whose_evaluation_fails_are_broken(folder: Path) -> None:
    outcome = run(
        folder,
        *("demo", "--objective", "objectives:partly_broken", "--space", "n=1:4"),
        *("--trials", "4"),
    )
    assert outcome.code == 1
    assert sorted(trials_of(folder)) == ["broken", "broken", "completed", "completed"]
    assert outcome.out.count("ValueError: more than two") == 4  # when it happened, and at the end
    assert "no event at all" not in outcome.out


def test_results_without_a_number_break_the_trial(folder: Path) -> None:
    outcome = run(folder, "demo", "--objective", "objectives:nonsense", "--trials", "2")
    assert outcome.code == 1
    assert trials_of(folder) == ["broken"] * 2
    assert "best        none" in outcome.out


def two_work(folder: Path) -> bool:
    return len(pids(folder)) == 2


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def test_a_signal_ends_all_processes_and_gives_the_trials_back(folder: Path) -> None:
    """Three runs at once, one for each signal."""
    arguments = ("--trials", "9", "--workers", "2", "--objective", "objectives:slow")
    module = (folder / "objectives.py").read_text()
    with ExitStack() as stack:
        runs = []
        for number in SIGNALS:
            its = folder / number.name
            its.mkdir()
            (its / "objectives.py").write_text(module)
            runs.append((number, its, stack.enter_context(started(its, "demo", *arguments))))
        for number, its, process in runs:
            eventually(partial(two_work, its), f"two processes, {number.name}")
            begin = time.monotonic()
            outcome = interrupt(process, number)
            assert outcome.code == SIGNALS[number], number.name
            assert "Traceback" not in outcome.err, number.name
            assert "stopped after 0 of 9 trials; they are in" in outcome.err, number.name
            assert time.monotonic() - begin < 10, number.name
            assert not any(map(lives, pids(its))), number.name
            assert "reserved" not in trials_of(its), number.name
            assert "interrupted" in trials_of(its), number.name


def test_a_run_whose_reader_has_gone_ends_quietly(folder: Path) -> None:
    arguments = ("--trials", "9", "--workers", "2", "--objective", "objectives:slow")
    with started(folder, "demo", *arguments) as process:
        eventually(lambda: len(pids(folder)) == 2, "two processes")
        assert process.stdout is not None
        process.stdout.close()
        process.wait(DEADLINE)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (1, "")
    assert not any(map(lives, pids(folder)))


def test_no_process_outlives_its_parent(folder: Path) -> None:
    arguments = ("--trials", "9", "--workers", "2", "--objective", "objectives:slow")
    with started(folder, "demo", *arguments) as process:
        eventually(lambda: len(pids(folder)) == 2, "two processes")
        process.kill()
        process.wait(DEADLINE)
        eventually(lambda: not any(map(lives, pids(folder))), "the end of the processes")
    assert "reserved" not in trials_of(folder)


def test_a_terminal_shows_the_table(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("demo", "--objective", "objectives:paced", "--trials", "12", "--workers", "2"),
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color", COLUMNS="100", LINES="40"),
    ) as process:
        os.close(theirs)
        try:
            shown = _read(ours)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            os.close(ours)
    assert "\x1b[?25l" in shown  # the cursor is hidden
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # and back
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"new \d+ +reserved \d+ +completed \d+", text)
    assert re.search(r"process +worker +does +trial +for", text)
    assert re.search(r"1 \(pid \d+\) +1 +evaluating +[0-9a-f]{8} +\d+\.\d s", text)
    assert re.search(r"best so far: [\d.]+  x=[-\d]", text)
    assert "━ 12/12" in text


def _read(terminal: int) -> str:
    """Read what is written on a terminal until its last writer has ended."""
    shown, end = b"", time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:  # EIO: no process has it open any more
            return shown.decode()
        shown += read
    pytest.fail(f"it did not end: {shown[-2000:]!r}")
