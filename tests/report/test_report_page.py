"""The page is one sound HTML file that loads nothing and shows strangers' names as they are."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import synthetic_run as synthetic

from randprune.report import RunRecord, report_of
from randprune.report.chart import COLORS, Axis, Band, Bars, Chart, Line, Points, Rule
from randprune.report.document import Page, Section, Text
from randprune.report.html import render
from randprune.report.palette import CARD, GRID, INK, LINE, PALETTE
from randprune.report.plotly_chart import to_plotly
from randprune.report.png import to_png
from randprune.store import (
    Accuracy,
    Candidate,
    CostEntry,
    FrozenInfo,
    GroupInfo,
    ModelInfo,
    NetworkRow,
    Notes,
    Reproduce,
    Run,
    SpaceInfo,
)

VOID = {"meta", "br", "link", "img", "input", "hr"}
EVIL = "<img src=x onerror=alert(1)>\"'&</script><b>$x_1$"
ASSETS = Path(__file__).parents[2] / "src" / "randprune" / "report" / "assets"


class Checker(HTMLParser):
    """Collects tags, attributes and texts, and insists on properly closed elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append((self.tags[-1][1], data))
        else:
            self.texts.append(data)


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    ids = Counter(attrs["id"] for _, attrs in checker.tags if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attrs in checker.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        target = attrs.get("href", attrs.get("src"))
        assert target is None or target.startswith("#"), (tag, attrs)
        assert target is None or target[1:] in ids
        for reference in attrs.get("aria-labelledby", "").split():
            assert reference in ids
    return checker


def test_page_of_a_whole_run_is_sound_and_loads_nothing(finished: RunRecord) -> None:
    html = render(report_of(finished).page)
    checker = check(html)
    tags = Counter(tag for tag, _ in checker.tags)
    assert tags["h1"] == tags["main"] == tags["nav"] == tags["title"] == 1
    assert tags["link"] == tags["img"] == tags["iframe"] == 0

    policy = next(a["content"] for t, a in checker.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline'")
    assert "http" not in policy
    style, data, plotly, script = (text for _, text in checker.scripts)
    for text in (style, script):
        assert not re.search(r"https?:|//\w|@import|url\(", text.replace("// ", ""))
    assert 1_000_000 < len(plotly) < 1_300_000
    assert len(html) < 2_000_000
    assert "Licensed under the MIT license" in plotly[:300]
    assert "MIT" in (ASSETS / "plotly-basic.LICENSE.txt").read_text()
    assert html.count(plotly[:2000]) == 1
    # Plotly's own defaults would offer to upload figures; the page turns that off.
    assert "showSendToCloud: false" in script
    assert "displayModeBar: false" in script
    assert "http" not in data


def test_every_figure_has_its_place_its_text_and_its_data(finished: RunRecord) -> None:
    checker = check(render(report_of(finished).page))
    charts = json.loads(next(t for a, t in checker.scripts if a.get("id") == "charts"))
    places = {a["data-chart"]: a for _, a in checker.tags if "data-chart" in a}
    assert set(places) == set(charts) == {chart.id for chart in report_of(finished).page.charts}
    assert len(charts) == 11
    for attrs in places.values():
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"]) > 15
    # Tables have a caption, headed columns, and rows that name what they are about.
    tags = Counter(tag for tag, _ in checker.tags)
    assert tags["caption"] == tags["table"] == tags["thead"] > 5
    assert all("scope" in attrs for tag, attrs in checker.tags if tag == "th")


def test_strangers_names_are_shown_not_run(run: Run) -> None:
    synthetic.begin(run, title=EVIL)
    groups = tuple(GroupInfo(f"{EVIL}{i}", 8) for i in range(2))
    run.write(SpaceInfo("f", groups, (FrozenInfo(EVIL, 1, 2, EVIL),)))
    for i in range(4):
        scores = {"search_top1": 0.5 + i / 10, "proxy": float(i), EVIL: 1.0}
        run.record_candidate(
            Candidate(i, (4, 5), scores=scores, costs={"macs": 1e6 + i, EVIL: 2.0}, error=EVIL)
        )
    run.record_candidate(Candidate(0, (4, 4), EVIL, scores={"search_top1": 0.4}))
    for label in (EVIL, "_hidden", "--c:red"):
        run.put_network(
            NetworkRow(label, label, "repaired", test=Accuracy(5, 10), macs=3.0, error=EVIL)
        )
        run.record_epoch(label, 1, {"train_loss": 1.0, EVIL: 2.0})
    run.add_cost(CostEntry(EVIL, seconds=1.0, device=EVIL))
    run.write(ModelInfo(EVIL, EVIL, EVIL, EVIL, images={EVIL: 3}))
    run.write(Notes((EVIL,)))
    run.write(Reproduce(EVIL, EVIL, EVIL))
    run.fail(EVIL)
    record = RunRecord.of(run)

    html = render(report_of(record).page)
    checker = check(html)
    assert [tag for tag, _ in checker.tags if tag in ("img", "b")] == []
    assert sum(EVIL in text for text in checker.texts) > 10
    charts = json.loads(next(t for a, t in checker.scripts if a.get("id") == "charts"))
    assert "<img" not in json.dumps(charts)
    assert "&lt;img" in json.dumps(charts)
    styles = [attrs["style"] for _, attrs in checker.tags if "style" in attrs]
    assert all(re.fullmatch(r"min-height:\d+px|--c:var\(--\w*\)", style) for style in styles)


def test_hostile_names_can_be_drawn_as_png() -> None:
    names = (EVIL, "_hidden", "层一", "$\\frac{", "a\nb")
    chart = Chart(
        "c",
        EVIL,
        EVIL,
        Axis(EVIL, kind="category"),
        Axis("$y$"),
        (
            Bars(EVIL, names, [1, 2, 3, 4, 5], "searched"),
            Points("_hidden", names, [1, 2, 3, 4, 5], "uniform", "dash"),
        ),
    )
    assert to_png(chart).startswith(b"\x89PNG")


def every_mark() -> Chart:
    return Chart(
        "all",
        "All marks",
        "Every kind of mark.",
        Axis("n", kind="log", whole=True),
        Axis("share", percent=True, span=(0, 1)),
        (
            Band("band", [1, 2, 4], [0.1, 0.2, 0.3], [0.3, 0.4, 0.5], "searched"),
            Line("line", [1, 2, 4], [0.2, 0.3, 0.4], "uniform", dashed=True, step=True),
            Line("marked", [1, 2, 4], [0.5, 0.3, 0.4], "series_1", markers=True),
            Bars("bars", [1, 2, 4], [0.2, 0.3, 0.4], "muted", width=0.2, labels=["a", "b", "c"]),
            Points("points", [1, 2], [0.5, 0.6], "dense", low=[0.4, 0.5], high=[0.6, 0.8]),
            Points("hollow", [1, 2], [0.5, 0.6], "candidate", "star", hollow=True, legend=False),
            Rule("rule", 0.7, "random_channels", horizontal=True, dashed=True),
            Rule("upright", 2, "searched"),
        ),
    )


def down_the_side() -> Chart:
    return Chart(
        "forest",
        "Names down the side",
        "Intervals along x.",
        Axis("difference"),
        Axis("", kind="category"),
        (
            Points("a", [0.1], ["first"], "searched", low=[0.0], high=[0.3], horizontal=True),
            Points("b", [0.2], ["second"], "uniform", low=[0.1], high=[0.25], horizontal=True),
            Bars("c", ["third"], [0.2], "uniform", horizontal=True),
        ),
    )


def plotly_figure(chart: Chart) -> Any:
    """The chart as Plotly's own validated object, with a colour in place of every name."""
    text = json.dumps(to_plotly(chart), allow_nan=False)
    names = set(re.findall(r'"@(\w+)(?:/[\d.]+)?"', text))
    assert names <= {*COLORS, "ink", "grid", "line", "card"}
    return go.Figure(json.loads(re.sub(r'"@\w+(?:/[\d.]+)?"', '"#123456"', text)))


def test_charts_are_valid_plotly_figures(finished: RunRecord) -> None:
    for chart in (*report_of(finished).page.charts, every_mark(), down_the_side()):
        figure = plotly_figure(chart)
        drawn = len(figure.data) + len(figure.layout.shapes)
        bands = sum(isinstance(mark, Band) for mark in chart.marks)
        assert drawn == len(chart.marks) + bands


def test_error_bars_lie_where_they_belong() -> None:
    upright, flat = plotly_figure(every_mark()), plotly_figure(down_the_side())
    points = next(trace for trace in upright.data if trace.name == "points")
    assert points.error_y.array == pytest.approx((0.1, 0.2))
    assert points.error_y.arrayminus == pytest.approx((0.1, 0.1))
    assert points.error_x.array is None
    assert flat.data[0].error_x.array == pytest.approx((0.2,))
    assert flat.data[0].error_x.arrayminus == pytest.approx((0.1,))
    assert flat.data[0].error_y.array is None


@pytest.mark.parametrize(("highest", "step"), [(9e9, "D2"), (9e12, None)])
def test_few_decades_are_not_labelled_at_every_digit(highest: float, step: str | None) -> None:
    line = Line("line", [2e9, highest], [0.1, 0.2], "searched")
    chart = Chart("c", "C", "C.", Axis("MACs", kind="log", large=True), Axis("y"), (line,))
    assert to_plotly(chart)["layout"]["xaxis"].get("dtick") == step


@pytest.mark.parametrize("chart", [every_mark(), down_the_side()], ids=lambda chart: chart.id)
def test_every_mark_is_drawn_as_png(chart: Chart) -> None:
    narrow, wide = to_png(chart), to_png(replace(chart, wide=True))
    assert [int.from_bytes(image[16:20], "big") for image in (narrow, wide)] == [1200, 1600]
    assert to_png(chart) == narrow


def css_colors(text: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", text))


def test_page_and_png_use_the_same_colors_and_the_dark_scheme_has_them_all() -> None:
    css = (ASSETS / "page.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("\n}\n")]
    assert {name: css_colors(light)[name] for name in COLORS} == PALETTE
    assert [css_colors(light)[name] for name in ("ink", "grid", "line", "card")] == [
        INK, GRID, LINE, CARD,
    ]  # fmt: skip
    assert set(css_colors(dark)) == set(css_colors(light))


def contrast(a: str, b: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_and_marks_stand_out_in_both_schemes() -> None:
    css = (ASSETS / "page.css").read_text()
    for scheme in css.split("@media (prefers-color-scheme: dark)"):
        color = css_colors(scheme[: scheme.index("\n}\n")])
        for text in ("ink", "soft", "link"):
            assert contrast(color[text], color["card"]) >= 4.5
            assert contrast(color[text], color["bg"]) >= 4.5
        for mark in ("dense", "searched", "uniform", "random_channels", "series_1", "series_6"):
            assert contrast(color[mark], color["card"]) >= 3


def test_page_of_another_kind_needs_no_run() -> None:
    page = Page("Bench", "A benchmark", "No clear winner", ("finished", "good"), ())
    html = render(replace(page, sections=(Section("a", "A", (Text("Only words."),)),)))
    check(html)
    assert len(html) < 40_000  # no figure, so no Plotly
    assert "Only words." in html


def test_tables_of_csv_have_unique_names(finished: RunRecord) -> None:
    names = [table.id for table in report_of(finished).csv]
    assert len(names) == len(set(names)) == 6


def test_all_that_pages_are_made_of_is_part_of_the_package() -> None:
    root = ASSETS.parents[3]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["randprune.report"]
    report = ASSETS.parent
    files = {
        path for path in report.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    shipped = {path for pattern in patterns for path in report.glob(pattern)}
    assert {path for path in files if path.suffix != ".py"} <= shipped
    assert {path.suffix for path in shipped} == {".css", ".js", ".html", ".txt"}
