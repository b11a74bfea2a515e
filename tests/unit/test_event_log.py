"""What is logged: names of loggers, one line an event, and its fields beside the text."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

from aiostorage import RetryPolicy, Storage, Trial
from aiostorage._core.event_log import EventLog
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.testing import FaultyDriver

PACKAGE = Path(__file__).parents[2] / "aiostorage"
PAGE = PACKAGE.parent / "docs" / "how-to" / "observe.md"


def test_an_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiostorage")
    events = EventLog("subject")
    error = ValueError("one\ntwo")
    events.warning("went_wrong", "%(trial)s went wrong: %(error)s", trial="t1", error=error, name=2)
    events.debug("detail", "100 %")
    try:
        raise error
    except ValueError:
        events.exception("failed", "it failed")
    warning, detail, failed = caplog.records
    assert warning.name == "aiostorage.subject"
    assert warning.getMessage() == "t1 went wrong: one two"
    own = {k: v for k, v in vars(warning).items() if k.startswith("aiostorage_")}
    assert own == {
        "aiostorage_event": "went_wrong",
        "aiostorage_trial": "t1",
        "aiostorage_error": "one two",
        "aiostorage_error_type": "ValueError",
        "aiostorage_name": 2,
    }
    assert Path(warning.pathname) == Path(__file__)
    assert detail.getMessage() == "100 %"
    assert failed.exc_info is not None
    assert failed.levelno == logging.ERROR


def test_what_is_off_costs_no_text() -> None:
    class Untold:
        def __str__(self) -> str:
            raise AssertionError("the text was not needed")

    EventLog("subject").debug("detail", "%(value)s", value=Untold())


@pytest.mark.anyio
async def test_the_events_of_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    faulty = FaultyDriver(MemoryDriver())
    async with Storage(faulty, retry=RetryPolicy(attempts=1)) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            faulty.fail_next("before", count=9)
    [record] = [one for one in caplog.records if one.name == "aiostorage.worker"]
    fields = vars(record)
    assert fields["aiostorage_event"] == "trial_not_handed_back"
    assert fields["aiostorage_trial"] == trial.id
    assert fields["aiostorage_experiment"] == str(experiment.id)


def test_the_documentation_names_each_logger_and_event() -> None:
    page = PAGE.read_text()
    subjects: set[object] = set()
    named: set[object] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function, first = node.func, node.args[0].value
                if isinstance(function, ast.Name) and function.id == "EventLog":
                    subjects.add(first)
                elif (
                    isinstance(function, ast.Attribute)
                    and isinstance(function.value, ast.Name)
                    and function.value.id == "events"
                    and function.attr != "debug"
                ):
                    named.add(first)
    assert not {name for name in subjects if f"`aiostorage.{name}`" not in page}
    assert not {name for name in named if f"`{name}`" not in page}
