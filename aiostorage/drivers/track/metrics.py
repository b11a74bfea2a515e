"""The metrics of a trial as Track logs them, and the results that they are."""

from __future__ import annotations

import math
from typing import Any, Final

from aiostorage._core.document_json import to_tree
from aiostorage._core.medium_results import objective_among
from aiostorage.drivers.track.exact import lenient

__all__ = ["last_value", "results_of", "with_results"]

_OBJECTIVE: Final = "objective"


def last_value(series: Any) -> float | list[Any] | None:
    """Return the last value of what was logged under one name; None if it is none of numbers.

    Track logs ``{step: value}``, or a list of values or of ``[step, value]``, or a value alone.
    """
    if isinstance(series, dict) and "$float" not in series:
        steps = [(step, key) for key in series if (step := _number(key)) is not None]
        if not steps or len(steps) != len(series):
            return None  # statistics of a stream, for example
        return _value(series[max(steps)[1]])
    if isinstance(series, list):
        if not series:
            return None
        last = series[-1]
        is_pair = isinstance(last, list) and len(last) == 2 and all(map(_is_pair, series))
        return _value(last[1] if is_pair else last)
    return _value(series)


def results_of(metrics: Any, types: Any, objective: str | None) -> list[dict[str, Any]]:
    """Return the results that metrics are, in the stored form.

    Parameters
    ----------
    metrics
        ``metrics`` of a trial in the file.
    types
        ``metric_types`` of its metadata: the type of each result, as far as it is known.
    objective
        The name of the metric that is the objective; None as for `objective_among`.
    """
    if not isinstance(metrics, dict):
        return []
    values = {name: last_value(series) for name, series in metrics.items()}
    values = {name: value for name, value in values.items() if value is not None}
    known = {n: t for n, t in types.items() if n in values} if isinstance(types, dict) else {}
    numbers = [name for name, value in values.items() if not isinstance(value, list)]
    best = objective if objective in numbers else None
    if best is None and _OBJECTIVE not in known.values():
        best = objective_among((name for name in numbers if name not in known), objective)
    return [
        {
            "name": name,
            "type": known.get(name, _OBJECTIVE if name == best else "statistic"),
            "value": value,
        }
        for name, value in values.items()
    ]


def with_results(
    metrics: Any, types: Any, results: Any, before: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics and their types that show results, as far as metrics can.

    What was logged stays. A result that is not its last value becomes one more value.

    Parameters
    ----------
    metrics, types
        Those of the trial in the file.
    results
        The results.
    before
        The results that the metrics showed before.
    """
    new = dict(metrics) if isinstance(metrics, dict) else {}
    kinds = dict(types) if isinstance(types, dict) else {}
    found = [
        result
        for result in (results if isinstance(results, list) else ())
        if isinstance(result, dict) and isinstance(result.get("name"), str)
    ]
    for result in found:
        name, value = result["name"], result.get("value")
        kinds[name] = to_tree(result.get("type"))
        if name in new and _equal(last_value(new[name]), value):
            continue
        new[name] = _longer(new.get(name), to_tree(value))
    shown = {result["name"] for result in found}
    for result in before:
        name = result["name"]
        if name not in shown and new.get(name) == [to_tree(result["value"])]:
            del new[name]  # it was only ever this result
            kinds.pop(name, None)
    return new, kinds


def _longer(series: Any, value: Any) -> Any:
    if isinstance(series, dict) and "$float" not in series:
        steps = [step for key in series if (step := _number(key)) is not None]
        if len(steps) == len(series):
            return {**series, str(int(max(steps, default=-1)) + 1): value}
    if isinstance(series, list) and not (series and all(map(_is_pair, series))):
        return [*series, value] if last_value(series) is not None else [value]
    return [value]


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))  # noqa: PLR0124  NaN


def _value(tree: Any) -> float | list[Any] | None:
    value = lenient(tree)
    if isinstance(value, list):
        return value if all(isinstance(_value(item), int | float) for item in value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2


def _number(key: str) -> float | None:
    try:
        step = float(key)
    except ValueError:
        return None
    return step if math.isfinite(step) else None
