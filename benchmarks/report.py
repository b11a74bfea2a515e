"""The report of a run: pure functions from its samples to tables and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.aims import Aim, Verdict, verdict
from benchmarks.definitions import Side, Workload
from benchmarks.samples import Run, Sample, Spread, spread_of
from benchmarks.tables import Table, markdown

__all__ = ["aims_table", "quantity", "report", "workload_table"]

INTRODUCTION = """\
# Benchmarks

`python -m benchmarks` measures all of this and writes this page. It needs a checkout with the dependency group `bench`
(`pip install --editable . --group bench`).

**How it is measured.** All sides of a workload take turns: in each round, every side does one block of operations, in
processes of its own. So whatever else the machine does affects all of them in the same way. Figures are medians over
the rounds, with the quartiles in brackets. Compare the ratios: they say more than the rates, which hold only for this
machine. A ratio is the median of the ratios of all rounds.

**What is compared.** aiostorage writes to SQLite with `synchronous=FULL`, unless a line says NORMAL: acknowledged
writes are on disk. "Plain sqlite3" is the limit: one thread that executes only the necessary statements, on the same
tables, and checks nothing. It writes the history of changes, too, as aiostorage does by default, unless the line says
"no history". With "one transaction", nothing is on disk before the end of a block. "Bare motor" and "bare PyMongo" are
the clients of MongoDB alone, with only the necessary commands: a transaction of three commands for each change with its
row of the history, and one command for each with "no history". Optuna makes a trial when a worker asks for one. "A
study's trial" is made by a study, which suggests two random params and receives the result, as in `study.optimize`;
"storage alone" is the same without the study and without params. With "enqueued", the storage looks for the oldest
waiting trial, as `reserve_trial` does. Slow sides do fewer operations; the last column says how many.
"""
QUICK = """
**These figures are rough: they were measured with a tenth of the trials and operations (`--quick`).**
"""
AIMS = """
## Aims

An aim is reached if the median reaches it. "Of the aim" is the result divided by the aim.
"""


def report(
    run: Run,
    workloads: Sequence[Workload],
    aims: Sequence[Aim],
    *,
    pictures: Mapping[str, str],
) -> str:
    """Return the whole report in Markdown.

    Parameters
    ----------
    pictures
        The addresses of pictures, by the names of workloads.
    """
    parts = [INTRODUCTION]
    if run.quick:
        parts.append(QUICK)
    parts.append("\n## The machine\n\n" + markdown(_machine_table(run)))
    parts.append(AIMS + "\n" + markdown(aims_table(run, aims)) + _limits(run, aims))
    measured = {sample.workload for sample in run.samples}
    parts += [
        _section(run, workload, pictures.get(workload.name))
        for workload in workloads
        if workload.name in measured
    ]
    if run.details:
        parts.append(
            "\n## Details\n\nThese were measured in short; `--only NAME` measures one of them in full.\n"
        )
        for name, tables in run.details.items():
            parts += [
                f"\n### {table.title}\n\n{markdown(table)}\nAgain: `python -m benchmarks --only {name}`.\n"
                for table in tables
            ]
    if run.left_out:
        parts.append("\n## Left out\n\n" + markdown(_left_out_table(run)))
    return "".join(parts)


def _section(run: Run, workload: Workload, picture: str | None) -> str:
    shown = f"![{workload.title}]({picture})\n\n" if picture else ""
    return (
        f"\n## {workload.title}\n\n{workload.what}\n\n{shown}"
        f"{markdown(workload_table(run, workload))}\n"
        f"Again: `python -m benchmarks --only {workload.name}`.\n"
    )


def _machine_table(run: Run) -> Table:
    return Table("The machine", ("", ""), list(run.machine.items()), left=2)


def aims_table(run: Run, aims: Sequence[Aim]) -> Table:
    """Return what the run says about each aim."""
    rows = [_aim_row(verdict(aim, run)) for aim in aims]
    headings = ("Work", "Beside", "Aim", "Found", "Of the aim", "Reached")
    return Table("Aims", headings, rows, left=2)


def _limits(run: Run, aims: Sequence[Aim]) -> str:
    """Return what stands in the way of the aims that are not reached."""
    found: dict[str, list[str]] = {}
    for one in (verdict(aim, run) for aim in aims):
        if one.reached is False and one.aim.limit:
            works = found.setdefault(one.aim.limit, [])
            if one.aim.what not in works:
                works.append(one.aim.what)
    lines = [f"- **{'; '.join(works)}.** {limit}\n" for limit, works in found.items()]
    return f"\nWhy the other aims were missed:\n\n{''.join(lines)}" if lines else ""


def _aim_row(one: Verdict) -> list[str]:
    aim = one.aim
    unit = aim.comparison.unit
    bound, sign = (aim.at_least, "≥") if aim.at_least is not None else (aim.at_most or 0.0, "≤")
    row = [aim.what, aim.beside, f"{sign} {quantity(bound, unit)}"]
    if one.found is None:
        return [*row, "not measured", "", ""]
    share = f"{one.found.median / bound:.2f}" if bound else ""
    return [*row, _spread(one.found, unit), share, "yes" if one.reached else "**no**"]


def workload_table(run: Run, workload: Workload) -> Table:
    """Return the figures of a workload's sides."""
    who, case = workload.reference
    reference = (workload.name, who, case)
    rows = []
    for side in workload.sides:
        key = (workload.name, side.who, side.case)
        samples = run.of(key)
        if samples:
            ratio = spread_of(
                [theirs.each / mine.each for mine, theirs in run.pairs(reference, key)]
            )
            rows.append(_row(workload, side, samples, ratio))
    headings = (
        "",
        "",
        "Ratio",
        f"{workload.unit.capitalize()} a second" if workload.per_second else "Time of one",
        "Quartiles",
        "Longest stall",
        "Processor",
        "Memory",
        "Operations",
    )
    caption = (
        f"Ratio: the speed of “{who}, {case}” divided by the speed of the line. Longest stall: of the "
        "event loop. Processor: processor time of one operation. Memory: the greatest size of a "
        "process. Operations: in a round."
    )
    return Table(workload.title, headings, rows, left=2, caption=caption)


