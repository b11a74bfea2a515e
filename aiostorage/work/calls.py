"""How a worker calls the functions of its user: with the arguments that they name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiostorage._core.normalise import type_name
from aiostorage.errors import ConfigurationError
from aiostorage.trial import Trial

__all__ = ["NamedCall", "is_async", "name_of", "objective_arguments"]

_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NamedCall:
    """The arguments that a function takes by name.

    Attributes
    ----------
    names
        Its arguments.
    takes_all
        Whether it takes any other by ``**``; True as well if its signature is unknown.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name: str = name_of(function)
        self.names: frozenset[str] = frozenset()
        self.takes_all: bool = True
        self._signature: inspect.Signature | None = None
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none
            return
        parameters = self._signature.parameters.values()
        self.names = frozenset(p.name for p in parameters if p.kind in _BY_NAME)
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __repr__(self) -> str:
        return f"{self.name}{self._signature or '(…)'}"

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the reason why these arguments do not fit; None if they do."""
        if self._signature is None:
            return None
        try:
            self._signature.bind(**arguments)
        except TypeError as error:
            return str(error)
        return None


def objective_arguments(call: NamedCall, trial: Trial) -> dict[str, Any]:
    """Return the arguments of an objective for a trial.

    These are the params by name. An objective that names ``trial`` or ``params`` gets the trial or
    the dict of all params there, and only those single params that it names.

    Raises
    ------
    ConfigurationError
        It cannot be called with them.
    """
    params = trial.params
    whole = {"trial": trial, "params": params}
    asked = {name: whole[name] for name in whole if name in call.names and name not in params}
    if asked and not call.takes_all:
        arguments = {name: value for name, value in params.items() if name in call.names}
    else:
        arguments = params
    arguments = {**arguments, **asked}
    if problem := call.problem(arguments):
        raise ConfigurationError(
            f"the objective {call!r} cannot be called with the params of trial {trial.id}, "
            f"{', '.join(map(repr, params)) or 'which has none'}: {problem}; it takes the "
            "params by name, or an argument `params` or `trial`"
        )
    return arguments


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a function is a coroutine function, or an object that is called as one."""
    call = getattr(function, "__call__", None)  # noqa: B004  what it returns matters
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def name_of(function: object) -> str:
    """Return the name of a function for messages."""
    function = getattr(function, "func", function)  # of a functools.partial
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type_name(function)
