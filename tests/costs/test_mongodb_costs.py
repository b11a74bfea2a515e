"""What a call costs on MongoDB: its commands, in order, and no scan or sort in their plans.

Counts, unlike times, are the same on every machine. A command less is good news: change the table.
One more needs a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

pytest.importorskip("pymongo")

from pymongo import AsyncMongoClient, monitoring

from aiostorage import Storage
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.testing import Deployment
from tests.costs.public_calls import CALLS, GROUPS, Call, prepared, warmed_up
from tests.mongo.conftest import UNCLOSED
from tests.mongo.heard_commands import CommandHearer, hear

pytestmark = [UNCLOSED, pytest.mark.anyio]

CONNECTING = ("hello", "ping", "endSessions", "isMaster", "killCursors")
"""Commands that belong to the client, not to a call."""

CALLS_ON = {
    "standalone": {
        "create_experiment": "aggregate, 8 find, 2 insert",
        "update_experiment": "2 find, update, insert",
        "fetch_experiments": "find",
        "summary": "11 aggregate, 8 find",
        "register_trial": "2 insert, aggregate, findAndModify",
        "register_trials of 64": "find, 2 insert, aggregate, findAndModify",
        "reserve_trial": "2 findAndModify, find, aggregate, insert",
        "reserve_trial, none pending": "findAndModify, aggregate",
        "reserve_trials of 64": "66 find, 65 findAndModify, aggregate, insert",
        "update_heartbeat": "update",
        "push_trial_results": "2 findAndModify, aggregate, insert",
        "complete_trial": "2 findAndModify, aggregate, insert",
        "set_trial_status": "2 find, 2 findAndModify, 2 insert, aggregate",
        "get_trial": "find",
        "fetch_trials": "find",
        "fetch_trials, no such experiment": "2 find, aggregate",
        "fetch_trials_by_status": "find",
        "fetch_lost_trials": "find",
        "iter_trials": "aggregate, find",
        "count_trials": "aggregate",
        "count_completed_trials": "aggregate",
        "trial_history": "find",
        "changes_since": "2 find, getMore",
        "the algorithm lock": "find, findAndModify, update",
        "the algorithm lock, a new state": "find, 2 findAndModify",
        "get_algorithm_lock_info": "find",
    },
    "replica_set": {
        "create_experiment": "aggregate, 2 insert, commitTransaction",
        "update_experiment": "2 update, commitTransaction",
        "fetch_experiments": "find",
        "summary": "11 aggregate, 8 find, commitTransaction",
        "register_trial": "2 insert, aggregate, commitTransaction",
        "register_trials of 64": "2 insert, aggregate, commitTransaction",
        "reserve_trial": "findAndModify, update, commitTransaction",
        "reserve_trial, none pending": "findAndModify, commitTransaction, aggregate",
        "reserve_trials of 64": "2 aggregate, update, insert, commitTransaction",
        "update_heartbeat": "update",
        "push_trial_results": "findAndModify, update, commitTransaction",
        "complete_trial": "findAndModify, update, commitTransaction",
        "set_trial_status": "2 aggregate, 2 update, insert, commitTransaction",
        "get_trial": "find",
        "fetch_trials": "find",
        "fetch_trials, no such experiment": "2 find, aggregate",
        "fetch_trials_by_status": "find",
        "fetch_lost_trials": "find",
        "iter_trials": "aggregate, find",
        "count_trials": "aggregate",
        "count_completed_trials": "aggregate",
        "trial_history": "find",
        "changes_since": "listCollections, 2 find, aggregate, 4 getMore",
        "the algorithm lock": "find, findAndModify, update",
        "the algorithm lock, a new state": "find, 2 findAndModify",
        "get_algorithm_lock_info": "find",
    },
}

GROUPS_ON = {
    "standalone": {
        "register_trial": "128 insert, 64 aggregate, 64 findAndModify",
        "reserve_trial": "2 aggregate, update, find, findAndModify, insert",
        "update_heartbeat": "update",
        "complete_trial": "2 aggregate, update, findAndModify, insert",
        "set_trial_status": "2 aggregate, update, findAndModify, insert",
    },
    "replica_set": {
        "register_trial": "128 insert, 64 aggregate, 64 commitTransaction",
        "reserve_trial": "2 aggregate, update, insert, commitTransaction",
        "update_heartbeat": "update",
        "complete_trial": "2 aggregate, update, insert, commitTransaction",
        "set_trial_status": "2 aggregate, update, insert, commitTransaction",
    },
}
"""Of 64 tasks at the same time."""

CHOSEN = {"changes_since"}
"""Calls whose plan the server chooses by how much there is."""

BY_NUMBER = {"iter_trials"}
"""Calls that sort by the numbers of documents, of which there is no index."""


class Commands(CommandHearer):
    """Keeps the commands that the clients send."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in CONNECTING:
            self.sent.append(deepcopy(dict(event.command)))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    listener = Commands()
    hear(listener, monkeypatch)
    return listener


