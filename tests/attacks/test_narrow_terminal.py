"""A terminal of 40 columns: every number whole, every name there, nothing beyond the edge."""

from __future__ import annotations

import io
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacked import EXAMPLE, network
from rich.cells import cell_len
from rich.console import Console
from torch import nn

import randprune as rp
from randprune.bench.keys import Row
from randprune.cli import inspect
from randprune.cli.console import output, table
from randprune.cli.progress import bars
from randprune.cli.report import print_report
from randprune.report import report_of
from randprune.store import RunKey, Store
from randprune.testing import write_bench_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))

import synthetic_run as synthetic

COLUMNS = 40
KEY = RunKey("prune", {"budget": 0.5}, 0, "a4f9137be5a20d11", "w1", "d1")


class Terminal(io.StringIO):
    """Takes what is printed, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any], int], str]:
    """What a call prints in a terminal of so many columns, without colours."""
    for name, value in (("TERM", "xterm"), ("NO_COLOR", "1"), ("LINES", "50")):
        monkeypatch.setenv(name, value)

    def call_in(call: Callable[[], Any], columns: int) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with monkeypatch.context() as patched:
            terminal = Terminal()
            patched.setattr(sys, "stdout", terminal)
            call()
        return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())

    return call_in


def numbers(text: str) -> set[str]:
    """Words with a digit in them."""
    return {word.strip("(),") for word in text.split() if re.search(r"\d", word)}


def assert_same_numbers(shown: Any, call: Callable[[], Any]) -> str:
    """Every number of a wide terminal is whole in the narrow one too."""
    wide, narrow = shown(call, 400), shown(call, COLUMNS)
    assert max(cell_len(line.rstrip()) for line in narrow.splitlines()) <= COLUMNS
    assert {n for n in numbers(wide) if len(n) < 20} <= numbers(narrow)
    return str(narrow)


def test_the_table_of_a_job(shown: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.run(KEY, synthetic.MADE_WITH) as run:
        synthetic.begin(run)
        synthetic.search(run)
        synthetic.evaluate(run)
    narrow = assert_same_numbers(shown, lambda: print_report(report_of(tmp_path)))
    assert "Network: uniform" in narrow.replace("\n", " ")
    assert "fine-tuned: 9" in narrow


def test_the_leaderboard_of_a_benchmark(shown: Any, tmp_path: Path) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("random_search", "l2"): -0.02}
    write_bench_run(tmp_path, effects, draws=3, training_sd=0.01)
    narrow = assert_same_numbers(shown, lambda: print_report(report_of(tmp_path)))
    assert "random search" in narrow


def test_the_groups_of_a_network(shown: Any) -> None:
    space = rp.trace(nn.Sequential(OrderedDict(layers_of_a_long_name=network())), EXAMPLE)
    document = inspect.describe("attacked:network", space, 0.1, 1)
    narrow = assert_same_numbers(shown, lambda: inspect._print(document, space, None))
    assert "saves up to: " in narrow


def test_a_table_that_fits_stays_a_table(shown: Any) -> None:
    made = table(["name", ">share"], [["layer1.0.conv1", "12.3 %"], ["layer2", "4.5 %"]])
    printed = shown(lambda: output().print(made), COLUMNS).splitlines()
    assert [line.split() for line in printed] == [
        ["name", "share"],
        ["layer1.0.conv1", "12.3", "%"],
        ["layer2", "4.5", "%"],
    ]


@pytest.mark.parametrize("columns", [30, COLUMNS, 60, 80, 100, 160])
def test_bars_show_steps_and_time_and_no_half_number(columns: int) -> None:
    def terminal() -> Console:
        return Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)

    console = terminal()
    with bars(console) as running:
        for phase, text, total in (
            ("train", "Training a network to prune for 6 epochs", 600),
            ("search", "Searching 1,000 configurations", 1000),
        ):
            running.start(phase, total, 0, text)
            running.advance(phase, 3, {"best_top1": 0.9875, "loss": 0.064071})
        running.finish("train")
        page = terminal()
        page.print(running._bars.get_renderable())
        lines = page.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2, lines
    for line, steps in zip(lines, ("600/600", "3/1000"), strict=True):
        assert cell_len(line.rstrip()) <= columns
        assert steps in line
        assert re.search(r"\d:\d\d", line) or steps == "3/1000"
        assert not re.search(r"[\d.]…", line), line
    assert ("98.8" in lines[0]) == (columns >= 80)
    assert ("0.06407" in lines[0]) == (columns >= 160)
