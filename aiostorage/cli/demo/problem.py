"""What a demo minimises, and how it is made from the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from aiostorage.cli.demo.archive import SmallestArchive
from aiostorage.cli.demo.space import Space, parse_space
from aiostorage.cli.demo.user_objective import UserObjective, load_function
from aiostorage.errors import ConfigurationError

__all__ = ["Problem", "ProblemSpec"]

DEFAULT_SPACE = ("x=-5.0:5.0", "y=-5.0:5.0")


class Problem(Protocol):
    """Something to minimise."""

    @property
    def title(self) -> str:
        """What is searched for, in a few words."""
        ...

    @property
    def unit(self) -> str:
        """The unit of the objective; empty for a plain number."""
        ...

    @property
    def space(self) -> Space:
        """The space to search."""
        ...

    async def evaluate(self, params: Mapping[str, Any]) -> Any:
        """Return the results of one point, as `complete_trial` takes them."""
        ...

    async def references(self) -> dict[str, float]:
        """Return, by name, objectives to compare the best one with."""
        ...


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """The options of the command line from which every process makes the problem.

    Parameters
    ----------
    objective
        ``module:function``; None for the smallest archive.
    space
        The dimensions of a user's objective, as `parse_space` reads them.
    corpus
        The directory whose files are archived; None for Python's own library.
    sample
        The MiB of it that are used, at most.
    """

    objective: str | None = None
    space: tuple[str, ...] = ()
    corpus: str | None = None
    sample: float = 0.75

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Make a spec from what `to_dict` returned."""
        return cls(**{**fields, "space": tuple(fields["space"])})

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON and a storage can hold."""
        return {**asdict(self), "space": list(self.space)}

    def problem(self) -> Problem:
        """Return the problem.

        Raises
        ------
        ConfigurationError
            There is no such function, space or corpus, or they do not fit together.
        """
        if self.objective is None:
            if self.space:
                raise ConfigurationError("--space goes only with --objective")
            corpus = None if self.corpus is None else Path(self.corpus)
            return SmallestArchive.of(corpus, int(self.sample * 2**20))
        if self.corpus is not None:
            raise ConfigurationError(
                "--corpus is for the built-in objective; it does not go with --objective"
            )
        space = parse_space(self.space or DEFAULT_SPACE)
        return UserObjective(self.objective, load_function(self.objective), space)
