"""Budgets of latency in whole jobs, with a runtime whose times are known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pruning_jobs import SETTINGS, digits, trained
from torch import nn

import randprune as rp
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.jobs import PruneResult, prune, prune_from_scratch
from randprune.jobs.on_time import MEASURED
from randprune.latency import runtimes
from randprune.latency.operators import Call
from randprune.recipe import PruneRecipe
from randprune.store import SEARCHED, UNIFORM


def layer_ms(inputs: int, outputs: int) -> float:
    """Channels in fours are cheap."""
    return inputs * outputs * (1.0 if inputs % 4 == outputs % 4 == 0 else 1.2)


@dataclass
class Padded:
    """A runtime that computes nothing; `flaws`: what other networks take, beside the table's."""

    name: ClassVar[str] = "padded"
    absorbs: ClassVar[frozenset[str]] = frozenset({"batch_norm", "relu"})
    profiles: ClassVar[bool] = True
    flaws: ClassVar[list[float]] = []
    jitter: ClassVar[list[float]] = []

    def version(self) -> str:
        return "1"

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Any:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        total = sum(layer_ms(m.weight.shape[1], m.weight.shape[0]) for m in layers)
        dense = layers[0].weight.shape[0] == 12
        flaw = self.flaws.pop(0) if self.flaws and not dense else 1.0
        return Takes(total * flaw, self.jitter)

    def operators_ms(self, calls: Sequence[Call], threads: int) -> Any:
        return np.array([layer_ms(call.inputs, call.outputs) for call in calls])


@dataclass
class Takes:
    milliseconds: float
    jitter: list[float]

    def clock(self, loops: int) -> float:
        return self.milliseconds

    def fastest(self, runs: int) -> float:
        return self.milliseconds * (self.jitter.pop(0) if self.jitter else 1.0)


@pytest.fixture(autouse=True)
def padded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RANDPRUNE_LATENCY", str(tmp_path / "times"))
    runtimes.register("padded")(Padded)
    yield
    runtimes.unregister("padded")
    Padded.flaws.clear()
    Padded.jitter.clear()


HALF = rp.Budget("latency", 0.5, tolerance=0.03, runtime="padded")


def half(budget: rp.Budget = HALF, settings: Any = None, **more: Any) -> PruneResult:
    chosen = {**SETTINGS, "finalists": {"count": 3, "recovery": "bn"}, **(settings or {})}
    chosen["budget"] = {"tolerance": budget.tolerance}
    return prune(trained(), digits(), budget, candidates=6, recovery="bn", settings=chosen, **more)


def true_ms(widths: Any) -> float:
    first, second = (int(w) for w in widths)
    return layer_ms(1, first) + layer_ms(first, second) + layer_ms(second * 4, 10)


@pytest.mark.parametrize("strategy", ["random", "uniform", "lagrangian", "evolution"])
def test_every_strategy_meets_a_latency(strategy: str) -> None:
    result = half(strategy=strategy)
    dense = true_ms((12, 16))
    assert true_ms(result.widths) / dense == pytest.approx(0.5, abs=0.04)
    winner = next(
        c for c in result.candidates if (c.method, c.index) == (SEARCHED, result.winner.index)
    )
    assert winner.costs["latency"] / dense == pytest.approx(0.5, abs=0.04)
    assert winner.costs[MEASURED] == pytest.approx(winner.costs["latency"], rel=0.03)
    both = f"{winner.costs[MEASURED]:.3g} ms measured, {winner.costs['latency']:.3g} ms predicted"
    assert any(both in note for note in result.notes)


def test_the_next_one_is_taken_where_measurement_says_more() -> None:
    first = half(strategy="random")
    ranked = first.winner.finalists
    # The table and its dozen networks are kept: the next networks are finalists.
    Padded.flaws[:] = [1.3]
    result = half(strategy="random")
    assert result.winner.index == ranked[1] != first.winner.index
    note = next(n for n in result.notes if "passed over" in n)
    assert f"Candidate {ranked[0]} was passed over: measured" in note
    assert "predicted" in note
    Padded.flaws[:] = [1.3, 1.2, 1.4]
    slow = half(strategy="random")
    assert slow.winner.index == ranked[1]
    assert any("No finalist keeps the budget" in n for n in slow.notes)


