"""Mutation testing: put small faults into the package, and see whether the tests notice.

The faults are listed in ``mutants.toml`` beside this file. Each one is put into its own copy of
the project, where the tests that it names run until the first of them fails::

    python tests/mutants.py                      every fault
    python tests/mutants.py --only lock retry    the faults of two subjects; names work, too
    python tests/mutants.py --list               list them, and whether they still apply

Before that, the same tests run without a fault: a test that fails anyway proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeVar

R = TypeVar("R")

HERE: Final = Path(__file__).resolve()
PACKAGE: Final = "aiostorage"
COPIED: Final = (PACKAGE, "tests", "pyproject.toml")

TABLE: Final = HERE.with_suffix(".toml")

RUN: Final = "--run-tests"
"""First argument of this program when it is the process in which tests run."""

EXTRA_TIMEOUT: Final = 30.0
"""Seconds that tests may take, beside twice the time that they take without a fault."""

SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds that tests which took too long have to end what they started."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Verdict = Literal["caught", "SURVIVED", "error"]


class MutantError(Exception):
    """A mutant cannot be made, or its tests prove nothing."""


@dataclass(frozen=True)
class Mutant:
    """A fault, and the tests that have to notice it.

    Attributes
    ----------
    file
        Path from the root of the project.
    old, new
        What stands there exactly once, and what the fault makes of it.
    tests
        Files or node ids for pytest.
    select
        An expression for pytest's ``-k``; empty for all of `tests`.
    """

    name: str
    subject: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    select: str = ""

    def source(self, root: Path) -> str:
        """Return the text of the file with the fault in it.

        Raises
        ------
        MutantError
            The file is missing, `old` does not stand there exactly once, or `new` is no Python.
        """
        path = root / self.file
        if not path.is_file():
            raise MutantError(f"there is no {self.file}")
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise MutantError(f"{self.file} has the snippet {count} times, not once: {self.old!r}")
        mutated = text.replace(self.old, self.new)
        try:
            compile(mutated, self.file, "exec")
        except SyntaxError as error:
            raise MutantError(f"the snippet makes {self.file} no Python: {error}") from None
        return mutated

    def apply(self, root: Path) -> None:
        """Put the fault into the copy below `root`."""
        mutated, path = self.source(root), root / self.file
        path.write_text(mutated, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()  # it might look up to date


@dataclass(frozen=True)
class MutantResult:
    """The verdict on a mutant."""

    mutant: Mutant
    verdict: Verdict
    seconds: float
    reason: str
    hung: bool = False

    def __str__(self) -> str:
        mutant = self.mutant
        return (
            f"{self.verdict:8}  {mutant.subject:9}  {mutant.name:38} {self.seconds:6.1f} s  "
            f"{self.reason}"
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of tests that ran in a process of their own.

    Attributes
    ----------
    code
        Exit code of pytest; None if the tests took too long.
    failed
        The first test that failed.
    passed
        How many tests passed.
    loaded
        Files of the modules of the package that they imported.
    """

    code: int | None
    seconds: float
    output: str
    failed: str = ""
    passed: int = 0
    loaded: tuple[str, ...] = ()

    def check(self, root: Path, file: str | None = None) -> None:
        """Check that these tests ran, on the package below `root`.

        Raises
        ------
        MutantError
            They did not, or not on that package, or without the module in `file`.
        """
        stranger = [path for path in self.loaded if not Path(path).is_relative_to(root)]
        if stranger:
            raise MutantError(f"the tests import another package: {stranger[0]}")
        if self.code == 5:
            raise MutantError("there are no such tests")
        if self.code not in (0, 1):
            raise MutantError(f"pytest ended with {self.code}:\n{_indented(self.output)}")
        if not self.loaded:
            raise MutantError(f"the tests did not get to their end:\n{_indented(self.output)}")
        if not self.passed and not self.failed:
            raise MutantError("all of its tests were skipped")
        if file is not None and str(root / file) not in self.loaded:
            raise MutantError(f"its tests do not import {file}")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-25:])


# ------------------------------------------------------------------- the process with the tests


class Watch:
    """A plugin of pytest that notes what its exit code does not say."""

    def __init__(self) -> None:
        self.failed = ""
        self.passed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """See `pytest.hookspec`."""
        if report.failed and not self.failed:
            self.failed = report.nodeid
        if report.passed and report.when == "call":
            self.passed += 1


def run_tests(answer: str, *arguments: str) -> int:
    """Run pytest in this process, and write the outcome as JSON into the file `answer`."""
    import pytest

    watch = Watch()
    code = int(pytest.main(list(arguments), plugins=[watch]))
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == PACKAGE]
    loaded = [path for module in modules if (path := getattr(module, "__file__", None))]
    told = {"failed": watch.failed, "passed": watch.passed, "loaded": loaded}
    Path(answer).write_text(json.dumps(told), encoding="utf-8")
    return code


