"""The contract on what callers ask of trials: by params, counted, in an order, a page at a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from aiostorage.errors import UnsupportedQuery
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import case, make_config, make_trial
from aiostorage.trial import Trial

__all__ = ["RefusedTrialQueryLaws", "TrialQueryLaws"]

PARAMS: Final[list[dict[str, Any]]] = [
    {"x": 0, "lr": 0.001, "momentum": 9.0},
    {"x": 1, "lr": 6.0, "momentum": 0.5},
    {"x": 2, "lr": 0.1, "opt": {"name": "adam", "lr": 7}},
    {"x": 3, "momentum": 6.0},
    {"x": 4, "lr": "auto", "sizes": [1, 8]},
    {"x": 5, "lr": None},
]

BY_PARAMS: Final[list[tuple[dict[str, Any], list[int]]]] = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"lr": 0.1}, [2]),
    ({"lr": {"$gt": 5}}, [1]),
    ({"lr": {"$gt": 1e-3, "$lt": 5}}, [2]),
    ({"lr": {"$ne": 6}}, [0, 2, 4, 5]),
    ({"lr": {"$in": ["auto", 6]}}, [1, 4]),
    ({"lr": None}, [5]),
    ({"lr": {"$exists": True}}, [0, 1, 2, 4, 5]),
    ({"lr": {"$exists": False}}, [3]),
    ({"lr": {"$exists": True, "$ne": None}}, [0, 1, 2, 4]),
    ({"lr": {"$gt": 0}, "momentum": {"$lt": 5}}, [1]),
    ({"opt.name": "adam"}, [2]),
    ({"opt": {"name": "adam", "lr": {"$gte": 7}}}, [2]),
    ({"opt": {"name": "sgd"}}, []),
    ({"sizes": [1, 8]}, [4]),
    ({"sizes": {"$elemMatch": {"$gt": 1, "$lt": 9}}}, [4]),
    ({"sizes": {"$elemMatch": {"$gt": 1, "$lt": 8}}}, []),
    ({"missing": {"$ne": 1}}, []),
]

BY_WHERE: Final[list[tuple[dict[str, Any], list[int]]]] = [
    # the conditions of different paths may be met by different params
    ({"params.name": "lr", "params.value": {"$gt": 5}}, [0, 1, 2, 4]),
    ({"params": {"$elemMatch": {"name": "lr", "value": {"$gt": 5}}}}, [1]),
    (
        {"params": {"$elemMatch": {"$or": [{"name": "lr"}, {"name": "momentum"}], "value": 6}}},
        [1, 3],
    ),
    ({"params.value": {"$elemMatch": {"$gte": 8}}}, [4]),
    ({"status": {"$ne": "broken"}, "params.0.value": {"$lte": 1}}, [0, 1]),
]


def _xs(trials: list[Trial] | None) -> list[Any]:
    assert trials is not None
    return [trial.params["x"] for trial in trials]


async def _registered(storage: AsyncStorageProtocol) -> Experiment:
    experiment = await storage.create_experiment(make_config())
    await storage.register_trials([Trial(experiment=experiment.id, params=p) for p in PARAMS])
    return experiment


class TrialQueryLaws:
    """Trials by their params, and in an order."""

    async def test_params_by_name(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _registered(storage)
        for params, expected in BY_PARAMS:
            with case(params):
                assert _xs(await storage.fetch_trials(experiment, params=params)) == expected
                assert await storage.count_trials(experiment, params=params) == len(expected)
        for where, expected in BY_WHERE:
            with case(where):
                assert _xs(await storage.fetch_trials(experiment, where=where)) == expected
                assert await storage.count_trials(experiment, where=where) == len(expected)
        both: dict[str, Any] = {"where": BY_WHERE[0][0], "params": {"momentum": {"$exists": True}}}
        found = [t async for t in storage.iter_trials(experiment, batch_size=1, **both)]
        assert _xs(found) == [0, 1]
        assert await storage.count_trials(uid=experiment.id, **both) == 2

    async def test_count_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _registered(storage)
        (first, *_) = await storage.fetch_trials(experiment) or []
        await storage.update_trial(first, status="broken")
        assert await storage.count_trials(experiment) == 6
        assert await storage.count_trials(experiment, where={"status": "new"}) == 5
        assert await storage.count_trials(experiment, experiment.id, {"status": "broken"}) == 1
        assert await storage.count_trials(uid="nobody") == 0

    async def test_orders(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        values = [2.5, None, -1, math.nan, math.inf, -1.0, 7]
        ends = [3, 1, None, 2, 1, None, 5]
        for x, (value, end) in enumerate(zip(values, ends, strict=True)):
            statistic = {"name": "s", "type": "statistic", "value": -100}
            objective = {"name": "loss", "type": "objective", "value": value}
            await storage.register_trial(
                make_trial(
                    experiment,
                    x,
                    submit_time=noon - timedelta(hours=x),
                    end_time=None if end is None else noon + timedelta(hours=end),
                    results=[statistic] if value is None else [statistic, objective],
                )
            )
        for order, expected in (
            (None, [6, 5, 4, 3, 2, 1, 0]),
            ("submit_time", [6, 5, 4, 3, 2, 1, 0]),
            ("-submit_time", [0, 1, 2, 3, 4, 5, 6]),
            ("start_time", [0, 1, 2, 3, 4, 5, 6]),
            ("end_time", [1, 4, 3, 0, 6, 2, 5]),
            ("-end_time", [6, 0, 3, 1, 4, 2, 5]),
            ("objective", [2, 5, 0, 6, 4, 1, 3]),
            ("-objective", [4, 6, 0, 2, 5, 1, 3]),
        ):
            with case(order):
                assert _xs(await storage.fetch_trials(experiment, order=order)) == expected
                for limit in (0, 1, 3, 7, 9):
                    some = await storage.fetch_trials(experiment, order=order, limit=limit)
                    assert _xs(some) == expected[:limit]
                for by_id in (True, False):
                    pages: list[list[Any]] = []
                    last: Trial | None = None
                    while page := await storage.fetch_trials(
                        experiment,
                        order=order,
                        limit=2,
                        after=last.id if by_id and last else last,
                    ):
                        pages.append(_xs(page))
                        last = page[-1]
                    assert pages == [expected[n : n + 2] for n in (0, 2, 4, 6)]
                rest = await storage.fetch_trials(
                    experiment, order=order, after=last, params={"x": {"$gte": 0}}
                )
                assert rest == []

    async def test_pages_while_others_write(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        await storage.register_trials(
            [make_trial(experiment, x, submit_time=noon, start_time=noon) for x in range(12)]
        )
        for order in ("submit_time", "-start_time"):
            seen: list[Any] = []
            last: Trial | None = None
            while page := await storage.fetch_trials(experiment, order=order, limit=3, after=last):
                seen += _xs(page)
                last = page[-1]
                # neither what comes before nor a trial that moves away shifts the pages
                earlier = noon - timedelta(hours=1 if order == "submit_time" else -1)
                new = make_trial(experiment, 100 + len(seen), submit_time=earlier, status="broken")
                new.start_time = earlier
                await storage.register_trial(new)
                await storage.update_trial(last, start_time=noon + timedelta(hours=9))
            assert seen == list(range(12))
            await storage.update_trials(experiment, start_time=noon)
            await storage.delete_trials(experiment, where={"status": "broken"})

    async def test_after_a_trial_that_is_not_there(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _registered(storage)
        (first, *_) = await storage.fetch_trials(experiment, limit=1) or []
        assert await storage.fetch_trials(uid="nobody", after="0" * 32) is None
        other = await storage.create_experiment(make_config("other"))
        await storage.register_trial(Trial(experiment=other.id, params=PARAMS[0]))
        with pytest.raises(ValueError, match="after which to continue"):
            await storage.fetch_trials(other, after=first)
        await storage.delete_trials(experiment, where={"id": first.id})
        for after in (first, first.id):
            with pytest.raises(ValueError, match=f"no trial '{first.id}' after which to continue"):
                await storage.fetch_trials(experiment, after=after)


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"status": "complete"}, r"no status 'complete'.*did you mean 'completed'\?"),
    ({"status": {"$in": ["new", "done"]}}, "no status 'done'"),
    ({"status": {"$ne": None}}, "no status None: it is one of new, reserved"),
    ({"status": {"$gt": 1}}, "no status 1"),
    ({"status.name": "new"}, "status has no parts"),
    ({"status": {"$elemMatch": {"$eq": "new"}}}, "status is not a list"),
    ({"$or": [{"status": "new"}, {"status": "braken"}]}, "did you mean 'broken'"),
    ({"params.lr": 1}, r"write (params={'lr': …}, or )?where={'params': {'\$elemMatch'"),
    ({"params.opt.lr": {"$gt": 1}}, "'opt.lr': …|'name': 'opt.lr'"),
    ({"params.0.lr": {"$exists": True}}, "nothing is at 'params.0.lr'"),
    ({"params.0.name.x": 1}, "the name of params has no parts"),
    ({"params": {"lr": 1}}, "never has {'lr': 1}; write .*'lr'"),
    ({"params": {"$in": [[0.1]]}}, "params is a list of dicts"),
    ({"params": {"$elemMatch": {"lr": 1}}}, "nothing is at 'params.lr'"),
    ({"params": {"$elemMatch": {"$gt": 1}}}, "params is a list of dicts"),
    ({"params.type": "float"}, "params have no type 'float'"),
    ({"results.loss": {"$lt": 1}}, r"where={'results': {'\$elemMatch': {'name': 'loss'"),
    ({"results": {"$elemMatch": {"type": "objektive"}}}, "did you mean 'objective'"),
    ({"objective": {"$lt": 1}}, "'type': 'objective'"),
    ({"end_time": {"$gt": "2026-01-01"}}, "end_time is a time: write a datetime"),
    ({"start_time": 0}, "start_time is a time"),
]

BAD_PARAMS: Final[list[tuple[Any, str]]] = [
    (["lr"], "params is a mapping of names"),
    ({"$or": [{"lr": 1}]}, r"text that does not start with '\$'"),
    ({1: 2}, "text that does not start"),
    ({"lr": {"$near": 1}}, r"params 'lr': .*\$near"),
    ({"lr": {"$gt": 1, "x": 2}}, "plain key"),
    ({"lr": 1, "opt": {"lr": {"$in": {1}}}}, "params 'opt.lr': .*takes a list"),
    ({"lr": {"$exists": "no"}}, "takes a bool"),
]


class RefusedTrialQueryLaws:
    """Questions about trials that have no answer say what to write."""

    async def test_what_no_trial_can_be_is_refused(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await storage.register_trials([make_trial(experiment, 1)])
        for where, message in REFUSED:
            with case(where):
                for call in (
                    lambda: storage.fetch_trials(experiment, where=where),  # noqa: B023
                    lambda: storage.count_trials(experiment, where=where),  # noqa: B023
                    lambda: storage.update_trials(experiment, where=where, x=1),  # noqa: B023
                    lambda: storage.update_trial(trial, where=where, x=1),  # noqa: B023
                    lambda: storage.delete_trials(experiment, where=where),  # noqa: B023
                ):
                    with pytest.raises(UnsupportedQuery, match=message):
                        await call()
                with pytest.raises(UnsupportedQuery, match=message):
                    _ = [t async for t in storage.iter_trials(experiment, where=where)]
        assert await storage.count_trials(experiment) == 1

    async def test_params_that_are_no_params(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for params, message in BAD_PARAMS:
            with case(params):
                with pytest.raises(UnsupportedQuery, match=message):
                    await storage.fetch_trials(experiment, params=params)
                with pytest.raises(UnsupportedQuery, match=message):
                    await storage.count_trials(experiment, params=params)

    async def test_odd_orders_and_limits(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        bad: list[dict[str, Any]] = [
            *({"order": order} for order in ("", "-", "loss", "--end_time", 1, ["end_time"])),
            *({"limit": limit} for limit in (-1, 1.5, "1", True)),
        ]
        for arguments in bad:
            with case(arguments), pytest.raises(ValueError, match=next(iter(arguments))):
                await storage.fetch_trials(experiment, **arguments)
        assert await storage.fetch_trials(experiment, limit=2**70) == []
