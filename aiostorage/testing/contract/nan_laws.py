"""The contract on objectives that are NaN."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from aiostorage.errors import InvalidResult
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import Open, case, reserved, stored
from aiostorage.trial import Result, Trial

__all__ = ["NanLaws"]

NAN: Final[list[Any]] = [
    math.nan,
    {"loss": math.nan, "epochs": 3},
    [Result("o", "objective", -math.nan), Result("o", "objective", 1.0)],
]

NUMBERS: Final[list[Any]] = [
    math.inf,
    -math.inf,
    {"objective": 0.0, "other": math.nan},
    [Result("s", "statistic", math.nan), Result("o", "objective", 1)],
]

Complete = Callable[[AsyncStorageProtocol, Trial, Any], Awaitable[object]]


async def _complete(storage: AsyncStorageProtocol, trial: Trial, results: Any) -> None:
    await storage.complete_trial(trial, results)


async def _push(storage: AsyncStorageProtocol, trial: Trial, results: Any) -> None:
    trial.results = Trial(results=results).results
    trial.status = "completed"
    await storage.push_trial_results(trial)


class NanLaws:
    """The option ``nan``: what becomes of a trial whose objective is NaN."""

    @pytest.mark.parametrize("complete", [_complete, _push])
    async def test_completed_by_default(
        self,
        storage: AsyncStorageProtocol,
        complete: Complete,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")
        for number, results in enumerate((*NAN, *NUMBERS)):
            with case(results):
                trial = await reserved(storage, f"e{number}")
                await complete(storage, trial, results)
                found = await stored(storage, trial)
                assert (found.status, trial.status) == ("completed", "completed")
                assert found.objective is not None
                assert math.isnan(found.objective.value) is (number < len(NAN))
                warned = [r for r in caplog.messages if "NaN" in r and trial.id in r]
                assert len(warned) == (number < len(NAN))
                assert all('nan="broken"' in message for message in warned)
                caplog.clear()

    async def test_each_experiment_is_warned_of_once(
        self, opening: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        silent, loud = await opening(nan="completed"), await opening()
        for storage, expected in ((silent, 0), (loud, 1)):
            experiment = None
            for x in range(3):
                experiment = experiment or await storage.create_experiment({"name": f"n{expected}"})
                await storage.register_trial(Trial(experiment=experiment.id, params={"x": x}))
                async with storage.reserved_trial(experiment) as trial:
                    assert trial is not None
                    await storage.complete_trial(trial, math.nan)
            assert sum("is NaN" in message for message in caplog.messages) == expected

    @pytest.mark.parametrize("complete", [_complete, _push])
    async def test_broken(self, opening: Open, complete: Complete) -> None:
        storage = await opening(nan="broken")
        for number, results in enumerate((*NAN, *NUMBERS)):
            with case(results):
                trial = await reserved(storage, f"e{number}")
                await complete(storage, trial, results)
                found = await stored(storage, trial)
                wanted = "broken" if number < len(NAN) else "completed"
                assert (found.status, trial.status) == (wanted, wanted)
                assert len(found.results) == len(trial.results) > 0
                assert complete is _push or (found.end_time and trial.end_time)

    async def test_raise(self, opening: Open) -> None:
        storage = await opening(nan="raise")
        for number, results in enumerate((*NAN, *NUMBERS)):
            with case(results):
                trial = await reserved(storage, f"e{number}")
                before = (await stored(storage, trial)).to_dict()
                if number >= len(NAN):
                    await storage.complete_trial(trial, results)
                    continue
                with pytest.raises(InvalidResult, match="is NaN"):
                    await storage.complete_trial(trial, results)
                assert (trial.status, trial.results) == ("reserved", [])
                with pytest.raises(InvalidResult, match="is NaN"):
                    await _push(storage, trial, results)
                assert (await stored(storage, trial)).to_dict() == before

    async def test_a_nan_of_numpy(self, opening: Open) -> None:
        np = pytest.importorskip("numpy")
        storage = await opening(nan="broken")
        for number, value in enumerate((np.float32("nan"), np.float64("nan"), np.array(math.nan))):
            with case(value):
                trial = await reserved(storage, f"e{number}")
                await storage.complete_trial(trial, value)
                assert (await stored(storage, trial)).status == "broken"
                trial = await reserved(storage, f"f{number}")
                trial.results.append(Result("o", "objective", 1.0))
                trial.results[0].value = value
                trial.status = "completed"
                await storage.push_trial_results(trial)
                assert (await stored(storage, trial)).status == trial.status == "broken"

    async def test_raise_inside_a_worker(self, opening: Open) -> None:
        storage = await opening(nan="raise")
        experiment = await storage.create_experiment({"name": "e"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        with pytest.raises(InvalidResult):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.complete_trial(trial, math.nan)
        assert await storage.count_broken_trials(experiment) == 1
