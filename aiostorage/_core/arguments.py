"""The arguments of a storage's methods, checked before anything else happens.

The kind of each argument follows from its annotation in `AsyncStorageProtocol`, and for some also
from its name. A method of the storage begins with one call of the check. Usually that is a single
look-up in `KNOWN`, by the classes of the arguments; values are checked only if these do not decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product
from types import FunctionType, MappingProxyType
from typing import Any, Final

from aiostorage._core.kinds import (
    ANYTHING,
    COUNT,
    FLAG,
    INTERVAL,
    ITEMS,
    KEY,
    LIMIT,
    MAPPING,
    MUTABLE_MAPPING,
    SECONDS,
    TEXT,
    TIME,
    WAIT,
    WHOLE,
    Kind,
    choice,
    is_key,
    optional,
    shown,
)
from aiostorage.errors import AioStorageError, InvalidArgument, MissingArguments, UnsupportedQuery
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["KINDS", "KNOWN", "TRIAL", "check_arguments", "kind_of"]


class ExperimentKind(Kind):
    """Anything with the id of an experiment."""

    __slots__ = ()

    def refusal(self, call: str, argument: str, value: Any) -> AioStorageError:
        """Return the error for a value that is not an experiment, or has no valid id."""
        if not isinstance(value, Trial) and (uid := _id_of(value)) is not None:
            return InvalidArgument(
                f"{call}: the id of {argument} is {KEY.wants}, not {shown(uid)}",
                call=call,
                argument=argument,
            )
        return Kind.refusal(self, call, argument, value)


def _id_of(value: Any) -> Any:
    if value.__class__ is dict or isinstance(value, Mapping):
        return value.get("_id")
    if isinstance(value, type):  # a class has the property, and no id
        return None
    uid = getattr(value, "id", None)
    return getattr(value, "_id", None) if uid is None else uid


def _is_experiment(value: Any) -> bool:
    if value.__class__ is Experiment:
        return True
    return not isinstance(value, Trial) and is_key(_id_of(value))


def _about_experiment(call: str, value: Any) -> str:
    if isinstance(value, Trial):
        return ", which is a trial; its experiment is trial.experiment"
    if isinstance(value, Mapping):
        return ": it has no `_id`; store it first"
    if not is_key(value):
        return ""
    if "uid" in KINDS.get(call, ()):
        return f"; pass an id as uid={shown(value)}"
    return f'; of an id alone, make {{"_id": {shown(value)}}}'


def _about_trial(call: str, value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if "uid" in KINDS.get(call, ()):
        return f"; pass an id as uid={shown(value)}"
    return "; get_trial(uid=…, experiment_uid=…) returns the trial of an id"


def _about_key(_call: str, value: Any) -> str:
    if type(value).__name__ == "ObjectId":
        return "; pass str() of an ObjectId"
    if isinstance(value, Experiment | Trial | Mapping):
        return "; it is the id that is passed as a uid"
    return ""


class StatusKind(Kind):
    """The name of a status."""

    __slots__ = ()

    def refusal(self, call: str, argument: str, value: Any) -> AioStorageError:
        """Return the error for a value that is not a status."""
        return InvalidArgument(
            f"{call}: {argument}: unknown trial status {shown(value)}; allowed are: {self.wants}",
            call=call,
            argument=argument,
        )


def _is_status(value: Any) -> bool:
    return isinstance(value, str) and value in _STATUSES


def _is_like_trial(value: Any) -> bool:
    return isinstance(value, Trial) or (
        not isinstance(value, type)
        and hasattr(value, "experiment")
        and hasattr(value, "worker")
        and isinstance(getattr(value, "id", None), str)
    )


_STATUSES: Final = frozenset(status.value for status in TrialStatus)
_MAPPING_OR_NAME: Final = replace(
    MAPPING,  # Oríon's old stores have the name of the algorithm alone
    accepts=lambda value: value is None or isinstance(value, Mapping | str),
    classes=MAPPING.classes | {str},
)
EXPERIMENT: Final = ExperimentKind(
    "an Experiment, a stored config, or an object with an id",
    _is_experiment,
    frozenset({Experiment}),
    MissingArguments,
    _about_experiment,
)
UID: Final = replace(KEY, wants=f"the id of an experiment ({KEY.wants})", hint=_about_key)
TRIAL_UID: Final = replace(
    KEY, wants=f"the id of a trial, or its _id ({KEY.wants})", hint=_about_key
)
TRIAL: Final = Kind(
    "a Trial",
    lambda value: isinstance(value, Trial),
    frozenset({Trial}),
    hint=_about_trial,
)
TRIAL_LIKE: Final = replace(TRIAL, accepts=_is_like_trial)
QUERY: Final = replace(
    MAPPING, wants="a mapping (a filter in MongoDB's language)", error=UnsupportedQuery
)
SELECTION: Final = replace(
    MAPPING, wants="a mapping of names of fields to 0 or 1", error=UnsupportedQuery
)
STATUS: Final = StatusKind(", ".join(status.value for status in TrialStatus), _is_status)

_LIMIT: Final = Kind(
    "an int, at least 0, or True for the limit in the experiment's config",
    lambda value: value is True or LIMIT.accepts(value),
)

STATUSES: Final = replace(
    STATUS,
    accepts=lambda value: (
        _is_status(value)
        or (
            isinstance(value, Collection)
            and not isinstance(value, str)
            and len(value) > 0
            and all(map(_is_status, value))
        )
    ),
)

_BY_ANNOTATION: Final[Mapping[str, Kind]] = {
    "Any": ANYTHING,
    "ExperimentLike": EXPERIMENT,
    "Mapping[str, Any]": MAPPING,
    "Reservation | str": ANYTHING,
    "Results": ANYTHING,
    "Sequence[Trial]": replace(ITEMS, wants="a list of trials"),
    "Trial": TRIAL,
    "Trial | str": Kind(
        "a Trial, or the id of one", lambda v: isinstance(v, Trial) or TEXT.accepts(v)
    ),
    "Direction": choice("minimize", "maximize"),
    "Uid": UID,
    "bool": FLAG,
    "datetime": TIME,
    "dict[str, Any]": MUTABLE_MAPPING,
    "float": SECONDS,
    "int": WHOLE,
    "str": TEXT,
}

_BY_NAME: Final[Mapping[str, Kind]] = {
    "algo_locked": FLAG,
    "algorithm_config": _MAPPING_OR_NAME,
    "batch_size": COUNT,
    "count": replace(COUNT, classes=frozenset({int})),
    "limit": LIMIT,
    "locked": FLAG,
    "max_broken": _LIMIT,
    "max_trials": _LIMIT,
    "on_lost": choice("skip", "raise"),
    "params": replace(
        MAPPING, wants="a mapping of names to values or operators", error=UnsupportedQuery
    ),
    "query": QUERY,
    "retry_interval": INTERVAL,
    "selection": SELECTION,
    "status": STATUS,
    "window": replace(INTERVAL, accepts=lambda value: INTERVAL.accepts(value) and value <= 1e9),
    "wait": replace(WAIT, classes=frozenset({float})),
    "was": STATUS,
    "where": QUERY,
}
"""Arguments whose annotation does not say everything, in all methods.

