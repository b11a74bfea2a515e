"""The priors of Oríon's spaces as distributions of Optuna. Pure functions.

A space is written as calls, such as ``loguniform(1e-5, 1)``. They are read and never evaluated.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from aiostorage.plot.axes import is_log_scale

__all__ = ["choice_of", "distribution_of", "expanded", "flat_space", "inferred"]

_TAIL_DEVIATIONS: Final = 3.0
"""Standard deviations to each side that a normal distribution gets as its range."""

_CHOICES: Final = (bool, int, float, str)
"""What a choice may be, besides None."""


def flat_space(space: Any, prefix: str = "") -> dict[str, str]:
    """Return the priors of a space by dotted name, without the slash that Oríon puts first."""
    priors: dict[str, str] = {}
    if isinstance(space, Mapping):
        for name, prior in space.items():
            path = f"{prefix}{str(name).lstrip('/')}"
            if isinstance(prior, str):
                priors[path] = prior
            else:
                priors |= flat_space(prior, f"{path}.")
    return priors


def expanded(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a parameter, or each element of one that has a shape: ``x[0]``, ``x[0,1]``."""
    if not isinstance(value, list | tuple) or not value:
        yield name, choice_of(value)
        return
    for place, element in enumerate(value):
        begin = f"{name[:-1]}," if name.endswith("]") else f"{name}["
        yield from expanded(f"{begin}{place}]", element)


def choice_of(value: Any) -> Any:
    """Return a value as Optuna has it: text for what it does not know, such as a list."""
    if value is None or isinstance(value, _CHOICES):
        return value
    return json.dumps(value, default=str)


def distribution_of(prior: str, values: Iterable[Any] = ()) -> BaseDistribution | None:
    """Return the distribution of a prior; None for one that Optuna cannot express.

    Parameters
    ----------
    prior
        As Oríon writes it.
    values
        What trials have. A distribution is widened to what they need: a normal one, of which only
        the range is kept, or one that was another when the trial was made.
    """
    call = _call(prior)
    if call is None:
        return None
    kind, args, options = call
    found = list(values)
    try:
        if kind == "choices":
            return _categorical(_choices(args), found)
        if not all(isinstance(value, int | float) for value in found):
            return None
        return _numeric(kind, args, options, found)
    except (TypeError, ValueError, IndexError, OverflowError):  # not the arguments that it takes
        return None


def inferred(values: Iterable[Any]) -> BaseDistribution:
    """Return a distribution that has all of these values, where no prior is known."""
    found = list(values)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in found):
        return _categorical((), found)
    finite = [value for value in found if math.isfinite(value)]
    if len(finite) != len(found) or not found:
        return _categorical((), found)
    low, high, log = min(finite), max(finite), is_log_scale(finite)
    if all(isinstance(value, int) for value in finite):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _call(prior: str) -> tuple[str, list[Any], dict[str, Any]] | None:
    """Return the name and the arguments of a call whose arguments are literals."""
    try:
        node = ast.parse(prior.strip().lstrip("+~"), mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return None
        args = [ast.literal_eval(argument) for argument in node.args]
        options = {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg}
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return None
    return node.func.id, args, options


def _choices(args: Sequence[Any]) -> Sequence[Any]:
    first = args[0]
    return list(first) if isinstance(first, list | tuple | dict) else args


def _categorical(choices: Iterable[Any], values: Iterable[Any]) -> CategoricalDistribution:
    """Return a distribution of choices, each once, and of the values that are none of them."""
    kept: dict[tuple[type, str], Any] = {}
    for choice in map(choice_of, (*choices, *values)):
        kept.setdefault((type(choice), repr(choice)), choice)  # 1 is not True, and a NaN is one
    return CategoricalDistribution(list(kept.values()) or [None])


def _numeric(
    kind: str, args: Sequence[Any], options: Mapping[str, Any], values: Sequence[float]
) -> BaseDistribution | None:
    whole, log = bool(options.get("discrete")), False
    match kind:
        case "uniform":
            low, high = _bounds(args, options)
        case "loguniform" | "reciprocal":
            low, high = _bounds(args, options)
            log = True
        case "fidelity":
            low, high = _bounds(args, options)
            base = args[2] if len(args) > 2 else options.get("base", 2)
            log = base > 1 and low > 0
            whole = isinstance(low, int) and isinstance(high, int)
        case "normal" | "gaussian" | "norm":
            loc = args[0] if args else options.get("loc", 0)
            scale = args[1] if len(args) > 1 else options.get("scale", 1)
            low = options.get("low", loc - _TAIL_DEVIATIONS * scale)
            high = options.get("high", loc + _TAIL_DEVIATIONS * scale)
        case _:
            return None
    low, high = min([low, *values]), max([high, *values])
    log = log and low > 0
    if whole and all(float(value).is_integer() for value in values):
        return IntDistribution(math.floor(low), math.ceil(high), log=log and low >= 1)
    return FloatDistribution(float(low), float(high), log=log)


def _bounds(args: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the lowest and the highest value; both belong to it."""
    low = args[0] if args else options["low"]
    high = args[1] if len(args) > 1 else options["high"]
    return low, high
