"""The parts of the demo, one by one."""

from __future__ import annotations

import io
import math
import random
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from aiostorage import ConfigurationError, Storage, Trial, open_storage
from aiostorage.cli.demo.archive import SmallestArchive, sample_of
from aiostorage.cli.demo.display import LineDisplay, LiveDisplay, QuietDisplay, display_on
from aiostorage.cli.demo.events import Event, EventKind
from aiostorage.cli.demo.problem import Problem, ProblemSpec
from aiostorage.cli.demo.report import DemoReport
from aiostorage.cli.demo.run_state import RunState
from aiostorage.cli.demo.space import Categorical, Integer, Real, Space, parse_space
from aiostorage.cli.demo.suggest import RandomSearch
from aiostorage.cli.demo.timed_storage import TimedStorage, TimeSpent
from aiostorage.cli.demo.user_objective import UserObjective
from aiostorage.cli.demo.workers import Workers
from aiostorage.cli.results import BestTrial, count_by_status, objective_of
from aiostorage.cli.text import number, pairs, plural, span
from aiostorage.trial import Param

SPACE = parse_space(["x=0:1000000", "y=a,b"])


def constant(_: Mapping[str, Any]) -> float:
    return 1.0


PROBLEM: Problem = UserObjective("constant", constant, SPACE)


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory://", lost_after=0.2, lock_lease=0.3) as storage:
        yield storage


async def new(storage: Storage, version: int = 1, *, algo_locked: int | None = None) -> str:
    config = {"name": "x", "version": version}
    state = RandomSearch.initial_state(5)
    experiment = await storage.create_experiment(config, algo_locked, state)
    return str(experiment.id)


async def suggested(storage: Storage, uid: str) -> list[str]:
    return [trial.params_repr() for trial in await storage.fetch_trials(uid=uid) or []]


# -------------------------------------------------------------------------------------- space


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("x=1:8", Integer("x", 1, 8)),
        ("x=-1:1.0", Real("x", -1.0, 1.0)),
        ("x = 1e-5 : 1e-1", Real("x", 1e-5, 0.1)),
        ("x=a, b", Categorical("x", ("a", "b"))),
        ("x=1,2.5,c", Categorical("x", (1, 2.5, "c"))),
        ("x=http://a,http://b", Categorical("x", ("http://a", "http://b"))),
        ("x=7", Categorical("x", (7,))),
    ],
)
def test_a_dimension_is_read(text: str, dimension: Integer | Real | Categorical) -> None:
    assert parse_space([text]).dimensions == (dimension,)


@pytest.mark.parametrize("text", ["", "x", "x=", "=1", "1x=2", "a.b=1", "x=inf:1", "x=1:", "x=a,a"])
def test_what_is_no_dimension_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_space([text])


def test_a_space_knows_its_size_and_its_priors() -> None:
    space = parse_space(["i=1:8", "c=a,b"])
    assert space.size == 16
    assert parse_space(["i=1:8", "r=0.0:1.0"]).size == math.inf
    assert parse_space(["r=1.0:1.0"]).size == 1
    assert space.priors == {"i": "uniform(1, 8, discrete=True)", "c": "choices(['a', 'b'])"}
    assert parse_space(["r=0.0:1.0"]).priors == {"r": "uniform(0.0, 1.0)"}


def test_what_a_space_does_not_allow_is_not_drawn() -> None:
    space = Space((Integer("a", 0, 4), Integer("b", 0, 4)), lambda p: p["a"] + p["b"] <= 4)
    rng = random.Random(1)
    for _ in range(200):
        a, b = space.draw(rng)
        assert a.value + b.value <= 4
    assert space.draw(random.Random(2)) == space.draw(random.Random(2))
    assert {type(param) for param in space.draw(rng)} == {Param}


# ------------------------------------------------------------------------------------ suggest


@pytest.mark.anyio
async def test_suggestions_are_the_same_in_whatever_portions(storage: Storage) -> None:
    search, found = RandomSearch(SPACE, 10), []
    for version, portion in ((1, 1), (2, 3), (3, 99)):
        uid, timed = await new(storage, version), TimedStorage(storage, TimeSpent())
        while not await search.suggest(timed, uid, portion):
            for trial in await storage.fetch_pending_trials({"_id": uid}):
                await storage.set_trial_status(trial, "completed")
        found.append(await suggested(storage, uid))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 10


@pytest.mark.anyio
async def test_nothing_is_suggested_while_something_is_pending(storage: Storage) -> None:
    uid, timed = await new(storage), TimedStorage(storage, TimeSpent())
    search = RandomSearch(SPACE, 10)
    assert not await search.suggest(timed, uid, 2)
    assert not await search.suggest(timed, uid, 2)
    assert len(await suggested(storage, uid)) == 2


