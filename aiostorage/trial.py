"""One evaluation of an experiment: its parameters, its state and its results.

A `Trial` here and a trial of Oríon 0.2.7 with the same content have the same id and the same stored
form, so that both libraries can work on one store.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final, Self, TypeVar

from aiostorage._core.kinds import ITEMS, KEY, MAPPING, PATH, TEXT, Kind, having, optional
from aiostorage.errors import InvalidArgument, MissingObjective
from aiostorage.reservation import Reservation
from aiostorage.values import (
    Flat,
    Param,
    Params,
    Result,
    Results,
    TrialStatus,
    as_results,
    flat_values,
    identity_form,
    make_values,
    typed_params,
    validate_status,
    values_from_flat,
)

__all__ = ["Param", "Result", "Trial", "TrialStatus", "as_results", "validate_status"]

_V = TypeVar("_V", Param, Result)

_ID_LENGTH: Final = 32
"""Characters of an id, which is an md5 in hex."""

_PLAIN: Final = (
    *("experiment", "worker", "parent", "exp_working_dir"),
    *("submit_time", "start_time", "end_time", "heartbeat"),
)
"""Attributes of a trial that are stored by their own names, just as they are."""


_PARAMS: Final = Kind(
    "a mapping of names to values, or a list of params",
    lambda value: ITEMS.accepts(value) or isinstance(value, Mapping),
)
_PARAM_LIST: Final = Kind(
    "a list of params",
    lambda value: ITEMS.accepts(value) and all(isinstance(item, Param) for item in value),
)
_TRIAL: Final = having("a Trial", "_params")
_EXPERIMENT: Final = replace(
    KEY,
    hint=lambda _, value: (
        "; pass the `_id` of its config"
        if isinstance(value, Mapping)
        else "; pass its id: experiment.id"
        if hasattr(value, "id")
        else ""
    ),
)
_TIME: Final = Kind(
    "a datetime",  # or one of numpy's
    lambda v: isinstance(v, date) or getattr(getattr(v, "dtype", None), "kind", None) == "M",
)


def _made(kind: type[_V], argument: str, items: Iterable[Any]) -> list[_V]:
    """Make the params or results of a trial."""
    try:
        return make_values(kind, items)
    except TypeError as error:
        raise InvalidArgument(
            f"Trial: {argument} has something else than a {kind.__name__}: {error}",
            call="Trial",
            argument=argument,
        ) from error


class Trial:
    """One evaluation: a set of parameters, its status and its results.

    Two trials are equal when their ids are. Times are datetimes in UTC.

    Parameters
    ----------
    experiment : str or int, optional
        The ``_id`` of the experiment.
    status : str
        A `TrialStatus`; ValueError for any other.
    params
        `Param` objects or their dicts, in the order that the id depends on; or a mapping, possibly
        nested, of names to values, whose Python types determine the types of the parameters;
        ValueError if two of its values have one name, as in ``{"a": {"b": 1}, "a.b": 2}``.
    results
        `Result` objects or their dicts, or anything else that `as_results` accepts.
    worker : str, optional
        The token of the reservation.
    submit_time, start_time, end_time, heartbeat : datetime, optional
        When it was suggested, reserved, completed, and last known to be alive.
    parent : str, optional
        The id of the trial that this one branched from.
    exp_working_dir : str, optional
        The directory of the experiment, which contains the directories of its trials.
    _id : str or int, optional
        The key in the database, also called `id_override`.
    id, parents, id_override
        Ignored; documents that Oríon wrote have them.
    """

    __slots__ = (*_PLAIN, "_param_values", "_result_values", "_status", "_stored_id", "id_override")

    _param_values: list[Param] | Flat
    _result_values: list[Result] | Flat
    _status: str
    _stored_id: str | None
    experiment: str | int | None
    worker: str | None
    submit_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    heartbeat: datetime | None
    parent: str | None
    exp_working_dir: str | None
    id_override: str | int | None

    def __init__(
        self,
        *,
        experiment: str | int | None = None,
        status: str = TrialStatus.NEW,
        params: Params | None = None,
        results: Results | None = None,
        worker: str | None = None,
        submit_time: datetime | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        heartbeat: datetime | None = None,
        parent: str | None = None,
        exp_working_dir: str | None = None,
        _id: str | int | None = None,
        id: object = None,  # noqa: A002, ARG002 -- see above
        parents: object = None,  # noqa: ARG002
        id_override: object = None,  # noqa: ARG002
    ) -> None:
        for name, kind, value in (
            ("experiment", _EXPERIMENT, experiment),
            ("params", _PARAMS, params),
            ("worker", TEXT, worker),
            ("submit_time", _TIME, submit_time),
            ("start_time", _TIME, start_time),
            ("end_time", _TIME, end_time),
            ("heartbeat", _TIME, heartbeat),
            ("parent", KEY, parent),
            ("exp_working_dir", PATH, exp_working_dir),
            ("_id", KEY, _id),
        ):
            if value is not None and not kind.accepts(value):
                raise kind.refusal("Trial", name, value)
        self.experiment = experiment
        self._status = validate_status(status)
        if isinstance(params, Mapping):
            self._params = typed_params(params)
        else:
            self._params = _made(Param, "params", params or ())
        if isinstance(results, Iterable) and not isinstance(results, Mapping):
            # unlike the setter's these need no objective: a lie may come alone.
            self._results = _made(Result, "results", results)
        else:
            self._results = [] if results is None else as_results(results)
        self.worker = worker
        self.submit_time = submit_time
        self.start_time = start_time
        self.end_time = end_time
        self.heartbeat = heartbeat
        self.parent = parent
        self.exp_working_dir = exp_working_dir
        self.id_override = _id
        self._stored_id = None

    # ------------------------------------------------------------------------- stored form

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Make a trial from its stored form; unknown keys are ignored.

        The trial keeps the ``id`` of the stored form, whatever becomes of its values; an ``id``
        that is not an md5 is ignored. Values that are containers are not copied. ``__init__`` is
        not called, for speed.

        Raises
        ------
        ValueError
            The status, or the type of a param or result, is not an allowed one; or a param has no
            name.
        """
        try:
            get = document.get
        except AttributeError:
            raise MAPPING.refusal("Trial.from_dict", "document", document) from None
        self = cls.__new__(cls)
        self.experiment = get("experiment")
        self.worker = get("worker")
        self.parent = get("parent")
        self.exp_working_dir = get("exp_working_dir")
        self.submit_time = get("submit_time")
        self.start_time = get("start_time")
        self.end_time = get("end_time")
        self.heartbeat = get("heartbeat")
        self.id_override = get("_id")
        uid = get("id")
        self._stored_id = uid if uid.__class__ is str and len(uid) == _ID_LENGTH else None
        self._status = validate_status(get("status", TrialStatus.NEW))
        self._param_values = params = flat_values(Param, get("params"))
        for name in params[::3]:
            if name.__class__ is not str and not isinstance(name, str):
                param = next(p for p in values_from_flat(Param, params) if p.name is name)
                raise ValueError(f"a param needs a name: {param!r}")
        self._result_values = flat_values(Result, get("results"))
        return self

    # most of many trials are looked at for their status or their id alone

    @property
    def _params(self) -> list[Param]:
        values = self._param_values
        if isinstance(values, tuple):
            values = self._param_values = values_from_flat(Param, values)
        return values

    @_params.setter
    def _params(self, params: list[Param]) -> None:
        self._param_values = params

    @property
    def _results(self) -> list[Result]:
        values = self._result_values
        if isinstance(values, tuple):
            values = self._result_values = values_from_flat(Result, values)
        return values

    @_results.setter
    def _results(self, results: list[Result]) -> None:
        self._result_values = results

    @classmethod
    def build(cls, documents: Iterable[Mapping[str, Any]]) -> list[Self]:
        """Make a list of trials from their stored forms."""
        try:
            return [cls.from_dict(document) for document in documents]
        except TypeError:
            ITEMS.check("Trial.build", "documents", documents)
            raise

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form, with ``_id`` if there is one. The values are not copied.

        Raises
        ------
        ValueError
            There is no id, because there are neither params nor an experiment.
        """
        document = {name: getattr(self, name) for name in _PLAIN}
        document["id"] = self.id
        document["status"] = self._status
        document["params"] = [param.to_dict() for param in self._params]
        document["results"] = [result.to_dict() for result in self._results]
        if self.id_override:
            document["_id"] = self.id_override
        return document

    def _complete(
        self, results: list[Result], end_time: datetime, status: str = TrialStatus.COMPLETED.value
    ) -> None:
        """Take over what the store has now; results and status have been checked."""
        self._results = results
        self._status = status
        self.end_time = end_time

    def _begin(self, worker: str, start_time: datetime, heartbeat: datetime) -> None:
        """Take over the values in the store after the trial was reserved again."""
        self._clear()
        self._status, self.worker = TrialStatus.RESERVED.value, worker
        self.start_time, self.heartbeat = start_time, heartbeat

    def _clear(self) -> None:
        """Forget the results and the end of an earlier evaluation."""
        self._results, self.end_time = [], None

    def copy(self) -> Self:
        """Return a copy that shares no mutable value with this trial."""
        twin = copy.copy(self)
        twin._params = [param.copy() for param in self._params]  # noqa: SLF001
        twin._results = [result.copy() for result in self._results]  # noqa: SLF001
        return twin

    def branch(
        self, status: str = TrialStatus.NEW, params: Mapping[str, Any] | None = None
    ) -> Self:
        """Return a new trial with this one as its parent, without results, worker and times.

        Parameters
        ----------
        status
            The status of the new trial.
        params
            Values that differ, by the full names of the params (``a.b`` for a nested one).

        Raises
        ------
        ValueError
            This trial has no param of that name, or `status` is not a `TrialStatus`.
        """
        optional(MAPPING).check("Trial.branch", "params", params)
        changes = copy.deepcopy(dict(params or ()))
        branched = [
            Param(param.name, param.type, changes.pop(param.name))
            if param.name in changes
            else param.copy()
            for param in self._params
        ]
        if changes:
            raise ValueError(f"the trial has no params {', '.join(map(repr, changes))}")
        return self.__class__(
            experiment=self.experiment,
            status=status,
            params=branched,
            parent=self.id,
            exp_working_dir=self.exp_working_dir,
        )

    # -------------------------------------------------------------- params, results, status

    @property
    def param_list(self) -> list[Param]:
        """The params, in the order that the id depends on; the list itself, not a copy."""
        return self._params

    @property
    def params(self) -> dict[str, Any]:
        """The values by name; names with dots become nested dicts.

        Other programs may have stored a name that leads into the value of another, as ``a.b`` into
        an ``a``. Such a name keeps its dots: ``{"a": 1, "a.b": 2}``.
        """
        tree: dict[str, Any] = {}
        for param in self._params:
            *branches, leaf = param.name.split(".")
            node = tree
            for name in branches:
                inner = node.get(name, {})
                if not isinstance(inner, dict):
                    node, leaf = tree, param.name
                    break
                # a copy: the dict may be the value of a param, and must not grow
                node[name] = node = dict(inner)
            node[leaf] = param.value
        return tree

    @property
    def results(self) -> list[Result]:
        """The outcomes; setting them raises `InvalidResult` without a number as the objective."""
        return self._results

    @results.setter
    def results(self, results: list[Result]) -> None:
        self._results = as_results(results, bools=True)

    @property
    def status(self) -> str:
        """Where the trial stands: the value of a `TrialStatus`; setting another is a ValueError."""
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        self._status = validate_status(status)

    def _first(self, kind: str) -> Result | None:
        return next((result for result in self._results if result.type == kind), None)

    @property
    def objective(self) -> Result | None:
        """The first result of type objective, None before the evaluation."""
        return self._first("objective")

    @property
    def objective_value(self) -> float:
        """The value of the objective, as a float; NaN if it is NaN.

        Raises
        ------
        MissingObjective
            There is no objective, as before the evaluation, or its value is not a number. The error
            has the id of the trial and its status.
        """
        objective = self.objective
        value: Any = None if objective is None else objective.value
        value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        uid = self.id if self._params or self.experiment else None
        shown = f"trial {uid}" if uid else "a trial without an id"
        what = f"an objective that is not a number: {value!r:.60}"
        if value is None:
            what = "no objective"
        raise MissingObjective(
            f"{shown} is {self._status!r} and has {what}", uid=uid, status=self._status
        )

    @property
    def lie(self) -> Result | None:
        """The made-up objective of a trial that still runs, if it was given one."""
        return self._first("lie")

    @property
    def gradient(self) -> Result | None:
        """The first result of type gradient, if there is one."""
        return self._first("gradient")

    @property
    def constraints(self) -> list[Result]:
        """The results of type constraint."""
        return [result for result in self._results if result.type == "constraint"]

    @property
    def statistics(self) -> list[Result]:
        """The results of type statistic."""
        return [result for result in self._results if result.type == "statistic"]

    @property
    def execution_interval(self) -> tuple[datetime, datetime] | None:
        """The start, and the end or else the last heartbeat; None if either is missing."""
        end = self.end_time or self.heartbeat
        return (self.start_time, end) if self.start_time and end else None

    @property
    def duration(self) -> timedelta:
        """The length of `execution_interval`; zero without one."""
        interval = self.execution_interval
        return interval[1] - interval[0] if interval else timedelta()

    # ------------------------------------------------------------------------------- names

    @property
    def _id(self) -> str | int | None:
        """The key in the database, by its stored name."""
        return self.id_override

    @property
    def id(self) -> str:
        """The id under which it is stored: an md5 of the params, the lie and the parent, in hex.

        It stays, whatever becomes of these. The id of a trial that does not come from a store is
        computed again each time. ValueError without params and experiment.
        """
        return self._stored_id or self.compute_trial_hash(self)

    @property
    def reservation(self) -> Reservation | None:
        """What `AsyncStorageProtocol.resume_reservation` takes; None if this is not reserved."""
        uid, token = self.experiment, self.worker
        if self._status != TrialStatus.RESERVED or uid is None or not isinstance(token, str):
            return None
        return Reservation(uid, self.id, token)

    @property
    def hash_name(self) -> str:
        """The same as `id`."""
        return self.id

    @property
    def hash_params(self) -> str:
        """The md5 of the params that are not fidelities, in hex."""
        return self.compute_trial_hash(
            self, ignore_fidelity=True, ignore_lie=True, ignore_parent=True
        )

    @staticmethod
    def compute_trial_hash(
        trial: Trial,
        *,
        ignore_fidelity: bool = False,
        ignore_lie: bool = False,
        ignore_parent: bool = False,
    ) -> str:
        """Return the md5, in hex, of the params, the lie and the parent that `trial` has now.

        It is computed from the values as they are stored: a list of numpy's floats and the same
        list of Python's floats have the same md5.

        Raises
        ------
        ValueError
            `trial` has neither params nor an experiment.
        """
        try:
            params = trial._params
        except AttributeError:
            raise _TRIAL.refusal("Trial.compute_trial_hash", "trial", trial) from None
        if not params and not trial.experiment:
            raise ValueError("a trial without params and experiment has no id")
        text = Trial.format_params(params, ignore_fidelity=ignore_fidelity)
        if not ignore_lie and (lie := trial.lie):
            text += f"{lie.name}:{identity_form(lie.value)}"
        if not ignore_parent and trial.parent is not None:
            text += str(trial.parent)
        encoded = text.encode("utf-8", "surrogatepass")  # to store it is refused, with its place
        return hashlib.md5(encoded, usedforsecurity=False).hexdigest()

    @staticmethod
    def format_params(
        params: Iterable[Param], sep: str = ",", ignore_fidelity: bool = False
    ) -> str:
        """Return ``name:value`` of the params, with values as stored and `sep` between them."""
        try:
            if ignore_fidelity:
                params = [param for param in params if param.type != "fidelity"]
            return sep.join([f"{param.name}:{identity_form(param.value)}" for param in params])
        except (AttributeError, TypeError):
            TEXT.check("Trial.format_params", "sep", sep)
            _PARAM_LIST.check("Trial.format_params", "params", params)
            raise

    def params_repr(self, sep: str = ",", ignore_fidelity: bool = False) -> str:
        """Return ``name:value`` of this trial's params with `sep` between them."""
        return self.format_params(self._params, sep, ignore_fidelity)

    @property
    def full_name(self) -> str:
        """All params in one word without slashes; ValueError without params or experiment."""
        if not self._params or not self.experiment:
            raise ValueError("a trial without params or without an experiment has no full name")
        return self.params_repr("-").replace("/", ".")

    @property
    def working_dir(self) -> str:
        """The directory of this trial; RuntimeError without an `exp_working_dir`."""
        return self.get_working_dir()

    def get_working_dir(
        self,
        *,
        ignore_fidelity: bool = False,
        ignore_lie: bool = False,
        ignore_parent: bool = False,
    ) -> str:
        """Return a directory that is shared by trials that differ only in the ignored parts.

        Raises
        ------
        RuntimeError
            The trial has no `exp_working_dir`.
        """
        if self.exp_working_dir is None:
            raise RuntimeError("a trial without exp_working_dir has no working_dir")
        if ignore_fidelity or ignore_lie or ignore_parent:
            name = self.compute_trial_hash(
                self,
                ignore_fidelity=ignore_fidelity,
                ignore_lie=ignore_lie,
                ignore_parent=ignore_parent,
            )
        else:
            name = self.id
        return os.path.join(self.exp_working_dir, name)  # noqa: PTH118 -- a str, as Oríon's

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Trial) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(experiment={self.experiment!r}, status={self._status!r}, "
            f"params={self.params_repr()})"
        )