Sent = dict[str, list[dict[str, Any]]]


async def sent_by(url: str, commands: Commands, calls: Mapping[str, Call]) -> Sent:
    """Make each call; return the commands that it has sent."""
    sent: Sent = {}
    async with Storage(MongoDBDriver(url)) as storage:
        await warmed_up(storage)
        for name, call in calls.items():
            case = await prepared(storage, name)
            commands.sent.clear()
            await call(case)
            sent[name] = list(commands.sent)
    return sent


def shown(sent: list[dict[str, Any]]) -> str:
    """Return how many commands of which name, in the order of the first of each."""
    counts = Counter(next(iter(one)) for one in sent)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())


@pytest.fixture(params=["standalone", "replica_set"])
def deployment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, deployment: str) -> str:
    server: Deployment = request.getfixturevalue(f"mongodb_{deployment}")
    return server.url_for(request.getfixturevalue("mongodb_emptied_database"))


async def test_a_call(deployment: str, url: str, commands: Commands) -> None:
    sent = await sent_by(url, commands, CALLS)
    assert {name: shown(one) for name, one in sent.items()} == CALLS_ON[deployment]
    stages = await stages_of(url, sent)
    assert {name for name, found in stages.items() if "COLLSCAN" in found} == set()
    assert {name for name, found in stages.items() if "SORT" in found} <= CHOSEN | BY_NUMBER


async def test_many_at_the_same_time(deployment: str, url: str, commands: Commands) -> None:
    sent = await sent_by(url, commands, GROUPS)
    assert {name: shown(one) for name, one in sent.items()} == GROUPS_ON[deployment]
    stages = await stages_of(url, sent)
    assert {name for name, found in stages.items() if {"COLLSCAN", "SORT"} & found} == set()


async def stages_of(url: str, sent: Sent) -> dict[str, set[str]]:
    """Return the stages of the server's plans, by the name of the call."""
    found: dict[str, set[str]] = {}
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
    async with client:
        for call, issued in sent.items():
            for command in issued:
                for one in explained(command):
                    plan = await client[command["$db"]].command(
                        "explain", one, verbosity="executionStats"
                    )
                    found.setdefault(call, set()).update(stages_in(plan))
    return found


KEPT = {
    "find": ("filter", "projection", "sort", "limit", "showRecordId"),
    "findAndModify": ("query", "sort", "update", "upsert", "fields", "new"),
    "aggregate": ("pipeline", "cursor"),
    "count": ("query", "limit"),
}
"""The parts of a command that its plan depends on."""


def explained(command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield commands that can be explained; a command of many changes is one for each."""
    name, collection = next(iter(command.items()))
    if name in ("update", "delete"):
        for change in command[f"{name}s"]:
            yield {name: collection, f"{name}s": [change]}
    elif name in KEPT and "$changeStream" not in str(command):
        kept = {part: command[part] for part in KEPT[name] if part in command}
        yield {name: collection, **kept}


NO_PLANS = ("command", "rejectedPlans", "$lookup")
"""Parts that have plans which are not carried out, or the text of a command."""


def stages_in(plan: Any) -> set[str]:
    """Return the stages of the plan that won."""
    if isinstance(plan, list):
        return set().union(*map(stages_in, plan))
    if not isinstance(plan, dict):
        return set()
    found = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
    if "$sort" in plan:
        found.add("SORT")
    if plan.get("collectionScans"):  # of a look-up
        found.add("COLLSCAN")
    rest = (value for key, value in plan.items() if key not in NO_PLANS)
    return found.union(*map(stages_in, rest))
