"""Parameters with their distributions, as a trial has them in the store, and back.

A param is stored like any other, with its name, type and value. Its distribution stands beside it,
as Optuna's own JSON; with a categorical one the place of the choice, since two choices may be equal
(1 and True), or not equal to themselves (NaN).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType
from typing import Any, Final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial

from aiostorage._core.normalise import normalise
from aiostorage.optuna.field_names import field_name

__all__ = ["StoredParam", "read_params", "stored_params"]

_TYPES: Final[Mapping[type[BaseDistribution], str]] = {
    FloatDistribution: "real",
    IntDistribution: "integer",
}


_CHOICES: Final = (NoneType, bool, int, float, str)
"""What a categorical value may be."""


class StoredParam:
    """A parameter of a trial in its stored forms.

    Parameters
    ----------
    name, distribution
        As Optuna has them.
    internal
        The value as Optuna's storages pass it: a float; of a categorical one the place of the
        choice.

    Attributes
    ----------
    value
        The value itself.
    item
        What stands in the ``params`` of the trial.

    Raises
    ------
    EncodingError
        The value, a choice, cannot be stored.
    """

    def __init__(self, name: str, internal: float, distribution: BaseDistribution) -> None:
        self.name = name
        self.distribution = distribution
        self.field: str = field_name(name)
        self.value: Any = distribution.to_external_repr(internal)
        self.item: dict[str, Any] = {
            "name": name,
            "type": _TYPES.get(type(distribution), "categorical"),
            "value": normalise(self.value, name),
        }
        self._internal = internal

    @property
    def kept(self) -> dict[str, Any]:
        """What stands among the distributions of the trial, by `field`."""
        kept: dict[str, Any] = {"distribution": distribution_to_json(self.distribution)}
        if isinstance(self.distribution, CategoricalDistribution):
            kept["choice"] = int(self._internal)
        return kept


def stored_params(trial: FrozenTrial) -> list[StoredParam]:
    """Return the params of a trial, in the order of its distributions."""
    return [
        StoredParam(name, _internal(trial.params[name], distribution), distribution)
        for name, distribution in trial.distributions.items()
    ]


def _internal(value: Any, distribution: BaseDistribution) -> float:
    """Return a value as Optuna's storages pass it, but an int as it is: a float may be less."""
    if type(value) is int and isinstance(distribution, IntDistribution):
        return value
    return distribution.to_internal_repr(value)


def read_params(
    items: list[dict[str, Any]], kept: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return the params of a trial and their distributions, by name.

    A param without a distribution, which another program may have stored, has one of its value
    alone. A value that Optuna does not know, such as a list, is text.
    """
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for item in items:
        name, value = item["name"], item.get("value")
        own = kept.get(field_name(name))
        if own is None:
            value = value if isinstance(value, _CHOICES) else json.dumps(value, default=str)
            distribution = _single(item.get("type"), value)
        else:
            distribution = _distribution_of(own["distribution"])
            if isinstance(distribution, CategoricalDistribution):
                value = distribution.choices[own["choice"]]
        params[name], distributions[name] = value, distribution
    return params, distributions


def _single(kind: Any, value: Any) -> BaseDistribution:
    if kind == "real" and isinstance(value, float):
        return FloatDistribution(value, value)
    if kind in ("integer", "fidelity") and type(value) is int:
        return IntDistribution(value, value)
    return CategoricalDistribution((value,))


@lru_cache(maxsize=4096)  # each trial of a study has the same few
def _distribution_of(text: str) -> BaseDistribution:
    return json_to_distribution(text)