`Reservations.reserve` checks the range of `count` and `wait`, which are on the path of every
reservation.
"""

_OF_METHOD: Final[Mapping[tuple[str, str], Kind]] = {
    ("fetch_benchmark", "query"): optional(QUERY),  # everything, and nothing is lost by it
    ("fetch_experiments", "query"): optional(QUERY),
    ("changes_since", "limit"): COUNT,
    ("get_trial", "trial"): optional(TRIAL_LIKE),
    ("get_trial", "uid"): optional(TRIAL_UID),
    ("trial_history", "trial"): TRIAL_LIKE,
    ("update_heartbeat", "trial"): TRIAL_LIKE,
    ("update_trial", "trial"): optional(TRIAL_LIKE),
    ("update_trial", "uid"): optional(TRIAL_UID),
    ("wait_for", "status"): STATUSES,
    ("wait_for", "timeout"): optional(WAIT),
}
"""Arguments that one method takes in a different way from the others."""


def kind_of(method: str, argument: str, annotation: str) -> Kind:
    """Return the kind of an argument of a method.

    Parameters
    ----------
    annotation
        The text of the annotation in the protocol.

    Raises
    ------
    KeyError
        No kind is known for this name and annotation.
    """
    special = _OF_METHOD.get((method, argument))
    if special is not None:
        return special
    plain = annotation.removesuffix(" | None")
    kind = _BY_NAME.get(argument) or _BY_ANNOTATION[plain]
    return kind if plain == annotation else optional(kind)


def _arguments_of(method: FunctionType) -> tuple[str, ...]:
    """Return the names of the arguments, without ``*args`` and ``**kwargs``."""
    code = method.__code__  # `inspect.signature` of all methods would double the time of the import
    return code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]


def _kinds_of(method: FunctionType) -> Mapping[str, Kind]:
    kinds = {
        name: kind_of(method.__name__, name, method.__annotations__[name])
        for name in _arguments_of(method)
    }
    return MappingProxyType({name: kind for name, kind in kinds.items() if kind is not ANYTHING})


KINDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    name: _kinds_of(method)
    for name, method in vars(AsyncStorageProtocol).items()
    if not name.startswith("_") and isinstance(method, FunctionType)
}
"""The arguments of each method that are checked, in their order."""

KNOWN: Final[frozenset[tuple[object, ...]]] = frozenset(
    (method, *classes)
    for method, kinds in KINDS.items()
    for classes in product(*(kind.classes for kind in kinds.values()))
)
"""Names of methods, each with classes of arguments that need no further check."""


def check_arguments(method: str, *values: Any) -> None:
    """Check the arguments of a method, those in `KINDS`, in their order.

    Raises
    ------
    InvalidArgument, MissingArguments, UnsupportedQuery
        An argument is of the wrong kind; the message names it and says what it is.
    """
    for (name, kind), value in zip(KINDS[method].items(), values, strict=True):
        if not kind.accepts(value):
            raise kind.refusal(method, name, value)
