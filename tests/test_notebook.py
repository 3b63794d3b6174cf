"""What notebooks show: bars while a job runs, and the figures of its result."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.jobs.notebook import bars
from randprune.notebook import FIGURES, NotebookProgress
from randprune.report import plot as plots
from randprune.store import Latency

SETTINGS: dict[str, Any] = {
    "output": {"latency_seconds": 0.0},
    "budget": {"tolerance": 0.1},
    "finalists": {"count": 1},
}


class Handle:
    """Of what IPython displayed: keeps every drawing."""

    def __init__(self, pages: list[str]) -> None:
        self.pages = pages

    def update(self, shown: Any) -> None:
        self.pages.append(shown._repr_html_())


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is drawn in a stand-in for IPython with a kernel, drawing after drawing."""
    drawn: list[str] = []

    def display(shown: Any, *, display_id: bool) -> Handle:
        drawn.append(shown._repr_html_())
        return Handle(drawn)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return drawn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 3),
    ).eval()  # fmt: skip


def data() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(80) % 3


@pytest.fixture(scope="module")
def result() -> rp.PruneResult:
    return rp.prune(
        network(), data(), 0.5, candidates=6, task="classification",
        settings=SETTINGS,
    )  # fmt: skip


def timed(result: rp.PruneResult) -> rp.PruneResult:
    """The same result with latencies: all but the dense network take half of its time."""
    rows = tuple(
        replace(row, latency=(Latency((0.2, 0.2) if row.role == "dense" else (0.1, 0.1), 1),))
        for row in result.networks
    )
    return replace(result, networks=rows)


# -- progress --------------------------------------------------------------------------------------


def test_a_phase_has_a_bar_and_then_its_time(pages: list[str]) -> None:
    now = [0.0]
    progress = NotebookProgress(clock=lambda: now[0])
    progress.start("search", 10, 2, "Searching <10> networks")
    assert 'value="2" max="10"' in pages[-1]
    assert "Searching &lt;10&gt; networks" in pages[-1]
    now[0] = 8.0
    progress.advance("search", 6, {"best_top1": 0.5})
    assert 'value="6" max="10"' in pages[-1]
    assert "6 of 10, 0:08 left, best top1 50.0\u00a0%" in pages[-1]
    progress.advance("search", 7, {})  # at once: not drawn
    assert 'value="6" max="10"' in pages[-1]
    now[0] = 65.0
    progress.finish("search")
    assert 'value="10" max="10"' in pages[-1]
    assert "done in 1:05, best top1 50.0\u00a0%" in repr(progress)
    assert pages[-1].count("<tr>") == 1


def test_a_notebook_shows_bars_without_being_asked(pages: list[str]) -> None:
    found = rp.search(network(), data()[0], candidates=2, settings={"budget": {"tolerance": 0.1}})
    assert len(found) > 0
    assert "Evaluating the dense network" in pages[-1]
    assert pages[-1].count("done in") == pages[-1].count("<tr>") > 2
    count = len(pages)
    rp.search(
        network(), data()[0], candidates=2, settings={"budget": {"tolerance": 0.1}},
        progress=rp.jobs.Silent(),
    )  # fmt: skip
    assert len(pages) == count


def test_elsewhere_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert bars() is None
    terminal = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert bars() is None
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert bars() is None
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(InvalidInputError, match="NotebookProgress needs IPython"):
        NotebookProgress()


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_figure_is_drawn_with_colours(result: rp.PruneResult, name: str) -> None:
    figure = timed(result).plot(name)
    assert figure.layout.title.text
    text = figure.to_json()
    assert '"@' not in text
    assert len(figure.data) > 0


def test_the_figure_shows_the_numbers_of_the_result(result: rp.PruneResult) -> None:
    shown = [value for trace in result.plot().data for value in trace.x]
    assert sorted(shown) == sorted(row.test.share for row in result.networks if row.test)
    kept = next(trace for trace in result.plot("widths").data if trace.name == "after")
    assert list(kept.y) == result.widths.tolist()


def test_several_budgets_are_a_curve() -> None:
    found = rp.prune(
        network(), data(), [0.7, 0.5], candidates=2, strategy="random", task="classification",
        settings=SETTINGS,
    )  # fmt: skip
    line = found.plot().data[0]
    assert list(line.y) == [point.accuracy for point in found.curve]
    with pytest.raises(InvalidInputError, match=r"one of budgets\. Got 'widths'"):
        plots.plot(found, "widths")


def test_figures_that_cannot_be_drawn(
    result: rp.PruneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match=r"'figure' parameter of PruneResult.plot must be"):
        result.plot("no_such")
    with pytest.raises(InvalidInputError, match="too little for the figure 'proxy'"):
        replace(result, candidates=()).plot("proxy")

    def find(name: str) -> Any:
        return None if name == "plotly" else importlib.util.find_spec(name)

    monkeypatch.setattr(plots, "find_spec", find)
    with pytest.raises(InvalidInputError, match=r"pip install 'randprune\[notebook\]'"):
        result.plot()


# -- tables ----------------------------------------------------------------------------------------


def test_a_measured_speed_is_a_column(result: rp.PruneResult) -> None:
    assert "speed" not in result._repr_html_()
    page = timed(result)._repr_html_()
    assert page.count(">2.00x<") == len(result.networks) - 1
    assert page.count(">1.00x<") == 1