@pytest.mark.anyio
async def test_what_a_dead_suggester_left_is_not_suggested_twice(storage: Storage) -> None:
    uid, timed = await new(storage), TimedStorage(storage, TimeSpent())
    search = RandomSearch(SPACE, 6)
    async with storage.acquire_algorithm_lock({"_id": uid}) as algorithm:
        # registered, and the state not saved: what SIGKILL would leave
        await storage.register_trials(search._drawn(algorithm, uid, 2))
        algorithm.reset()
    left = await suggested(storage, uid)
    for trial in await storage.fetch_trials(uid=uid) or []:
        await storage.set_trial_status(trial, "completed")
    assert await search.suggest(timed, uid, 6)
    everything = await suggested(storage, uid)
    assert len(set(everything)) == len(everything) == 6
    assert everything[:2] == left


@pytest.mark.anyio
async def test_a_small_space_is_suggested_to_its_last_point(storage: Storage) -> None:
    uid, timed = await new(storage), TimedStorage(storage, TimeSpent())
    assert await RandomSearch(parse_space(["x=1:5", "y=a,b"]), 10).suggest(timed, uid, 99)
    assert len(set(await suggested(storage, uid))) == 10
    with pytest.raises(ConfigurationError, match="10 different points"):
        RandomSearch(parse_space(["x=1:5", "y=a,b"]), 11)


# ------------------------------------------------------------------------------------ workers


async def work(
    storage: Storage, uid: str, problem: Problem = PROBLEM, trials: int = 6
) -> list[Event]:
    events: list[Event] = []
    workers = Workers(storage, uid, problem, trials=trials, workers=3, report=events.append)
    with anyio.fail_after(30):
        await workers.run()
    return events


@pytest.mark.anyio
async def test_workers_do_all_trials_and_say_so(storage: Storage) -> None:
    uid = await new(storage)
    events = await work(storage, uid)
    assert await count_by_status(storage, {"_id": uid}) == {"completed": 6}
    kinds = [event.kind for event in events]
    assert kinds[0] == EventKind.READY
    assert kinds.count(EventKind.EVALUATING) == kinds.count(EventKind.COMPLETED) == 6
    assert kinds.count(EventKind.ENDED) == 3
    for event in events:
        if event.spent is not None:
            assert event.spent["total"] >= event.spent["storage"] >= 0


@pytest.mark.anyio
async def test_workers_get_past_a_lock_that_a_dead_process_holds(storage: Storage) -> None:
    uid = await new(storage, algo_locked=1)
    await work(storage, uid)
    assert await count_by_status(storage, {"_id": uid}) == {"completed": 6}


@pytest.mark.anyio
async def test_workers_do_what_a_dead_process_has_reserved(storage: Storage) -> None:
    uid = await new(storage)
    await RandomSearch(SPACE, 6).suggest(TimedStorage(storage, TimeSpent()), uid, 6)
    [dead] = await storage.reserve_trials({"_id": uid}, 1)
    events = await work(storage, uid)
    assert await count_by_status(storage, {"_id": uid}) == {"completed": 6}
    [recovered] = [event for event in events if event.kind == EventKind.RECOVERED]
    assert recovered.trials == (dead.id,)
    assert dead.id in [event.trial for event in events if event.kind == EventKind.COMPLETED]


@pytest.mark.anyio
async def test_a_worker_that_loses_its_trial_goes_on(storage: Storage) -> None:
    uid = await new(storage)
    stolen: list[Mapping[str, Any]] = []

    async def robbed(params: Mapping[str, Any]) -> float:
        if not stolen:
            stolen.append(params)
            reserved = await storage.fetch_trials_by_status({"_id": uid}, "reserved")
            [mine] = [trial for trial in reserved if trial.params == params]
            mine.worker = None  # an operator's hand, which no token holds back
            await storage.set_trial_status(mine, "interrupted")
            await anyio.sleep(5)  # until the next heartbeat tells
        return 1.0

    events = await work(storage, uid, UserObjective("robbed", robbed, SPACE))
    assert await count_by_status(storage, {"_id": uid}) == {"completed": 6}
    assert EventKind.LOST in [event.kind for event in events]


@pytest.mark.anyio
async def test_failing_objectives_make_broken_trials(storage: Storage) -> None:
    uid = await new(storage)

    def failing(_: Mapping[str, Any]) -> float:
        raise LookupError("not\nthere" + "!" * 999)

    events = await work(storage, uid, UserObjective("failing", failing, SPACE), trials=2)
    assert await count_by_status(storage, {"_id": uid}) == {"broken": 2}
    errors = [event.error for event in events if event.kind == EventKind.BROKEN]
    assert all(error.startswith("LookupError: not there!!") for error in errors)
    assert all(len(error) == 200 for error in errors)


