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

__all__ = ["UserObjective", "load"]


class UserObjective:
    """Minimise what a function answers.

    Parameters
    ----------
    name
        What it was loaded by.
    function
        Takes the parameters as a dict and answers a number, or what else `complete_trial` takes. A
        coroutine function runs in the event loop, any other in a thread.
    space
        The parameters.
    """

    unit = ""

    def __init__(self, name: str, function: Callable[..., Any], space: Space) -> None:
        self.title = f"the smallest value of {name}"
        self.space = space
        self._function = function
        self._in_loop = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  what matters is what it returns
        )
        # the number of workers is the user's choice; nothing else limits the threads
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def evaluate(self, params: Mapping[str, Any]) -> Any:
        """Answer what the function answers."""
        own = dict(params)
        if self._in_loop:
            return await self._function(own)
        answer = await anyio.to_thread.run_sync(
            self._function, own, abandon_on_cancel=True, limiter=self._limiter
        )
        return await answer if inspect.isawaitable(answer) else answer

    async def references(self) -> dict[str, float]:
        """Answer that there is nothing to compare with."""
        return {}


def load(name: str) -> Callable[..., Any]:
    """Import a function by ``module:function``; the current directory is looked into as well.

    Raises
    ------
    ConfigurationError
        There is none of that name, or its module cannot be imported.
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
        raise ConfigurationError(f"--objective {name!r} is no function: {function!r:.80}")
    found: Callable[..., Any] = function
    return found
