"""Figures made of rows, without a storage: what is drawn, what is left out, and how it is said."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiostorage import ConfigurationError, InvalidArgument
from aiostorage.plot import (
    PlotOptions,
    PlotRows,
    PlotRowsBuilder,
    history_figure,
    parallel_figure,
    plot_page,
    slice_figure,
    write_page,
)
from aiostorage.plot.axes import MISSING, axis_label, is_log_scale, make_axis, outlier_limit
from aiostorage.plot.rows import best_so_far, log_priors, thin_rows

START = datetime(2026, 3, 1, tzinfo=UTC)
SPACE = {"lr": "loguniform(1e-5, 1)", "net": {"width": "uniform(1, 512, discrete=True)"}}


def trial(number: int, value: object, status: str = "completed", **params: Any) -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "status": status,
        "end_time": START + timedelta(seconds=number),
        "params": [{"name": name, "value": one} for name, one in params.items()],
        "results": [{"name": "loss", "type": "objective", "value": value}],
    }


def rows_of(documents: Iterable[dict[str, Any]], space: object = None) -> PlotRows:
    builder = PlotRowsBuilder("tune v1", space)
    for document in documents:
        builder.add(document)
    return builder.build()


def some(count: int) -> PlotRows:
    return rows_of(
        (
            trial(
                n,
                1 + (n * 7 % 11) / 10,
                **{"lr": 10.0 ** -(n % 5), "net.width": 2 ** (n % 3 + 4), "act": "ab"[n % 2]},
            )
            for n in range(count)
        ),
        SPACE,
    )


def subtitle(figure: Any) -> str:
    return str(figure.layout.title.subtitle.text)


def test_what_cannot_be_plotted_is_left_out_and_counted() -> None:
    rows = rows_of(
        [
            trial(4, 3.0),
            trial(2, 1),
            trial(5, math.nan),
            trial(6, math.inf),
            trial(7, 10**400),
            trial(8, "bad"),
            trial(9, 1.0, status="broken"),
            {"id": "x", "results": 3, "params": None},
            {"id": "y", "status": "completed", "params": [1]},
        ]
    )
    assert [row.objective for row in rows.rows] == [1, 3]  # in the order of their end
    assert rows.objective == "loss"
    assert rows.left_out == {
        "with a NaN": 1,
        "with an infinity": 2,
        "without an objective": 2,
        "broken": 1,
        "new": 1,
    }
    for figure in (history_figure(rows), parallel_figure(rows), slice_figure(rows)):
        assert "2 completed trials, left out: 1 broken, 1 new, 1 with a NaN" in subtitle(figure)


def test_without_times_trials_stand_by_their_number() -> None:
    documents = [trial(n, float(n)) for n in range(3)]
    del documents[1]["end_time"]
    figure = history_figure(rows_of(documents))
    assert list(figure.data[0].x) == [1, 2, 3]
    assert figure.layout.xaxis.title.text == "trial"


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("make", [history_figure, parallel_figure, slice_figure])
def test_few_trials_make_a_figure(make: Any, count: int) -> None:
    figure = make(some(count))
    json.loads(figure.to_json())
    assert bool(figure.data) == bool(count)
    if not count:
        assert "No completed trial" in figure.layout.annotations[0].text


def test_the_best_so_far_is_a_line_of_steps() -> None:
    rows = rows_of(trial(n, value) for n, value in enumerate([5.0, 6.0, 3.0, 4.0, 2.0, 9.0]))
    figure = history_figure(rows)
    assert list(figure.data[1].y) == [5, 3, 2, 2]
    assert figure.data[1].line.shape == "hv"
    assert "best so far: 2" in figure.data[1].name
    upwards = history_figure(rows, PlotOptions(direction="maximize", by_number=True))
    assert list(upwards.data[1].y) == [5, 6, 9]
    assert list(upwards.data[1].x) == [1, 2, 6]
    assert list(best_so_far([2, 1, 3], "maximize")) == [2, 2, 3]


def test_many_trials_are_thinned_and_the_best_ones_stay() -> None:
    rows = some(10_500)
    best = rows_of([*(trial(n, 10.0 - n / 100, x=n) for n in range(500))])
    for make, most in ((history_figure, 10_000), (parallel_figure, 1_000)):
        figure = make(rows)
        assert f"{most:,} of 10,500" in subtitle(figure)
    slices = slice_figure(rows)
    points = [trace for trace in slices.data if len(trace.x) > 1]
    assert {trace.type for trace in points} == {"scattergl"}
    assert len(points) == 3
    assert sum(len(trace.x) for trace in points) <= 20_000
    kept = thin_rows(best.rows, 100, "minimize")
    assert len(kept) == 100
    assert kept[-1] is best.rows[-1]
    assert kept[0] is best.rows[0]
    assert [row.number for row in kept] == sorted(row.number for row in kept)
    assert thin_rows(best.rows, 100, "maximize")[0] is best.rows[0]


def test_scales() -> None:
    assert log_priors({"/lr": "loguniform(1,2)", "net": {"w": "reciprocal(1, 9)", "d": 3}}) == {
        "lr",
        "net.w",
    }
    assert is_log_scale([10.0**-n for n in range(6)])
    assert not is_log_scale([n / 1000 for n in range(1, 500)])  # uniform numbers near 0
    assert not is_log_scale([0.0, 1e-5, 1.0])
    log = make_axis("lr", [1e-3, 1e-1, 0, -1.0, math.nan], log=True)
    assert log.places == [-3, -1, None, None, None]
    assert log.lost == 3
    assert (-2, "0.01") in log.ticks
    near = make_axis("lr", [0.2, 0.4], log=True)
    assert [text for _, text in near.ticks] == ["0.2"]
    assert make_axis("lr", [1e-5, 1.0], linear=True).kind == "linear"
    assert make_axis("x", [10**400, 1]).places == [None, 1]
    assert make_axis("x", []).places == []
    steps = make_axis("width", [16, 32, 64, 16])
    assert [text for _, text in steps.ticks] == ["16", "32", "64"]
    missing = make_axis("alpha", [1.0, MISSING, 2.0])
    assert missing.ticks[0][1] == "(none)"
    assert missing.places[1] == missing.low < 1
    categories = make_axis("act", ["relu", True, "relu", 3, [1, 2], None, MISSING])
    assert categories.kind == "category"
    assert [text for _, text in categories.ticks] == [
        *("3", "(none)", "None", "True", "[1, 2]", "relu"),
    ]
    many = make_axis("file", [f"f{n}" for n in range(30)] * 2)
    assert many.ticks[-1] == (20.0, "10 others")


def test_outliers_do_not_take_the_axis() -> None:
    values = [1 + n / 10 for n in range(10)] * 2 + [1e6]
    assert outlier_limit(values, above=True) == pytest.approx(3.2, abs=0.3)
    assert outlier_limit(values, above=False) is None
    assert outlier_limit([-v for v in values], above=False) is not None
    rows = rows_of(trial(n, value, x=n) for n, value in enumerate(values))
    for figure in (history_figure(rows), slice_figure(rows)):
        assert re.search(r"1 above 3\.\d+ not in view", subtitle(figure))
        assert figure.layout.yaxis.range[1] < 4
    lines = parallel_figure(rows).data[0]
    assert lines.dimensions[-1].ticktext[-1].startswith("≥ 3")
    assert max(lines.dimensions[-1]["values"]) < 4
    higher = rows_of(trial(n, -value, x=n) for n, value in enumerate(values))
    options = PlotOptions(direction="maximize")
    assert "1 below" in subtitle(history_figure(higher, options))
    assert parallel_figure(higher, options).data[0].dimensions[-1].ticktext[-1].startswith("≤")


def test_parameters_that_some_trials_do_not_have() -> None:
    documents = [trial(n, n + 1.0, act="elu", x=n) for n in range(3)]
    documents += [trial(n + 3, n + 1.5, x=n, alpha=n + 0.5) for n in range(3)]
    rows = rows_of(documents)
    axes = {axis.label: axis for axis in parallel_figure(rows).data[0].dimensions}
    assert set(axes) == {"act", "x", "alpha", "loss"}
    assert "(none)" in axes["alpha"].ticktext
    assert "(none)" in axes["act"].ticktext
    traces = slice_figure(rows).data
    assert [len(trace.x) for trace in traces] == [3, 1, 6, 1, 3]  # the best one has no alpha


def test_a_log_scale_on_request_says_what_it_cannot_show() -> None:
    rows = rows_of(trial(n, float(n), x=n, y=-n) for n in range(4))
    options = PlotOptions(log=frozenset(["objective", "x"]), params=("x", "y"), label="loss (nats)")
    figure = history_figure(rows, options)
    assert "1 ≤ 0 not on this scale" in subtitle(figure)
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.title.text == "loss (nats) (log scale)"
    assert "1 not on these scales" in subtitle(parallel_figure(rows, options))
    slices = slice_figure(rows, PlotOptions(log=frozenset(["x"])))
    assert "x: 1 not on its scale" in subtitle(slices)
    assert slices.layout.xaxis.type == "log"
    below = rows_of([trial(1, -1.0), trial(2, -2.0)])
    options = PlotOptions(log=frozenset(["objective"]))
    for make in (history_figure, slice_figure, parallel_figure):
        assert not make(below, options).data
    assert history_figure(below, PlotOptions(linear=options.log)).data


def test_constant_parameters_are_not_shown_unless_asked_for() -> None:
    rows = rows_of(
        trial(n, float(n), seed=1, **dict[str, Any]({f"p{i}": n for i in range(20)}))
        for n in range(3)
    )
    assert "1 constant not shown" in subtitle(parallel_figure(rows))
    assert "the first 12 of 20 parameters" in subtitle(parallel_figure(rows))
    assert len(slice_figure(rows, PlotOptions(params=("seed",))).data) == 2
    assert (
        slice_figure(rows_of([trial(1, 1.0)])).layout.annotations[0].text.startswith("The trials")
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            PlotOptions(params=("lR",)),
            "no completed trial has a parameter 'lR'; there are: lr, net",
        ),
        (PlotOptions(log=frozenset(["no"])), "'no'"),
        (PlotOptions(log=frozenset(["lr"]), linear=frozenset(["lr"])), "both"),
    ],
)
def test_unknown_names_are_refused(options: PlotOptions, said: str) -> None:
    for make in (history_figure, parallel_figure, slice_figure):
        with pytest.raises(InvalidArgument, match=said):
            make(some(3), options)


def test_what_a_store_contains_is_no_markup_of_a_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\x1b[2J\u202e"
    documents = [trial(n, float(n), **{evil: evil if n % 2 else "b"}) for n in range(4)]
    for document in documents:
        document["id"] = document["results"][0]["name"] = evil
    builder = PlotRowsBuilder(evil)
    for document in documents:
        builder.add(document)
    rows = builder.build()
    figures = {"history": history_figure(rows), "slice": slice_figure(rows)}
    page = plot_page(evil, figures)
    assert "alert(1)</script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert axis_label("<b>\x1b") == "&lt;b&gt;\\x1b"
    assert len(axis_label("x" * 100)) == 27
    file = tmp_path / "page.html"
    write_page(file, evil, figures)
    assert file.read_text(encoding="utf-8") == page
    assert [*tmp_path.iterdir()] == [file]
    # plotly.js itself is in the page, and nothing is loaded
    assert len(page) > 3_000_000
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    with pytest.raises(FileNotFoundError):
        write_page(tmp_path / "no" / "page.html", evil, figures)


def test_a_missing_plotly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    with pytest.raises(ConfigurationError, match=r"aiostorage-orion\[plot\]"):
        history_figure(some(1))
