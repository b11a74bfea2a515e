"""Optuna's samplers, pruners, importances and pictures do on our storage what they do in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import optuna
import pytest
from optuna import importance, pruners, samplers, visualization
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from aiostorage.optuna import OptunaStorage

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

T = TypeVar("T")

SAMPLERS: dict[str, tuple[Callable[[], samplers.BaseSampler], str | None]] = {
    "random": (lambda: samplers.RandomSampler(seed=1), None),
    "tpe": (lambda: samplers.TPESampler(seed=1, n_startup_trials=4, constant_liar=True), None),
    "multivariate": (
        lambda: samplers.TPESampler(seed=1, n_startup_trials=4, multivariate=True, group=True),
        None,
    ),
    "cma-es": (lambda: samplers.CmaEsSampler(seed=1, n_startup_trials=2), "cmaes"),
    "cma-es with warm start": (
        lambda: samplers.CmaEsSampler(seed=1, source_trials=[*_source()]),
        "cmaes",
    ),
    "gp": (lambda: samplers.GPSampler(seed=1, n_startup_trials=4), "torch"),
    "grid": (lambda: samplers.GridSampler({"x": [-1, 0, 1], "n": [1, 2]}, seed=1), None),
    "brute force": (lambda: samplers.BruteForceSampler(seed=1), None),
    "quasi-Monte Carlo": (lambda: samplers.QMCSampler(seed=1), "scipy"),
    "partly fixed": (
        lambda: samplers.PartialFixedSampler({"n": 2}, samplers.TPESampler(seed=1)),
        None,
    ),
}
"""Samplers of one objective, and what they need."""

FRONT_SAMPLERS: dict[str, tuple[Callable[[], samplers.BaseSampler], str | None]] = {
    "nsga-ii": (lambda: samplers.NSGAIISampler(seed=1, population_size=4), None),
    "nsga-iii": (lambda: samplers.NSGAIIISampler(seed=1, population_size=4), None),
    "tpe": (lambda: samplers.TPESampler(seed=1, n_startup_trials=4), None),
    "gp": (lambda: samplers.GPSampler(seed=1, n_startup_trials=4), "torch"),
}
"""Samplers of two objectives and a constraint."""

PRUNERS: dict[str, tuple[Callable[[], pruners.BasePruner], str | None]] = {
    "median": (lambda: pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0), None),
    "percentile": (lambda: pruners.PercentilePruner(30.0, n_startup_trials=2), None),
    "hyperband": (lambda: pruners.HyperbandPruner(max_resource=6, reduction_factor=2), None),
    "successive halving": (lambda: pruners.SuccessiveHalvingPruner(reduction_factor=2), None),
    "patient": (lambda: pruners.PatientPruner(pruners.MedianPruner(2), patience=1), None),
    "threshold": (lambda: pruners.ThresholdPruner(upper=12.0), None),
    "wilcoxon": (lambda: pruners.WilcoxonPruner(p_threshold=0.4, n_startup_steps=2), "scipy"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def storage(on_file: OptunaStorage) -> OptunaStorage:
    return on_file


def one_objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5, step=1.0)
    return x * x + trial.suggest_int("n", 1, 8)


def two_objectives(trial: optuna.Trial) -> tuple[float, float]:
    x, y = trial.suggest_float("x", 0, 5), trial.suggest_float("y", 0, 3)
    trial.set_constraint("0", x + y - 6)
    return 4 * x * x + 4 * y * y, (x - 5) ** 2 + (y - 5) ** 2


def pruned_objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    for step in range(1, 7):
        trial.report(abs(x) * 3 + (step * trial.number) % 5, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x * x


def _source() -> Iterator[FrozenTrial]:
    study = optuna.create_study(sampler=samplers.RandomSampler(seed=2))
    study.optimize(one_objective, n_trials=20)
    yield from study.trials


def found(
    storage: BaseStorage, objective: Callable[[optuna.Trial], Any], trials: int, **options: Any
) -> optuna.Study:
    """Run a study in a storage."""
    study = optuna.create_study(storage=storage, study_name="tune", **options)
    study.optimize(objective, n_trials=trials)
    return study


def seen(study: optuna.Study) -> list[Any]:
    """Return what the trials of a study are, but for their ids and times."""
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in study.trials
    ]


def maker(make: Callable[[], T], needed: str | None) -> Callable[[], T]:
    """Return what makes an algorithm; skip the test without the library that it needs."""
    if needed is not None:
        pytest.importorskip(needed)
    return make


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_suggest_what_they_suggest_in_memory(
    storage: OptunaStorage, other: OptunaStorage, name: str
) -> None:
    make = maker(*SAMPLERS[name])
    expected = found(InMemoryStorage(), one_objective, 14, sampler=make())
    study = found(storage, one_objective, 14, sampler=make())
    assert seen(study) == seen(expected)
    assert study.best_trial.number == expected.best_trial.number
    again = optuna.load_study(study_name="tune", storage=other)
    assert again.trials == study.trials
    assert again.best_trial == study.best_trial


@pytest.mark.parametrize("name", FRONT_SAMPLERS)
def test_samplers_of_two_objectives_suggest_what_they_suggest_in_memory(
    storage: OptunaStorage, other: OptunaStorage, name: str
) -> None:
    make = maker(*FRONT_SAMPLERS[name])
    directions = ["minimize", "minimize"]
    expected = found(InMemoryStorage(), two_objectives, 14, sampler=make(), directions=directions)
    study = found(storage, two_objectives, 14, sampler=make(), directions=directions)
    assert seen(study) == seen(expected)
    assert all(
        trial.constraints == t.constraints
        for trial, t in zip(study.trials, expected.trials, strict=True)
    )
    numbers = [trial.number for trial in expected.best_trials]
    again = optuna.load_study(study_name="tune", storage=other)
    assert [trial.number for trial in again.best_trials] == numbers
    assert again.trials == study.trials


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_prune_what_they_prune_in_memory(
    storage: OptunaStorage, other: OptunaStorage, name: str
) -> None:
    make = maker(*PRUNERS[name])

    def run(storage: BaseStorage) -> optuna.Study:
        sampler = samplers.RandomSampler(seed=3)
        return found(storage, pruned_objective, 16, sampler=sampler, pruner=make())

    expected = run(InMemoryStorage())
    assert {trial.state for trial in expected.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    study = run(storage)
    # Hyperband draws the bracket of a trial by the name of the study, which is the same
    assert seen(study) == seen(expected)
    assert optuna.load_study(study_name="tune", storage=other).trials == study.trials


@pytest.fixture
def pair(storage: OptunaStorage) -> tuple[optuna.Study, optuna.Study]:
    """Give a study on our storage, and its copy in memory."""

    def objective(trial: optuna.Trial) -> float:
        value = pruned_objective(trial)
        kind = trial.suggest_categorical("kind", ["a", None, True])
        return value + trial.suggest_int("n", 1, 8, log=True) + (kind == "a")

    sampler, pruner = samplers.TPESampler(seed=1), pruners.MedianPruner(8)
    study = found(storage, objective, 30, sampler=sampler, pruner=pruner)
    target = InMemoryStorage()
    optuna.copy_study(from_study_name="tune", from_storage=storage, to_storage=target)
    return study, optuna.load_study(study_name="tune", storage=target)


@pytest.mark.parametrize("name", ["ped-anova", "fanova", "mean decrease impurity"])
def test_importances_are_those_in_memory(
    pair: tuple[optuna.Study, optuna.Study], name: str
) -> None:
    make: Callable[[], importance.BaseImportanceEvaluator]
    if name == "ped-anova":
        make = importance.PedAnovaImportanceEvaluator
    else:
        pytest.importorskip("sklearn")
        if name == "fanova":
            make = lambda: importance.FanovaImportanceEvaluator(seed=1)  # noqa: E731
        else:
            make = lambda: importance.MeanDecreaseImpurityImportanceEvaluator(seed=1)  # noqa: E731
    ours, theirs = (importance.get_param_importances(study, evaluator=make()) for study in pair)
    assert set(ours) == {"x", "n", "kind"}
    assert ours == theirs


PICTURES = [
    visualization.plot_contour,
    visualization.plot_edf,
    visualization.plot_intermediate_values,
    visualization.plot_optimization_history,
    visualization.plot_parallel_coordinate,
    visualization.plot_rank,
    visualization.plot_slice,
    visualization.plot_timeline,
]


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_pictures_are_those_in_memory(
    pair: tuple[optuna.Study, optuna.Study], draw: Callable[..., Any]
) -> None:
    ours, theirs = (draw(study).to_plotly_json() for study in pair)
    assert ours["data"]
    assert repr(ours) == repr(theirs)


def test_pictures_of_a_front_and_of_importances(storage: OptunaStorage) -> None:
    study = found(
        storage,
        two_objectives,
        12,
        directions=["minimize", "minimize"],
        sampler=samplers.NSGAIISampler(seed=1, population_size=4),
    )
    assert visualization.plot_pareto_front(study).data
    assert visualization.plot_hypervolume_history(study, [200.0, 60.0]).data
    evaluator = importance.PedAnovaImportanceEvaluator()
    with pytest.warns(UserWarning, match="low `target` values"):
        figure = visualization.plot_param_importances(
            study, evaluator=evaluator, target=lambda trial: trial.values[0], target_name="first"
        )
    assert figure.data


def test_a_frame_of_a_study(pair: tuple[optuna.Study, optuna.Study]) -> None:
    ours, theirs = (study.trials_dataframe() for study in pair)
    assert len(ours) == 30
    assert ours.equals(theirs)