@pytest.mark.anyio
async def test_every_kind_of_function_is_an_objective() -> None:
    async def coroutine(params: Mapping[str, Any]) -> Any:
        return params["x"]

    class Functor:
        async def __call__(self, params: Mapping[str, Any]) -> Any:
            return params["x"]

    def makes_one(params: Mapping[str, Any]) -> Any:
        return coroutine(params)

    functions: list[Callable[..., Any]] = [
        coroutine,
        Functor(),
        makes_one,
        partial(coroutine),
        lambda params: params["x"],
    ]
    for function in functions:
        assert await UserObjective("f", function, SPACE).evaluate({"x": 7}) == 7


# ------------------------------------------------------------------------------------ archive


def test_a_sample_is_the_same_each_time_and_of_the_right_size(tmp_path: Path) -> None:
    for number_ in range(20):
        (tmp_path / f"{number_}.txt").write_bytes(bytes([number_]) * 100)
    one = sample_of(iter(sorted(tmp_path.iterdir())), tmp_path, 450)
    other = sample_of(iter(sorted(tmp_path.iterdir(), reverse=True)), tmp_path, 450)
    assert one == other
    assert len(one) == 450
    assert len(sample_of(tmp_path.iterdir(), tmp_path, 10**6)) == 2000


def test_the_corpus_by_default_is_python_s_library() -> None:
    problem = ProblemSpec(sample=0.1).problem()
    assert problem.title == "the smallest .xz of 0.10 MiB from Python's library"


@pytest.mark.anyio
async def test_all_of_the_space_can_be_compressed_with() -> None:
    problem = SmallestArchive(b"some text, and some more text" * 20, "here")
    rng = random.Random(3)
    for _ in range(60):
        params = {param.name: param.value for param in problem.space.draw(rng)}
        results = await problem.evaluate(params)
        assert 0 < results["ratio"] == results["size"] / 580 < 1
    assert len(await problem.references()) == 2


# --------------------------------------------------------------------- events and the run state


def test_an_event_survives_its_line() -> None:
    event = Event(
        EventKind.COMPLETED, 2, trial="t", objective=1.5, trials=("a",), spent={"lock": 1.0}
    )
    assert Event.from_line(event.to_line().rstrip()) == event
    assert Event(EventKind.IDLE).to_line() == b'{"kind":"idle"}\n'


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"kind":"nix"}', b"\xff", b"7"])
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert Event.from_line(line) is None


def state_of(trials: int = 4) -> RunState:
    state = RunState(trials)
    state.process_started(1, 101, 2)
    state.process_started(2, 102, 2)
    for process in (1, 2):
        state.handle(process, Event(EventKind.READY))
    return state


def test_the_run_state_keeps_the_best() -> None:
    state = state_of()
    for value in (3.0, math.nan, 2.0, 5.0, None):
        state.handle(1, Event(EventKind.COMPLETED, 1, trial=str(value), objective=value, params={}))
    assert state.best == BestTrial(2.0, {})
    assert len(state.completed_by) == 5


@pytest.mark.parametrize(
    ("code", "ending", "failures"),
    [
        (0, "ended", 0),
        (3, "failed with code 3", 1),
        (-signal.SIGSEGV, "died of SIGSEGV", 1),
        (-50, "died of signal 50", 1),
    ],
)
def test_the_run_state_knows_how_a_process_ended(code: int, ending: str, failures: int) -> None:
    state = state_of()
    state.process_ended(2, code)
    assert state.processes[2].state == ending
    assert not state.processes[2].is_alive
    assert len(list(state.failures())) == len(state.notes) == failures


def test_the_run_state_adds_up_what_workers_spent() -> None:
    state = state_of()
    spent = {"storage": 1.0, "lock": 0.5, "evaluating": 2.0, "total": 4.0}
    for process, worker in ((1, 1), (1, 2), (2, 1), (2, 1)):
        state.handle(process, Event(EventKind.COMPLETED, worker, trial="t", spent=spent))
    assert (state.spent.storage, state.spent.total) == (3.0, 12.0)


# ----------------------------------------------------------------------- displays and reports


def console(width: int, height: int = 40, *, terminal: bool = True) -> Console:
    return Console(
        record=True,
        width=width,
        height=height,
        force_terminal=terminal,
        highlight=False,
        color_system=None,
        file=io.StringIO(),
    )


