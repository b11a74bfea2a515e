"""The results of the examination and of the repair of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

__all__ = [
    "COPY_COMMAND",
    "NEWER_COMMAND",
    "REPAIR_COMMAND",
    "UPGRADE_COMMAND",
    "EngineReport",
    "Examination",
    "Finding",
    "Repair",
    "Severity",
]

Severity: TypeAlias = Literal["error", "warning", "note"]

REPAIR_COMMAND: Final = "aiostorage doctor --repair{url}"
UPGRADE_COMMAND: Final = "aiostorage upgrade{url}"
NEWER_COMMAND: Final = "pip install --upgrade aiostorage-orion"
COPY_COMMAND: Final = "aiostorage copy{from} DESTINATION"
"""Commands in which `aiostorage.doctor` puts the URL of the store in the place of the braces."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a store, or something worth knowing.

    Attributes
    ----------
    code
        What kind of finding it is, such as ``lost-trial``; it stays the same in later versions.
    severity
        ``error``: data is damaged or cannot be used. ``warning``: something is not as it should be.
        ``note``: nothing is wrong.
    what
        A description of what was found.
    where
        The record, the index or the file concerned.
    command
        The command to run next.
    repairable
        Whether `aiostorage.doctor.repair` repairs it.
    """

    code: str
    severity: Severity
    what: str
    where: str
    command: str
    repairable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Repair:
    """An action of a repair, or the reason why there was none.

    Attributes
    ----------
    code
        The code of the finding.
    what
        What was done, or why nothing was done.
    where
        As in the finding.
    done
        Whether it was repaired.
    """

    code: str
    what: str
    where: str
    done: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The report of an engine on one of its stores.

    Attributes
    ----------
    findings
        The problems that it has found.
    facts
        Facts that are worth knowing in any case, such as the version of a server.
    readable
        Whether the documents can be read at all.
    """

    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of the examination of a store, or of its repair.

    Attributes
    ----------
    location
        Where the store is; without secrets.
    engine
        The name of its engine.
    facts
        Versions and other facts.
    findings
        What was found, the most severe first. After a repair: what is left.
    repairs
        The actions of a repair.
    """

    location: str
    engine: str
    facts: Mapping[str, str | int | float | None]
    findings: tuple[Finding, ...]
    repairs: tuple[Repair, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong: there are no findings except notes."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return {
            "location": self.location,
            "engine": self.engine,
            "healthy": self.healthy,
            "facts": dict(self.facts),
            "findings": _dicts(self.findings),
            "repairs": _dicts(self.repairs),
        }


def _dicts(records: Sequence[Finding | Repair]) -> list[dict[str, Any]]:
    return [record.to_dict() for record in records]
