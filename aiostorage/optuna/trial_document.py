"""A trial of Optuna as the document of a trial, and back. Pure functions.

``docs/reference/optuna-mapping.md`` has the mapping as a table. The status decides what a trial is,
so that what other programs do to it (a worker that completes it, a command that hands it back) is
seen by Optuna, too. Only what no status says is kept beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.ids import new_id
from aiostorage._core.layout import PENDING
from aiostorage.operations import StoreTime
from aiostorage.optuna.field_names import attributes_of, field_name, fields_of
from aiostorage.optuna.stored_params import StoredParam, read_params, stored_params
from aiostorage.optuna.study_document import FIELD, USER_ATTRS, stored_attribute
from aiostorage.optuna.study_ids import study_id_of, trial_id_of, trial_uid_of
from aiostorage.values import TrialStatus

__all__ = [
    "TrialUpdate",
    "attribute_update",
    "changed",
    "constraint_results",
    "final_update",
    "finish_changes",
    "frozen_trial",
    "intermediate_update",
    "local_now",
    "moment_changes",
    "number_of",
    "own_copy",
    "trial_document",
    "with_params",
]

_STATUSES: Final = {
    TrialState.WAITING: TrialStatus.NEW.value,
    TrialState.RUNNING: TrialStatus.RESERVED.value,
    TrialState.COMPLETE: TrialStatus.COMPLETED.value,
    TrialState.PRUNED: TrialStatus.COMPLETED.value,
    TrialState.FAIL: TrialStatus.BROKEN.value,
}
"""What a trial of each state is: a pruned one has ended in good order, and is never pending."""

_RESERVED: Final = TrialStatus.RESERVED.value
_COMPLETED: Final = TrialStatus.COMPLETED.value

_CONSTRAINTS: Final = "constraints"
"""The system attribute that has all constraints, or the name of one behind a colon."""

_MOMENTS: Final = {"start_time": "started", "end_time": "completed"}
"""The times of a trial, and where their text is as Optuna has them: naive, local and exact."""


COARSEST: Final = timedelta(milliseconds=1)
"""How finely times are kept by the engine that keeps them least so."""


# --------------------------------------------------------------------------------- to a document


def trial_document(experiment: str | int, number: int, trial: FrozenTrial) -> dict[str, Any]:
    """Return the document of a trial that is not in the store yet.

    Parameters
    ----------
    experiment
        The ``_id`` of the experiment.
    number
        The number that the trial gets, whatever its own is.
    trial
        As Optuna has it. A running one still needs its ``worker`` and ``heartbeat``.

    Raises
    ------
    EncodingError, TypeError
        Something in it cannot be stored.
    """
    params = stored_params(trial)
    order = list(trial.params)
    params.sort(key=lambda param: order.index(param.name))
    document: dict[str, Any] = {
        "_id": new_id(),
        "experiment": experiment,
        "id": trial_uid_of(number),
        "status": _STATUSES[trial.state],
        "worker": None,
        "submit_time": datetime.now(UTC),
        "start_time": None,
        "end_time": None,
        "heartbeat": None,
        "parent": None,
        "exp_working_dir": None,
        "params": [param.item for param in params],
        "results": [],
        FIELD: {
            "number": number,
            "distributions": {param.field: param.kept for param in params},
            "intermediate": {
                str(step): float(value) for step, value in trial.intermediate_values.items()
            },
            "user_attrs": _stored_attributes(trial.user_attrs),
            "system_attrs": _stored_attributes(trial.system_attrs),
        },
    }
    changes = moment_changes("start_time", trial.datetime_start)
    changes |= moment_changes("end_time", trial.datetime_complete)
    if trial.state.is_finished() or trial.values is not None:
        constraints = constraint_results(trial)
        changes |= finish_changes(trial.state, trial.values, constraints)
    for path, value in changes.items():
        field, _, name = path.partition(".")
        if name:
            document[field][name] = value
        else:
            document[field] = value
    return document


def finish_changes(
    state: TrialState, values: Sequence[float] | None, constraints: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return what a trial gets when it ends in a state with these values.

    The values of a complete trial are its objectives. Those of any other are statistics, so that no
    pruned trial is ever the best one.
    """
    changes: dict[str, Any] = {"status": _STATUSES[state]}
    complete = state is TrialState.COMPLETE
    kind, name = ("objective", "objective") if complete else ("statistic", "value")
    several = values is not None and len(values) > 1
    results = [
        {"name": f"{name}_{place}" if several else name, "type": kind, "value": float(value)}
        for place, value in enumerate(values or ())
    ]
    changes["results"] = [*results, *constraints]
    if not complete and values is not None:
        changes[f"{FIELD}.values"] = [float(value) for value in values]
    if state is TrialState.PRUNED:
        changes[f"{FIELD}.pruned"] = True
    return changes