def _row(
    workload: Workload, side: Side, samples: Sequence[Sample], ratio: Spread | None
) -> list[str]:
    if workload.per_second:
        speed = spread_of([1 / sample.each for sample in samples])
        unit = "/s"
    else:
        speed = spread_of([sample.each for sample in samples])
        unit = "s"
    stalls = [sample.stall for sample in samples if sample.stall is not None]
    processor = spread_of([sample.processor / sample.count for sample in samples])
    assert speed is not None
    assert processor is not None
    return [
        side.who,
        side.case,
        _spread(ratio, "x") if ratio else "",
        quantity(speed.median, unit),
        f"{quantity(speed.low, unit)} - {quantity(speed.high, unit)}",
        quantity(max(stalls), "s") if stalls else "",
        quantity(processor.median, "s"),
        quantity(max(sample.memory for sample in samples), "B"),
        f"{samples[0].count:,}",
    ]


def _left_out_table(run: Run) -> Table:
    rows = [(one.workload, one.who, one.case, one.reason) for one in run.left_out]
    return Table("Left out", ("Workload", "Who", "Case", "Why"), rows, left=4)


def _spread(spread: Spread, unit: str) -> str:
    shown = quantity(spread.median, unit)
    if spread.low == spread.high:
        return shown
    return f"{shown} ({quantity(spread.low, unit)} - {quantity(spread.high, unit)})"


def quantity(value: float, unit: str) -> str:
    """Return a quantity as text: ``x`` is a ratio, ``/s`` a rate, ``s`` seconds, ``B`` bytes."""
    if unit == "s":
        for least, factor, name in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")):
            if abs(value) >= least:
                return f"{_digits(value * factor)} {name}"
    if unit == "B":
        return f"{_digits(value / 2**20)} MiB"
    return _digits(value) + {"x": " \u00d7", "/s": "", "": ""}[unit]


def _digits(value: float) -> str:
    """Return a number with three digits, or more in front of the point."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or not size else 3
    return f"{value:,.{places}f}"