def busy_state() -> RunState:
    state = state_of(20)
    state.handle(1, Event(EventKind.EVALUATING, 1, trial="abcdefgh1", token="t"))
    state.handle(
        1, Event(EventKind.COMPLETED, 2, trial="t", objective=7, params={"x": 0.123456789})
    )
    state.handle(2, Event(EventKind.EVALUATING, 1, trial="12345678z", token="u"))
    assert state.evaluating(2) == {"12345678z": "u"}
    state.process_killed(2, ("12345678z",))
    state.handle(1, Event(EventKind.RECOVERED, trials=("12345678z",)))
    state.handle(1, Event(EventKind.COMPLETED, 1, trial="12345678z", objective=8))
    state.handle(1, Event(EventKind.EVALUATING, 1, trial="abcdefgh1", token="t"))
    state.handle(1, Event(EventKind.BROKEN, 2, trial="brokenxx", error="[bold]no markup[/]"))
    state.statuses.update(["completed", "completed", "broken", "reserved"])
    return state


def test_the_table_shows_each_worker_or_each_process_if_there_is_no_room() -> None:
    for height, wanted in (
        (40, r"1 +evaluating +abcdefgh +1 min 1 s"),
        (10, "1 evaluating, 1 between"),
    ):
        on = console(100, height)
        with display_on(on, PROBLEM, quiet=False) as display:
            assert isinstance(display, LiveDisplay)
            state = busy_state()
            state.processes[1].workers[1].since -= 61
            display.update(state)
        text = on.export_text()
        assert re.search(wanted, text)
        assert "killed" in text
        assert "best so far: 7  x=0.123457" in text
        assert "completed 2  interrupted 0  broken 1  recovered 1" in text
        assert "[bold]no markup[/]" in text


def test_lines_are_printed_once() -> None:
    on = console(30, terminal=False)
    display = display_on(on, PROBLEM, quiet=False)
    assert isinstance(display, LineDisplay)
    state = busy_state()
    for _ in range(3):
        display.finish(state)
    lines = on.export_text().splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith("best 7")
    assert "2/20 completed, 1 reserved, 1 broken" in lines[-1]


def test_quiet_is_quiet() -> None:
    on = console(80)
    with display_on(on, PROBLEM, quiet=True) as display:
        assert isinstance(display, QuietDisplay)
        display.update(busy_state())
        display.finish(busy_state())
    assert on.export_text() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_summary_tells_what_became_of_killed_trials(terminal: bool) -> None:
    on = console(200, terminal=terminal)
    DemoReport(
        problem=PROBLEM,
        state=busy_state(),
        best=BestTrial(7, {"x": 1}),
        references={"a preset": 10, "another": 5},
        name="demo v1",
        location="/data/x.db",
        status_command="aiostorage status x",
        kill=True,
    ).print(on)
    text = on.export_text()
    for wanted in (
        "2 trials completed in ",
        "7  x=1",
        "10 by a preset: the best is 30.00% smaller",
        "5 by another: the best is 40.00% larger",
        "process 2 (pid 102) by SIGKILL in the middle of 1 trial",
        "12345678 recovered by process 1 after 0.0 s, completed by process 1, worker 1",
        "trial brokenxx: [bold]no markup[/]",
        "/data/x.db, experiment demo v1; look at it with",
    ):
        assert wanted in text


def test_a_summary_does_not_hide_what_has_not_happened() -> None:
    state = state_of()
    on = console(200)
    DemoReport(PROBLEM, state, None, {}, "demo v1", None, "", kill=True).print(on)
    text = on.export_text()
    assert "none: no trial was completed with a number" in text
    assert "no worker has reported its times" in text
    assert "none: the run ended before" in text
    state.process_killed(2, ("gone", "late"))
    state.handle(1, Event(EventKind.RECOVERED, trials=("late", "other")))
    state.handle(1, Event(EventKind.LOST, 1))
    for index in range(7):
        state.handle(1, Event(EventKind.BROKEN, 1, trial=f"{index}", error="why"))
    DemoReport(PROBLEM, state, None, {}, "demo v1", None, "").print(on)
    text = on.export_text()
    assert "gone was not recovered" in text
    assert "not completed" in text
    assert "1 lost trial: other" in text
    assert "and 2 more" in text
    assert "1 reservation given to another worker" in text


# --------------------------------------------------------------------------------------- text


def test_numbers_and_words() -> None:
    assert [number(None), number(1234567), number(0.123456789)] == ["-", "1,234,567", "0.123457"]
    assert pairs({"a": 1, "b": 0.30000000000000004, "c": "x"}) == "a=1 b=0.3 c=x"
    assert [plural(1, "process"), plural(2, "process"), plural(2, "trial")] == [
        "1 process",
        "2 processes",
        "2 trials",
    ]
    assert [span(3.14), span(61)] == ["3.1 s", "1 min 1 s"]


def test_an_objective_is_read_from_a_stored_trial() -> None:
    assert objective_of({}) is None
    assert objective_of({"results": [{"type": "statistic", "value": 1}]}) is None
    assert objective_of(Trial(params={"x": 1}, results=2).to_dict()) == 2
    assert objective_of(Trial(params={"x": 1}, results=math.nan).to_dict()) is None
