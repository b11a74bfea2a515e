"""The report of the benchmarks: what is computed of samples, and how it is written."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.aims import AIMS, Aim, Difference, Failures, Quantity, Speed, Time, verdict
from benchmarks.definitions import Figures, Key, Side, Workload
from benchmarks.details import DETAILS
from benchmarks.registry import WORKLOADS
from benchmarks.report import aims_table, quantity, report, workload_table
from benchmarks.samples import LeftOut, Run, Sample, Spread, combined, handovers, spread_of
from benchmarks.tables import Table, markdown

FAST: Key = ("work", "ours", "fast")
SLOW: Key = ("work", "theirs", "slow")


def sample(
    key: Key, number: int, seconds: float, *, count: int = 8, stall: float | None = None
) -> Sample:
    return Sample(*key, number, count, seconds, seconds / 2, stall, 50 * 2**20, 2**20)


def run(*samples: Sample, left_out: tuple[LeftOut, ...] = ()) -> Run:
    return Run({"Python": "3.11"}, quick=False, samples=samples, left_out=left_out)


def nothing(_: object) -> None: ...


def workload(*, per_second: bool = True) -> Workload:
    sides = tuple(Side(who, case, nothing, 10) for _, who, case in (FAST, SLOW))  # type: ignore[arg-type]
    return Workload("work", "Work", "Some work.", "jobs", sides, FAST[1:], per_second)


TWO_ROUNDS = (
    *(sample(FAST, 1, 1.0, stall=0.002), sample(FAST, 2, 2.0, stall=0.030)),
    *(sample(SLOW, 2, 8.0), sample(SLOW, 1, 3.0)),  # in another order
)


def test_ratios_are_those_of_the_same_rounds() -> None:
    assert Speed(FAST, SLOW).of(run(*TWO_ROUNDS)) == Spread(3.25, 3.5, 3.75)
    assert Time(FAST, SLOW).of(run(*TWO_ROUNDS)) == spread_of([1 / 3, 1 / 4])
    assert Difference(SLOW, FAST).of(run(*TWO_ROUNDS)) == spread_of([0.25, 0.75])


def test_rounds_that_only_one_side_has_are_left_out() -> None:
    assert Speed(FAST, SLOW).of(run(*TWO_ROUNDS[:3])) == Spread(4.0, 4.0, 4.0)
    assert Speed(FAST, SLOW).of(run(*TWO_ROUNDS[:2])) is None


def test_operations_are_counted() -> None:
    samples = (sample(FAST, 1, 1.0, count=100), sample(SLOW, 1, 1.0, count=1))
    assert Speed(FAST, SLOW).of(run(*samples)) == Spread(100.0, 100.0, 100.0)


def test_of_stalls_the_longest_one_counts() -> None:
    assert Quantity(FAST, "stall").of(run(*TWO_ROUNDS)) == Spread(0.030, 0.030, 0.030)
    assert Quantity(FAST, "each").of(run(*TWO_ROUNDS)) == spread_of([0.125, 0.25])


@pytest.mark.parametrize(
    ("bounds", "reached"),
    [
        ({"at_least": 3.5}, True),
        ({"at_least": 3.6}, False),
        ({"at_most": 3.5}, True),
        ({"at_most": 3.4}, False),
    ],
)
def test_the_median_decides(bounds: dict[str, Any], reached: bool) -> None:
    aim = Aim("work", "theirs", Speed(FAST, SLOW), **bounds)
    assert verdict(aim, run(*TWO_ROUNDS)).reached is reached
    assert verdict(aim, run()).reached is None


def test_a_failure_misses_an_aim_and_a_missing_package_does_not() -> None:
    aim = Aim("errors", "", Failures(FAST), at_most=0.0)
    assert verdict(aim, run(sample(FAST, 1, 1.0))).reached is True
    assert verdict(aim, run(left_out=(LeftOut(*FAST, "busy", failed=True),))).reached is False
    assert verdict(aim, run(left_out=(LeftOut(*FAST, "no server"),))).reached is None


def test_processes_that_work_at_the_same_time() -> None:
    figures = combined([Figures(10, 1.0, 0.5, 0.002), Figures(10, 2.0, 1.0, 0.001)])
    assert figures == Figures(20, 20 / 15, 1.5, 0.002)  # 10 + 5 a second
    assert combined([Figures(10, 1.0, 0.5)]).stall is None


def test_handovers_are_from_one_holder_to_another() -> None:
    spans = (("b", 1.5, 2.0), ("a", 0.0, 1.0), ("b", 2.25, 3.0), ("a", 3.125, 4.0))
    assert handovers(spans) == [0.5, 0.125]
    figures = combined([Figures(4, 9.0, 1.0, None, spans)])
    assert (figures.count, figures.seconds) == (2, 0.625)


def test_samples_come_back_from_json() -> None:
    tables = {"detail": [Table("Detail", ["a"], [["1"]])]}
    kept = Run({"Python": "3.11"}, True, TWO_ROUNDS, (LeftOut(*SLOW, "why", failed=True),), tables)
    assert Run.from_json(kept.to_json()) == kept


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0000123, "s", "12.3 µs"),
        (0.00123, "s", "1.23 ms"),
        (12.3, "s", "12.3 s"),
        (-0.00002, "s", "-20.0 µs"),
        (0.0, "s", "0.00 µs"),
        (3 * 2**20, "B", "3.00 MiB"),
        (1234.5, "x", "1,234 \u00d7"),
        (0.1234, "x", "0.123 \u00d7"),
        (98765.4, "/s", "98,765"),
        (0.0, "", "0.00"),
    ],
)
def test_quantities(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


def test_a_workload_s_table() -> None:
    first, second = workload_table(run(*TWO_ROUNDS), workload()).rows
    assert first[:5] == ["ours", "fast", "1.00 \u00d7", "6.00", "5.00 - 7.00"]
    assert first[5:] == ["30.0 ms", "93.8 ms", "50.0 MiB", "8"]
    assert second[2] == "3.50 \u00d7 (3.25 \u00d7 - 3.75 \u00d7)"
    assert second[5] == ""  # it has no event loop


def test_a_workload_s_table_of_times() -> None:
    first, _ = workload_table(run(*TWO_ROUNDS), workload(per_second=False)).rows
    assert first[3:5] == ["188 ms", "156 ms - 219 ms"]


def test_the_aims_table() -> None:
    aims = [
        Aim("work", "theirs", Speed(FAST, SLOW), at_least=7.0),
        Aim("stall", "", Quantity(FAST, "stall"), at_most=0.040),
        Aim("other work", "", Quantity(("other", "ours", "fast"), "each"), at_most=1.0),
    ]
    assert aims_table(run(*TWO_ROUNDS), aims).rows == [
        [
            "work",
            "theirs",
            "≥ 7.00 \u00d7",
            "3.50 \u00d7 (3.25 \u00d7 - 3.75 \u00d7)",
            "0.50",
            "**no**",
        ],
        ["stall", "", "≤ 40.0 ms", "30.0 ms", "0.75", "yes"],
        ["other work", "", "≤ 1.00 s", "not measured", "", ""],
    ]


def test_the_report_has_a_section_for_what_was_measured() -> None:
    other = Workload("other", "Other work", "", "jobs", (), ("ours", "fast"))
    found = run(*TWO_ROUNDS, left_out=(LeftOut("work", "third", "slow", "no server"),))
    text = report(found, [workload(), other], [], pictures={"work": "pictures/work.svg"})
    assert "| Python | 3.11 |" in text
    assert "## Work\n\nSome work.\n\n![Work](pictures/work.svg)\n\n| " in text
    assert "`python -m benchmarks --only work`" in text
    assert "## Other work" not in text
    assert "| work | third | slow | no server |" in text
    assert "figures are rough" not in text
    assert "figures are rough" in report(Run({}, True, ()), [], [], pictures={})


def test_the_report_says_what_stands_in_the_way() -> None:
    slow = Speed(FAST, SLOW)
    aims = [
        Aim("work", "theirs", slow, at_least=7.0, limit="The disk."),
        Aim("work", "others", slow, at_least=8.0, limit="The disk."),
        Aim("more work", "theirs", slow, at_least=9.0, limit="The disk."),
        Aim("reached", "theirs", slow, at_least=1.0, limit="Nothing."),
    ]
    text = report(run(*TWO_ROUNDS), [], aims, pictures={})
    assert "were missed:\n\n- **work; more work.** The disk.\n" in text
    assert "Nothing." not in text
    assert "were missed:" not in report(run(*TWO_ROUNDS), [], aims[3:], pictures={})


def test_a_table_in_markdown() -> None:
    table = Table("T", ["a", "b"], [["x", "1"]], caption="What it is.")
    assert markdown(table) == "| a | b |\n| --- | ---: |\n| x | 1 |\n\nWhat it is.\n"


# ------------------------------------------------------------------------------ the registry


def sides() -> set[Key]:
    return {(one.name, side.who, side.case) for one in WORKLOADS.values() for side in one.sides}


def test_aims_name_sides_that_there_are() -> None:
    named = {
        key
        for aim in AIMS
        for key in (aim.comparison.one, getattr(aim.comparison, "other", None))
        if key is not None
    }
    assert named <= sides()


def test_a_name_chooses_one_part() -> None:
    assert not set(WORKLOADS) & set(DETAILS)


def test_each_aim_has_one_bound() -> None:
    assert all((aim.at_least is None) != (aim.at_most is None) for aim in AIMS)


def test_each_side_has_its_own_name_and_is_compared_with_one_of_them() -> None:
    assert len(sides()) == sum(len(one.sides) for one in WORKLOADS.values())
    assert {(one.name, *one.reference) for one in WORKLOADS.values()} <= sides()
