"""A user's function as the problem of a demo."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from aiostorage.cli.demo.space import Space
from aiostorage.errors import ConfigurationError

__all__ = ["UserObjective", "load_function"]


class UserObjective:
    """Minimise what a function returns.

    Parameters
    ----------
    name
        The name that it was loaded by.
    function
        Takes the parameters as a dict and returns a number, or anything `complete_trial` takes. A
        coroutine function runs in the event loop, any other in a thread.
    space
        The parameters.
    """

    unit = ""

    def __init__(self, name: str, function: Callable[..., Any], space: Space) -> None:
        self.title: str = f"the smallest value of {name}"
        self.space = space
        self._function = function
        self._in_loop = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  what it returns matters
        )
        # the number of workers is the user's choice; nothing else limits the threads
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def evaluate(self, params: Mapping[str, Any]) -> Any:
        """Call the function, and return its result."""
        copy = dict(params)
        if self._in_loop:
            return await self._function(copy)
        result = await anyio.to_thread.run_sync(
            self._function, copy, abandon_on_cancel=True, limiter=self._limiter
        )
        return await result if inspect.isawaitable(result) else result

    async def references(self) -> dict[str, float]:
        """Return no references: there is nothing to compare with."""
        return {}


def load_function(name: str) -> Callable[..., Any]:
    """Import a function by ``module:function``; the current directory is searched too.

    Raises
    ------
    ConfigurationError
        There is no such function, or its module cannot be imported.
    """
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise ConfigurationError(f"--objective {name!r} is not of the form module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = attrgetter(path)(importlib.import_module(module))
    except AttributeError as error:
        raise ConfigurationError(f"--objective {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"--objective {name!r}: cannot import {module!r}: {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"--objective {name!r} is not a function: {function!r:.80}")
    found: Callable[..., Any] = function
    return found
