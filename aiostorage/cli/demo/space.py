"""The space of a random search: dimensions, drawn at random and read from the command line."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiostorage.errors import ConfigurationError
from aiostorage.trial import Param

__all__ = ["Categorical", "Dimension", "Integer", "Real", "Space", "parse_space"]


class Dimension(Protocol):
    """The possible values of one parameter."""

    @property
    def name(self) -> str:
        """The name of the parameter."""
        ...

    @property
    def size(self) -> float:
        """The number of values; infinite for real numbers."""
        ...

    @property
    def prior(self) -> str:
        """The dimension as Oríon writes it."""
        ...

    def draw(self, rng: random.Random) -> Param:
        """Draw a value."""
        ...


@dataclass(frozen=True, slots=True)
class Integer:
    """All integers from `low` to `high`, both included."""

    name: str
    low: int
    high: int

    @property
    def size(self) -> float:
        """The number of integers."""
        return self.high - self.low + 1

    @property
    def prior(self) -> str:
        """The dimension as Oríon writes it."""
        return f"uniform({self.low}, {self.high}, discrete=True)"

    def draw(self, rng: random.Random) -> Param:
        """Draw an integer."""
        return Param(self.name, "integer", rng.randint(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Real:
    """The real numbers from `low` to `high`."""

    name: str
    low: float
    high: float

    @property
    def size(self) -> float:
        """Infinite, unless the bounds are the same."""
        return math.inf if self.high > self.low else 1

    @property
    def prior(self) -> str:
        """The dimension as Oríon writes it."""
        return f"uniform({self.low}, {self.high})"

    def draw(self, rng: random.Random) -> Param:
        """Draw a real number."""
        return Param(self.name, "real", rng.uniform(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several values."""

    name: str
    choices: tuple[Any, ...]

    @property
    def size(self) -> float:
        """The number of choices."""
        return len(self.choices)

    @property
    def prior(self) -> str:
        """The dimension as Oríon writes it."""
        return f"choices({list(self.choices)!r})"

    def draw(self, rng: random.Random) -> Param:
        """Draw a choice."""
        return Param(self.name, "categorical", rng.choice(self.choices))


def _allow_all(_: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Space:
    """Dimensions, and which combinations of their values are allowed.

    Parameters
    ----------
    dimensions
        In the order of drawing.
    allows
        Return whether a combination is allowed; other combinations are drawn again.
    """

    dimensions: tuple[Dimension, ...]
    allows: Callable[[Mapping[str, Any]], bool] = _allow_all

    @property
    def size(self) -> float:
        """The number of points, at most."""
        return math.prod(dimension.size for dimension in self.dimensions)

    @property
    def priors(self) -> dict[str, str]:
        """The dimensions by name, as the config of an experiment has them."""
        return {dimension.name: dimension.prior for dimension in self.dimensions}

    def draw(self, rng: random.Random) -> list[Param]:
        """Draw a point."""
        while True:
            params = [dimension.draw(rng) for dimension in self.dimensions]
            if self.allows({param.name: param.value for param in params}):
                return params


def parse_space(texts: Iterable[str]) -> Space:
    """Make a space from options of the command line.

    Parameters
    ----------
    texts
        ``name=low:high``, of integers if both bounds are written as integers, else of real numbers;
        or ``name=a,b,c`` for a choice, in which what looks like a number is one.

    Raises
    ------
    ConfigurationError
        A text is neither, or two have the same name.
    """
    dimensions = tuple(_dimension(text) for text in texts)
    names = [dimension.name for dimension in dimensions]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"--space has {name!r} more than once")
    return Space(dimensions)


def _dimension(text: str) -> Dimension:
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not name.isidentifier() or not values.strip():
        raise ConfigurationError(
            f"--space {text!r} is neither name=low:high nor name=a,b,c with an identifier as name"
        )
    low, colon, high = values.partition(":")
    if not colon or "," in values:
        choices = tuple(_value(choice.strip()) for choice in values.split(","))
        if "" in choices or len(set(map(str, choices))) < len(choices):
            raise ConfigurationError(f"--space {text!r} has an empty or repeated choice")
        return Categorical(name, choices)
    bounds = _value(low.strip()), _value(high.strip())
    if any(isinstance(bound, str) or not math.isfinite(bound) for bound in bounds):
        raise ConfigurationError(
            f"--space {text!r}: the bounds must be numbers, as in {name}=-5.0:5.0"
        )
    if bounds[0] > bounds[1]:
        raise ConfigurationError(f"--space {text!r}: the lower bound must come first")
    if all(isinstance(bound, int) for bound in bounds):
        return Integer(name, *bounds)
    return Real(name, *map(float, bounds))


def _value(text: str) -> Any:
    """Return the number that a text is, or else the text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