class Tests:
    """Runs tests in processes, and ends them.

    Parameters
    ----------
    work
        A directory for what they write.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all tests that run, and start no others."""
        self._stopped.set()

    def run(
        self, root: Path, tests: Iterable[str], select: str, limit: float | None = None
    ) -> Outcome:
        """Run tests on the copy below `root`, for at most `limit` seconds."""
        if self._stopped.is_set():
            raise MutantError("stopped")
        with TemporaryDirectory(dir=self._work) as folder:
            answer, log = Path(folder, "answer"), Path(folder, "log")
            command = [sys.executable, "-P", str(HERE), RUN, str(answer), "-x", "-q", "--tb=short"]
            command += ["-p", "no:cacheprovider", "-p", "no:xdist", *tests]
            command += ["-k", select] if select else []
            environment = {
                name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
            }
            environment |= {"PYTHONPATH": str(root), "TMPDIR": folder}
            start = time.monotonic()
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    cwd=root,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                in_time = self._wait(process, limit)
            if self._stopped.is_set():
                raise MutantError("stopped")
            seconds = time.monotonic() - start
            text = log.read_text(encoding="utf-8", errors="replace")
            if not in_time:
                return Outcome(None, seconds, text)
            told = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
            if not told and "+++ Timeout +++" in text:  # pytest-timeout, which exits at once
                return Outcome(None, seconds, text)
            loaded = tuple(told.pop("loaded", ()))
            return Outcome(process.returncode, seconds, text, loaded=loaded, **told)

    def _wait(self, process: subprocess.Popen[bytes], limit: float | None) -> bool:
        """Wait for a process and end its group; return whether it ended by itself."""
        try:
            in_time = self._ended(process.pid, limit)
            if not in_time:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
                self._ended(process.pid, SHUTDOWN_TIMEOUT, stoppable=False)
            return in_time
        finally:
            # it is not reaped yet, so no other process can have its number
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _ended(self, pid: int, limit: float | None, *, stoppable: bool = True) -> bool:
        end = None if limit is None else time.monotonic() + limit
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if (end is not None and time.monotonic() > end) or (
                stoppable and self._stopped.is_set()
            ):
                return False
            time.sleep(0.05)
        return True


# ---------------------------------------------------------------------------------- the mutants


def load(table: Path) -> list[Mutant]:
    """Read the table of mutants.

    Raises
    ------
    MutantError
        A name is there twice, or a mutant lacks something.
    """
    mutants = []
    for entry in tomllib.loads(table.read_text(encoding="utf-8"))["mutant"]:
        try:
            mutant = Mutant(**{**entry, "tests": tuple(entry["tests"])})
        except (KeyError, TypeError) as error:
            raise MutantError(f"{entry.get('name')}: {error}") from None
        if mutant.old == mutant.new or not mutant.tests:
            raise MutantError(f"{mutant.name} changes nothing, or has no tests")
        mutants.append(mutant)
    for name, count in Counter(mutant.name for mutant in mutants).items():
        if count > 1:
            raise MutantError(f"{name} is there {count} times")
    return mutants


def chosen(mutants: Sequence[Mutant], only: Sequence[str] | None) -> list[Mutant]:
    """Return the mutants with these names or subjects.

    Raises
    ------
    MutantError
        There is no such name or subject.
    """
    if not only:
        return list(mutants)
    known = {word for mutant in mutants for word in (mutant.name, mutant.subject)}
    if unknown := sorted(set(only) - known):
        raise MutantError(f"there is no mutant and no subject {', '.join(unknown)}")
    return [mutant for mutant in mutants if {mutant.name, mutant.subject} & set(only)]


def copied(root: Path, to: Path) -> Path:
    """Copy what the tests need."""
    to.mkdir()
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name)
        else:
            shutil.copy2(root / name, to / name)
    return to


def selections(mutants: Iterable[Mutant]) -> dict[tuple[str, ...], str]:
    """Join the selections from the same files, so that each group runs only once."""
    joined: dict[tuple[str, ...], dict[str, None]] = {}
    for mutant in mutants:
        joined.setdefault(mutant.tests, {})[mutant.select] = None
    return {
        tests: "" if "" in selects else " or ".join(f"({select})" for select in selects)
        for tests, selects in joined.items()
    }