def constraint_results(trial: FrozenTrial) -> list[dict[str, Any]]:
    """Return the constraints of a trial as results; those that are not numbers are left out."""
    constraints: dict[str, Any] = {}  # whatever was set under these names
    for name, value in trial.system_attrs.items():
        if name == _CONSTRAINTS:  # as Optuna 4 has all of them
            values = value if isinstance(value, list | tuple) else ()
            constraints |= {str(place): one for place, one in enumerate(values)}
        elif name.startswith(f"{_CONSTRAINTS}:"):
            constraints[name.removeprefix(f"{_CONSTRAINTS}:")] = value
    return [
        {"name": f"constraint_{name}", "type": "constraint", "value": float(value)}
        for name, value in constraints.items()
        if isinstance(value, int | float)
    ]


def moment_changes(name: str, moment: datetime | None) -> dict[str, Any]:
    """Return the changes that set a time of a trial, ``start_time`` or ``end_time``."""
    text = f"{FIELD}.{_MOMENTS[name]}"
    if moment is None:
        return {name: None, text: None}
    return {name: moment.astimezone(UTC), text: moment.isoformat()}


def local_now() -> datetime:
    """Return the present time as Optuna writes it: naive and local."""
    return datetime.now()  # noqa: DTZ005


def _stored_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return fields_of({name: stored_attribute(name, value) for name, value in attributes.items()})


# ------------------------------------------------------------------------------- what is set of it


class TrialUpdate(NamedTuple):
    """One change of a trial, in both forms.

    Attributes
    ----------
    changes
        Those of the document, by paths.
    fields
        Those of the `FrozenTrial`, for `changed`.
    """

    changes: dict[str, Any]
    fields: dict[str, Any]


def attribute_update(kind: str, name: str, value: Any) -> TrialUpdate:
    """Return what sets an attribute; `kind` is `USER_ATTRS` or `SYSTEM_ATTRS`."""
    stored = stored_attribute(name, value)
    attributes = "user_attrs" if kind == USER_ATTRS else "system_attrs"
    return TrialUpdate({f"{kind}.{field_name(name)}": stored}, {attributes: {name: stored}})


def intermediate_update(step: int, value: float) -> TrialUpdate:
    """Return what sets an intermediate value."""
    value = float(value)
    return TrialUpdate(
        {f"{FIELD}.intermediate.{int(step)}": value}, {"intermediate_values": {step: value}}
    )


def final_update(
    trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
) -> TrialUpdate:
    """Return what ends a trial now, in a state and with these values."""
    end = local_now()
    changes = {
        **finish_changes(state, values, constraint_results(trial)),
        **moment_changes("end_time", end),
        "heartbeat": StoreTime(),
    }
    fields: dict[str, Any] = {"state": state, "datetime_complete": end}
    if values is not None:
        fields["values"] = [float(value) for value in values]
    return TrialUpdate(changes, fields)


# ------------------------------------------------------------------------------- from a document


def number_of(document: Mapping[str, Any]) -> int | None:
    """Return the number of a trial; None if it is not a trial of a study."""
    ours = document.get(FIELD)
    number = ours.get("number") if isinstance(ours, Mapping) else None
    return number if type(number) is int and number >= 0 else None


