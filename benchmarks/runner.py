"""Carries out workloads: all sides in turns, a block of each in every round."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.definitions import Need, Setting, Side, Workload
from benchmarks.process import Done, SideError, SideProcess
from benchmarks.samples import LeftOut, Sample, combined

__all__ = ["Conditions", "carry_out"]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions workloads are carried out.

    Attributes
    ----------
    directory
        Where the files go.
    prefix
        What the names of all stores begin with.
    missing
        What sides may need and is not there, and why.
    mongodb
        The URL of a server.
    before
        A checkout of earlier code.
    """

    directory: Path
    prefix: str
    missing: Mapping[Need, str]
    mongodb: str | None = None
    before: Path | None = None


def carry_out(
    workload: Workload, conditions: Conditions, say: Callable[[str], None]
) -> Iterator[Sample | LeftOut]:
    """Yield what the sides of a workload measured, and which of them had to be left out.

    The processes of all sides stay open from the first round to the last one; those whose turn it
    is not wait. Each round begins with another side.
    """
    with ExitStack() as stack:
        begun: list[_Team] = []
        for number, side in enumerate(workload.sides):
            lacking = [
                conditions.missing[need] for need in side.needs if need in conditions.missing
            ]
            if lacking:
                yield LeftOut(workload.name, side.who, side.case, lacking[0])
                continue
            say(f"{workload.name}: {side.who}, {side.case}")
            store = conditions.prefix + (side.store or f"{workload.name}-{number}")
            try:
                begun.append(_begun(workload, side, store, conditions, stack))
            except SideError as error:
                yield _failed(workload, side, error)
        teams: list[_Team] = []
        for team in begun:
            try:
                team.await_ready()
                teams.append(team)
            except SideError as error:
                yield _failed(workload, team.side, error)
        os.sync()  # otherwise a commit would wait for what was written before
        for number in workload.numbers:
            say(f"{workload.name}: round {number} of {workload.rounds}")
            for team in _rotated(teams, number):
                try:
                    done = team.block()
                except SideError as error:
                    teams = [other for other in teams if other is not team]
                    yield _failed(workload, team.side, error)
                    continue
                if number:
                    yield _sample(workload, team.side, number, done)


@dataclass(frozen=True)
class _Team:
    """A side with its processes."""

    side: Side
    processes: Sequence[SideProcess]

    def await_ready(self) -> None:
        for process in self.processes:
            process.await_ready()

    def block(self) -> list[Done]:
        for process in self.processes:
            process.begin_block()
        return [process.end_block() for process in self.processes]


def _begun(
    workload: Workload, side: Side, store: str, conditions: Conditions, stack: ExitStack
) -> _Team:
    """Start the processes of a side, which get ready while those of the next one are started."""
    needed = len(workload.numbers) * side.count * side.processes
    setting = Setting(
        conditions.directory,
        store,
        side.tasks,
        max(side.size, needed) if side.size else 0,
        side.count,
        conditions.mongodb,
    )
    tree = conditions.before if "before" in side.needs else None
    if side.apart or side.processes > 1:
        filler = SideProcess(side, setting, tree)
        try:
            filler.await_ready()
        finally:
            filler.end()
    processes = []
    for _ in range(side.processes):
        processes.append(SideProcess(side, setting, tree))
        stack.callback(processes[-1].end)
    return _Team(side, processes)


def _rotated(teams: list[_Team], number: int) -> list[_Team]:
    turn = number % len(teams) if teams else 0
    return teams[turn:] + teams[:turn]


def _sample(workload: Workload, side: Side, number: int, done: list[Done]) -> Sample:
    figures = combined([one.figures for one in done])
    return Sample(
        workload.name,
        side.who,
        side.case,
        number,
        figures.count,
        figures.seconds,
        figures.processor,
        figures.stall,
        max(one.memory for one in done),
        max(max(one.memory - one.idle, 0) for one in done),
    )


def _failed(workload: Workload, side: Side, error: SideError) -> LeftOut:
    reason = str(error).splitlines()[0][:200]
    return LeftOut(workload.name, side.who, side.case, reason, failed=True)