def without_fault(
    tests: Tests, root: Path, mutants: Sequence[Mutant], jobs: int
) -> dict[tuple[str, ...], Outcome]:
    """Run the tests of all mutants without a fault; return the outcome for each set of files."""

    def run(files: tuple[str, ...], select: str) -> tuple[tuple[str, ...], Outcome]:
        outcome = tests.run(root, files, select)
        verdict = "passes" if outcome.code == 0 else "FAILS"
        print(
            f"{verdict:8}  {outcome.passed:4} tests  {outcome.seconds:6.1f} s  {' '.join(files)}",
            flush=True,
        )
        return files, outcome

    groups = selections(mutants)
    return dict(_all_of(tests, jobs, run, list(groups), list(groups.values())))


def judged(tests: Tests, mutant: Mutant, snapshot: Path, before: Outcome) -> MutantResult:
    """Put a fault into a copy of its own, and run its tests there.

    Parameters
    ----------
    before
        The outcome of its tests without the fault.
    """
    start = time.monotonic()
    with TemporaryDirectory(dir=snapshot.parent) as folder:
        try:
            before.check(snapshot)
            if before.code != 0:
                raise MutantError(f"without it, {before.failed} fails:\n{_indented(before.output)}")
            limit = EXTRA_TIMEOUT + 2 * before.seconds
            root = copied(snapshot, Path(folder, "copy"))
            mutant.apply(root)
            outcome = tests.run(root, mutant.tests, mutant.select, limit)
            hung = outcome.code is None
            if hung:
                verdict: Verdict = "caught"
                reason = f"its tests hang, ended after {outcome.seconds:.0f} s"
            else:
                outcome.check(root, mutant.file)
                verdict = "SURVIVED" if outcome.code == 0 else "caught"
                reason = outcome.failed or f"{outcome.passed} tests pass"
        except MutantError as error:
            verdict, reason, hung = "error", str(error), False
    result = MutantResult(mutant, verdict, time.monotonic() - start, reason, hung)
    print(result, flush=True)
    return result


def _all_of(
    tests: Tests, jobs: int, function: Callable[..., R], *arguments: Sequence[Any]
) -> list[R]:
    """Call a function with each of the arguments, `jobs` at a time; stop all if one raises."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(function, *arguments))
        except BaseException:
            tests.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ---------------------------------------------------------------------------------- the program


def shown(mutants: Sequence[Mutant], root: Path) -> int:
    """Print the mutants; return how many of them do not apply."""
    wrong = 0
    for mutant in mutants:
        try:
            mutant.source(root)
        except MutantError as error:
            wrong += 1
            note = f"  ERROR: {error}"
        else:
            note = ""
        print(f"{mutant.subject:9}  {mutant.name:38}  {mutant.file}{note}")
    print(f"{len(mutants)} mutants, {wrong} of them do not apply")
    return wrong


def tested(mutants: Sequence[Mutant], root: Path, jobs: int) -> list[MutantResult]:
    """Run the tests of all mutants; print and return each verdict."""
    with TemporaryDirectory(prefix="mutants-") as folder:
        work = Path(folder).resolve()
        snapshot = copied(root, work / "snapshot")
        tests = Tests(work)
        outcomes = without_fault(tests, snapshot, mutants, jobs)
        before = [outcomes[mutant.tests] for mutant in mutants]
        return _all_of(
            tests,
            jobs,
            lambda mutant, outcome: judged(tests, mutant, snapshot, outcome),
            mutants,
            before,
        )


def main(arguments: Sequence[str]) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=HERE.parent.parent, help="the project")
    parser.add_argument("--table", type=Path, default=TABLE, help="the mutants")
    parser.add_argument("--only", nargs="+", metavar="NAME|SUBJECT", help="some of the mutants")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    options = parser.parse_args(arguments)
    root: Path = options.root.resolve()
    start = time.monotonic()
    try:
        mutants = chosen(load(options.table), options.only)
        if options.list:
            return 1 if shown(mutants, root) else 0
        results = tested(mutants, root, options.jobs)
    except MutantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = Counter(result.verdict for result in results)
    hung = sum(result.hung for result in results)
    print(
        f"{len(results)} mutants in {time.monotonic() - start:.0f} s: {counts['caught']} caught "
        f"({hung} by a hang), {counts['SURVIVED']} survived, {counts['error']} errors"
    )
    return 0 if counts["caught"] == len(results) else 1


def _ignored(_number: int, _frame: object) -> None:
    pass


def _terminated(number: int, _: object) -> None:
    for name in STOP_SIGNALS:  # a second signal must not interrupt the clean-up
        signal.signal(name, _ignored)
    sys.exit(128 + number)


if __name__ == "__main__":
    if sys.argv[1:2] == [RUN]:
        sys.exit(run_tests(*sys.argv[2:]))
    for name in STOP_SIGNALS:
        signal.signal(name, _terminated)
    sys.exit(main(sys.argv[1:]))
