"""What is measured in ways of its own, beside the workloads: each part yields tables.

Some of the parts do not run everywhere: they need a server, or packages that may be missing.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.definitions import Need
from benchmarks.tables import Table

if TYPE_CHECKING:
    from benchmarks import history, mongodb, outbox

__all__ = ["DETAILS", "Detail", "DetailConditions"]


@dataclass(frozen=True)
class DetailConditions:
    """Where and how a part is measured.

    Attributes
    ----------
    directory
        Where the files go.
    mongodb
        The URL of a server; empty if there is none.
    quick
        Whether a tenth of the work is enough.
    """

    directory: Path
    mongodb: str
    quick: bool

    def count(self, quick: int, full: int) -> int:
        """Return the first number for a tenth of the work, the second one for all of it."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Detail:
    """A part: how it is measured, and what it cannot do without.

    Attributes
    ----------
    reported
        Whether it belongs to a run of everything; what takes long is measured when asked for.
    """

    measure: Callable[[DetailConditions], Iterable[Table]]
    needs: tuple[Need, ...] = ()
    reported: bool = True


# Each function imports what it measures: its modules may need packages that are not installed.
# ruff: noqa: PLC0415


def _history(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import history

    rounds = given.count(8, 16)
    costs = list(history.in_this_process(given.directory, given.count(640, 2560), rounds))
    if given.mongodb:
        servers = given.directory / "servers-of-history"  # it starts its own
        servers.mkdir()
        costs += history.on_mongodb(servers, given.count(320, 640), rounds)
    yield Table(
        "What the history costs",
        ("engine", "tasks", "cycles/s without", "time with it", "processor time with it"),
        [_history_row(one) for one in costs],
        caption="Times beside those without it: medians of alternating blocks, and quartiles.",
    )


def _history_row(one: history.HistoryCost) -> list[str]:
    ratios = [_quartiles(one.time), _quartiles(one.processor)]
    return [one.engine, f"{one.tasks}", f"{one.rate:,.0f}", *ratios]


def _outbox(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import outbox

    rounds = given.count(4, 10)
    costs = outbox.on_sqlite(given.directory, given.count(1000, 4000), rounds)
    if given.mongodb:
        costs += outbox.on_mongodb(given.mongodb, given.count(160, 640), rounds)
    yield Table(
        "What an outbox for a tracker costs",
        ("engine", "work", "tasks", "with/s", "without/s", "rate with it"),
        [_outbox_row(one) for one in costs],
        left=2,
        caption="The rate beside that without it: medians of alternating blocks, and quartiles.",
    )


def _outbox_row(one: outbox.OutboxCost) -> list[str]:
    rates = [f"{one.with_outbox:,.0f}", f"{one.without:,.0f}"]
    return [one.engine, one.what, f"{one.tasks}", *rates, _quartiles(one.ratios)]


def _telemetry(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import telemetry

    costs = telemetry.costs(given.directory, given.count(640, 3200), given.count(4, 12))
    kinds = telemetry.KINDS[1:]
    yield Table(
        f"What telemetry costs {telemetry.TASKS} tasks that reserve and complete",
        ("engine", "figure", "without its calls", *kinds),
        [
            [one.engine, what, shown, *(_quartiles(ratios[kind], 3) for kind in kinds)]
            for one in costs
            for what, shown, ratios in (
                ("rate", f"{one.rate:,.0f}/s", one.ratios),
                ("processor time", "", one.processor),
            )
        ],
        left=2,
        caption="Ratios to the storage without the calls of telemetry, and quartiles.",
    )


def _trackers(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import trackers

    yield Table(
        f"Trials a second of {trackers.TASKS} tasks, and their ratio with a tracker",
        ("engine", "objective", "none", *trackers.DELAYS),
        [
            [
                row.engine,
                row.objective,
                f"{row.rate:,.0f}/s",
                *(f"{row.ratios[kind]:.2f}" for kind in trackers.DELAYS),
            ]
            for row in trackers.costs(given.directory, given.count(200, 1000))
        ],
        left=2,
        caption="Up: 5 ms a call. Down: no answer. Slow: 500 ms a call.",
    )


def _track(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import track

    yield Table(
        "Track: cycles a second, beside SQLite",
        ("trials", "tasks", "Track", "SQLite", "ratio"),
        [
            [
                f"{row.trials}",
                f"{row.tasks}",
                f"{row.track.rate:,.0f}",
                f"{row.sqlite.rate:,.0f}",
                f"{row.track.rate / row.sqlite.rate:.3f}",
            ]
            for row in track.beside_sqlite(given.directory, given.count(128, 640))
        ],
        left=0,
    )


def _orion(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import oriondb

    seconds = given.count(2, 10)
    yield Table(
        "Oríon on aiostorage and on PickledDB",
        ("what", "aiostorage", "PickledDB", "aiostorage is … times as fast"),
        [
            *(
                [one.what, f"{one.aiostorage:,.0f}", f"{one.pickleddb:,.1f}", f"{one.ratio:.0f}"]
                for one in oriondb.operations(given.directory, (1000, 10_000), seconds)
            ),
            *(
                [one.what, f"{one.aiostorage:.1f}", f"{one.pickleddb:.1f}", f"{1 / one.ratio:.2f}"]
                for one in oriondb.hunts(given.directory, given.count(20, 200), 4)
            ),
        ],
    )


def _optuna(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import optuna_storages

    rows = []
    for processes in (1, 8):
        found = list(optuna_storages.rates(given.directory, given.count(400, 4000), processes))
        for sampler in ("random", "TPE"):
            mine = [row for row in found if row.sampler == sampler]
            peer = next(row.rate for row in mine if row.kind.startswith("RDB"))
            rows += [
                [
                    f"{row.processes}",
                    row.sampler,
                    row.kind,
                    f"{row.rate:,.0f}",
                    f"{row.rate / peer:.1f}",
                    f"{row.processor:.2f} ms",
                ]
                for row in mine
            ]
    yield Table(
        "Optuna: trials a second, and processor time of each",
        ("processes", "sampler", "storage", "trials/s", "beside RDB", "processor"),
        rows,
        left=3,
        caption="A trial: two parameters, and an objective that takes no time.",
    )
    marks = (100, 1000) if given.quick else (100, 1000, 10_000)
    yield Table(
        "Optuna, random sampler: processor time of a trial, by the number of trials",
        ("storage", *(f"{mark:,}" for mark in marks)),
        [
            [grown.kind, *(f"{grown.at[mark]:.2f} ms" for mark in marks)]
            for grown in optuna_storages.growth(given.directory, marks)
        ],
    )
    yield Table(
        f"Optuna: {optuna_storages.TASKS} coroutines that wait 50 ms",
        ("engine", "trials", "beside the least time", "processor time of a trial", "stall"),
        [
            [
                waited.engine,
                f"{waited.trials:,}",
                f"{waited.ratio:.2f}",
                f"{waited.processor:.2f} ms",
                f"{waited.stall * 1000:.0f} ms",
            ]
            for waited in optuna_storages.waiting(given.directory, given.count(640, 3200))
        ],
    )


def _mongodb(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import mongodb, oriondb

    yield _beside(
        "MongoDB beside the bare client with the same commands",
        mongodb.throughput(given.mongodb, given.count(160, 1600), given.count(4, 10)),
    )
    if oriondb.available():
        yield _beside(
            "MongoDB beside Oríon's own storage in threads",
            mongodb.beside_orion(given.mongodb, given.count(160, 1600), given.count(2, 6)),
        )
    yield _large(given.mongodb, given.count(10_000, 100_000), given.count(50, 400))
    yield _contention(given.mongodb, 1.0 if given.quick else 5.0)


def _beside(title: str, rows: Iterable[mongodb.PairedResult]) -> Table:
    return Table(
        title,
        ("client", "work", "tasks", "ours/s", "theirs/s", "ours beside theirs", "stall"),
        [
            [
                row.library,
                row.what,
                f"{row.tasks}",
                f"{row.ours:,.0f}",
                f"{row.theirs:,.0f}",
                _shown(*row.quartiles),
                f"{row.stall * 1000:.1f} ms",
            ]
            for row in rows
        ],
        left=2,
        caption="Medians of the ratios of alternating blocks, and quartiles.",
    )


def _large(url: str, many: int, count: int) -> Table:
    from benchmarks import mongodb

    rows = []
    for library in mongodb.LIBRARIES:
        paired, fetched = asyncio.run(
            mongodb.depth(url, library, many=many, few=1000, count=count, rounds=8)
        )
        rows.append(
            [
                library,
                f"{1e6 / paired.theirs:.0f} µs",
                f"{1e6 / paired.ours:.0f} µs",
                _quartiles([1 / ratio for ratio in paired.ratios]),
                f"{fetched.seconds:.1f} s",
                f"{fetched.stall * 1000:.0f} ms",
            ]
        )
    return Table(
        f"MongoDB: one reservation with 1,000 and with {many:,} trials, and fetching all of these",
        ("client", "1,000", f"{many:,}", "ratio of the times", "fetched in", "stall meanwhile"),
        rows,
        caption="They were fetched with Python's garbage collector off.",
    )


def _contention(url: str, seconds: float) -> Table:
    from benchmarks import mongodb

    found = [
        mongodb.contention(url, way, processes, tasks, seconds)
        for processes, tasks in ((1, 64), (8, 8), (24, 1))
        for way in mongodb.WAYS
    ]
    return Table(
        "MongoDB: workers that reserve trials of one experiment, by PyMongo",
        ("who", "processes", "tasks each", "reserve/s", "write conflicts each"),
        [
            [
                one.way,
                f"{one.processes}",
                f"{one.tasks}",
                f"{one.rate:,.0f}",
                f"{one.conflicts:.1f}",
            ]
            for one in found
        ],
    )


def _size(given: DetailConditions) -> Iterator[Table]:
    from benchmarks import size

    trials = given.count(1280, 10_048)
    study = size.study(given.mongodb, trials)
    yield Table(
        f"MongoDB: a study of {study.trials:,} trials with {study.params} params, in bytes",
        ("collection", "documents", "data", "on disk", "indexes"),
        [
            [one.name, *(f"{n:,}" for n in (one.documents, one.data, one.stored, one.indexes))]
            for one in study.collections
        ],
        caption=f"Oplog: {study.registered / trials:,.0f} bytes a trial for registration, "
        f"{study.worked / trials:,.0f} for reservation, heartbeat and completion.",
    )
    yield Table(
        "MongoDB: connections of a process",
        ("client", "tasks", "connections"),
        [
            [library, f"{tasks}", f"{count}"]
            for library, tasks, count in size.connections(given.mongodb)
        ],
    )


def _quartiles(values: Sequence[float], places: int = 2) -> str:
    return _shown(*statistics.quantiles(values, n=4, method="inclusive"), places=places)


def _shown(low: float, middle: float, high: float, *, places: int = 2) -> str:
    return f"{middle:.{places}f} ({low:.{places}f} - {high:.{places}f})"


DETAILS: Final[Mapping[str, Detail]] = {
    "history": Detail(_history),
    "outbox": Detail(_outbox),
    "telemetry": Detail(_telemetry),
    "trackers": Detail(_trackers),
    "track": Detail(_track),
    "orion": Detail(_orion, ("orion",)),
    "optuna": Detail(_optuna, ("optuna",)),
    "mongodb": Detail(_mongodb, ("mongodb",), reported=False),
    "size": Detail(_size, ("mongodb",)),
}