def frozen_trial(document: Mapping[str, Any], number: int | None = None) -> FrozenTrial:
    """Return the trial that a document is.

    Parameters
    ----------
    document
        As it is stored; it belongs to the trial from now on.
    number
        The number, for a trial that has none in its document since it is of no study.

    Raises
    ------
    ValueError
        It has no number.
    """
    ours = document.get(FIELD)
    ours = ours if isinstance(ours, Mapping) else {}
    if number is None:
        number = number_of(document)
    if number is None:
        raise ValueError(f"trial {document.get('id')!r} has no number in a study of Optuna")
    params, distributions = read_params(
        document.get("params") or [], ours.get("distributions") or {}
    )
    state, values = _state_of(document, ours)
    completed = _moment(document, ours, "end_time")
    if state.is_finished() and completed is None:
        last = document.get("heartbeat") or document.get("start_time")
        completed = _as_local(last or document.get("submit_time"))
    started = _moment(document, ours, "start_time")
    if started is None and state is not TrialState.WAITING:
        started = _as_local(document.get("submit_time"))
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        values=values,
        datetime_start=started,
        datetime_complete=completed,
        params=params,
        distributions=distributions,
        user_attrs=attributes_of(ours.get("user_attrs")),
        system_attrs=attributes_of(ours.get("system_attrs")),
        intermediate_values={
            int(step): value for step, value in (ours.get("intermediate") or {}).items()
        },
        trial_id=trial_id_of(study_id_of(document["experiment"]), number),
    )


def _state_of(
    document: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[TrialState, list[float] | None]:
    """Return the state of a trial, and its values."""
    status, kept = document.get("status"), ours.get("values")
    if status == _RESERVED:
        return TrialState.RUNNING, kept
    if status in PENDING.value:
        return TrialState.WAITING, kept
    if status == _COMPLETED:
        objectives = [
            float(result["value"])
            for result in document.get("results") or ()
            if result.get("type") == "objective" and result.get("value") is not None
        ]
        if objectives and not any(map(math.isnan, objectives)):
            return TrialState.COMPLETE, objectives
        if ours.get("pruned"):
            return TrialState.PRUNED, kept
    return TrialState.FAIL, kept if status == TrialStatus.BROKEN else None


def _moment(document: Mapping[str, Any], ours: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time of a trial: as Optuna wrote it, unless another program has changed it since."""
    stored, text = document.get(name), ours.get(_MOMENTS[name])
    if stored is None:
        return None
    if text is not None:
        exact = datetime.fromisoformat(text)
        if abs(exact.astimezone(UTC) - stored) < COARSEST:
            return exact
    return _as_local(stored)


def _as_local(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone().replace(tzinfo=None)


# ------------------------------------------------------------------------------ changes in memory


def changed(trial: FrozenTrial, **fields: Any) -> FrozenTrial:
    """Return a copy of a trial with other fields; those who have the trial keep it as it is.

    Parameters
    ----------
    fields
        Attributes of a `FrozenTrial`; those that are mappings are added to what is there.
    """
    twin = _twin(trial)
    for name, value in fields.items():
        merged = {**getattr(trial, name), **value} if isinstance(value, Mapping) else value
        setattr(twin, name, merged)
    return twin


def with_params(trial: FrozenTrial, params: Iterable[StoredParam]) -> FrozenTrial:
    """Return a copy of a trial with further params."""
    values, distributions = {}, {}
    for param in params:
        values[param.name], distributions[param.name] = param.value, param.distribution
    return changed(trial, params=values, distributions=distributions)


def own_copy(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial for Optuna's `Trial`, which adds to what it got from the storage."""
    twin = _twin(trial)
    for name in _MAPPINGS:
        setattr(twin, name, getattr(trial, name).copy())
    return twin


_MAPPINGS: Final = (
    "params",
    "distributions",
    "user_attrs",
    "system_attrs",
    "intermediate_values",
)


def _twin(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with the same attributes.

    Unlike `copy.copy` this does not ask for the ``__dict__`` of either. In one that was ever asked
    for it, Python finds the attributes more slowly from then on, and samplers go through thousands.
    """
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
        trial_id=trial._trial_id,  # noqa: SLF001  as Optuna's storages do
    )