def test_a_machine_that_is_too_noisy_to_decide_is_told() -> None:
    half(strategy="random")
    Padded.jitter[:] = [1.0, 1.0, 1.0, 1.25]
    result = half(strategy="random")
    assert any("too noisy to decide" in n and "differ by 25%" in n for n in result.notes)


def test_a_resumed_job_goes_on_with_its_own_numbers(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = half(strategy="random", out=out)
    kept = list(out.glob("latency-*.json"))
    assert len(kept) == 1
    for file in (tmp_path / "times").rglob("*.json"):
        file.unlink()
    again = half(strategy="random", out=out)
    assert again.widths.tolist() == first.widths.tolist()
    assert not list((tmp_path / "times").rglob("*.json"))


def test_milliseconds_are_a_budget_too() -> None:
    recipe = PruneRecipe.parse({"budget": {"ms": 5.0, "runtime": "padded"}})
    assert (recipe.budget.metric, recipe.budget.budget(10.0).ratio) == ("latency", 0.5)
    with pytest.raises(InfeasibleBudgetError, match=r"12 ms is asked.*takes 10 ms"):
        PruneRecipe.parse({"budget": {"ms": 12.0}}).budget.budget(10.0)
    with pytest.raises(InvalidInputError, match=r"budget\.runtime goes with budget\.metric"):
        PruneRecipe.parse({"budget": {"runtime": "padded"}})
    with pytest.raises(InvalidInputError, match="go with the metric 'latency'"):
        rp.Budget("macs", 0.5, threads=2)
    with pytest.raises(InvalidInputError, match="'batch' parameter of Budget"):
        rp.Budget("latency", 0.5, batch=0)


def test_a_latency_below_what_any_width_reaches_gives_the_range() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"0\.01±0\.001 was asked.*\d+-\d+ ms\)"):
        half(rp.Budget("latency", 0.01, tolerance=0.001, runtime="padded"))


def test_a_runtime_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"No runtime is called 'padedd'.*'padded'"):
        half(rp.Budget("latency", 0.5, runtime="padedd"))


def test_networks_from_scratch_meet_a_latency_of_the_original() -> None:
    torch.manual_seed(0)
    result = prune_from_scratch(
        trained(),
        digits(),
        rp.Budget("latency", 0.6, tolerance=0.04, runtime="padded"),
        candidates=4,
        supernet=1,
        training=1,
        settings={
            "controls": {"pretrained": False, "dense": False, "random": False},
            "output": {"latency_seconds": 0.0},
            "search": {"precision": "float32", "batch_size": 100},
        },
    )
    assert true_ms(result.widths) / true_ms((12, 16)) == pytest.approx(0.6, abs=0.06)
    assert {row.role for row in result.networks} >= {SEARCHED, UNIFORM}


def test_the_step_of_widths_is_decided_by_the_network_and_recorded(tmp_path: Path) -> None:
    wide = nn.Sequential(
        nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(1024, 10)
    )
    settings = {**SETTINGS, "finalists": {"count": 1, "recovery": "none"}}
    found = {
        step: prune(wide, digits(), 0.5, "l1", 2, "none", settings=settings, round_to=step, out=out)
        for step, out in (("auto", tmp_path / "auto"), (8, tmp_path / "eight"))
    }
    assert all((result.configurations % 8 == 0).all() for result in found.values())
    assert found["auto"].recipe == found[8].recipe
    assert found["auto"].recipe.search.round_to == 8
    assert "round_to = 8" in (tmp_path / "auto" / "recipe.toml").read_text()
    assert half(strategy="random").recipe.search.round_to == 1
    paper = PruneRecipe.parse({"preset": "paper"})
    assert paper.search.round_to == 1
    with pytest.raises(InvalidInputError, match=r"search\.round_to"):
        PruneRecipe.parse({"search": {"round_to": "wide"}})
