"""What only some users need is an extra: without it the rest works, and the error names it."""

from __future__ import annotations

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import randprune.executors.on_ray as on_ray
import randprune.report.write as report_write
import randprune.zoo.vision as vision
from randprune.bench.keys import Row
from randprune.errors import InvalidInputError
from randprune.testing import write_bench_run
from randprune.zoo.models import build_model


@pytest.fixture
def only_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither timm nor matplotlib seem to be installed."""

    def find(name: str) -> ModuleSpec | None:
        return None if name in ("timm", "matplotlib") else importlib.util.find_spec(name)

    monkeypatch.setattr(vision, "find_spec", find)
    monkeypatch.setattr(report_write, "find_spec", find)


def test_networks_of_timm_name_the_extra(only_the_core: None) -> None:
    with pytest.raises(InvalidInputError, match=r"pip install 'randprune\[timm\]'"):
        build_model("timm:resnet18")


def test_a_report_without_matplotlib_has_no_figures_and_says_so(
    only_the_core: None, run: Any, tmp_path: Path
) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): -0.02}
    write_bench_run(tmp_path, effects, draws=2)
    code, out, err = run("report", str(tmp_path))
    assert code == 0, err
    assert "pip install 'randprune[figures]'" in out
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "figures").exists()
    code, out, _ = run("report", str(tmp_path), "--json")
    assert code == 0
    assert json.loads(out)["figures"] == []


def test_a_benchmark_on_ray_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, run: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    code, _, err = run("bench", "smoke", "--executor", "ray", "--quiet", "--out", str(tmp_path))
    assert code == InvalidInputError.exit_code
    assert "pip install 'randprune[ray]'" in err
