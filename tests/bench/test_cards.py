"""Cards: what the best of n random networks will be, and whether new draws keep to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from randprune.bench.cards import level_of, make_card
from randprune.bench.pools import Pool, Worth
from randprune.bench.stats import below, predicted_best
from randprune.cli.app import app, main
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.recipe import PruneRecipe
from randprune.tasks import ACCURACY
from randprune.training import TrainRecipe, train
from randprune.zoo import build_model, load_data


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that was trained a little, so that its sub-networks differ."""
    torch.manual_seed(0)
    data = load_data("digits", calibration=100, search=200)
    how = TrainRecipe(epochs=2, lr=0.1, batch_size=64, precision="float32")
    result = train(build_model("randprune:digits_cnn"), data.full_train, how)
    path = tmp_path_factory.mktemp("card") / "weights.pt"
    torch.save(result.model.state_dict(), path)
    return path


def recipe(weights: Path, **changes: Any) -> PruneRecipe:
    document = {
        "model": {"spec": "randprune:digits_cnn", "weights": str(weights)},
        "data": {"spec": "digits", "calibration": 100, "search": 200},
        "search": {"candidates": 40, "precision": "float32"},
        "budget": {"ratio": 0.5},
        "output": {"folder": "unused"},
    }
    return PruneRecipe.parse({**document, **changes})


def test_probabilities_of_order_statistics() -> None:
    np.testing.assert_allclose(below(4, 1), [1 / 5, 2 / 5, 3 / 5, 4 / 5])
    np.testing.assert_allclose(below(1, 3), [1 / 4])  # the largest of four is not the first one
    assert (np.diff(below(50, 7)) > 0).all()
    with pytest.raises(InvalidInputError, match="at least 1"):
        below(0, 1)


@pytest.mark.parametrize("draw", [np.random.Generator.normal, np.random.Generator.exponential])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_new_draws_keep_to_what_was_predicted(draw: Callable[..., np.ndarray], n: int) -> None:
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(2000):
        low, high = predicted_best(draw(rng, size=400), n)
        assert low is not None
        assert high is not None
        held += low < draw(rng, size=n).max() <= high
    assert 0.88 < held / 2000 < 0.97


def test_too_few_draws_give_no_end() -> None:
    low, high = predicted_best(np.arange(10.0), 1)
    assert (low, high) == (None, None)
    low, high = predicted_best(np.arange(30.0), 10)
    assert low is not None
    assert high is None
    level = level_of(Pool(0.5, np.arange(30.0), np.arange(30.0), None, (), ACCURACY))
    assert [best.mean is None for best in level.best] == [False, False, True]


def test_a_card_holds_for_new_draws_of_the_same_network(weights: Path, tmp_path: Path) -> None:
    """Other configurations, drawn with another seed; channels, repair and images are the same."""
    card = make_card(recipe(weights), tmp_path / "card")
    (level,) = card.levels
    assert card.images == 200
    assert len(level.pool.scores) == 40
    assert isinstance(level.pool.uniform, Worth)
    assert np.median(level.pool.scores) < card.dense
    again = make_card(recipe(weights), tmp_path / "card")
    assert np.array_equal(again.levels[0].pool.scores, level.pool.scores)
    fresh = make_card(recipe(weights, seed=1), tmp_path / "fresh").levels[0].pool.scores
    one = level.best[0]
    assert one.low is not None
    assert one.high is not None
    assert np.mean((fresh >= one.low) & (fresh <= one.high)) > 0.75


def test_on_the_command_line(weights: Path, tmp_path: Path) -> None:
    arguments = [
        "card", "randprune:digits_cnn", "--weights", str(weights), "--data", "digits",
        "--budget", "0.7,0.5", "-n", "25", "--out", str(tmp_path), "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [level["ratio"] for level in found["levels"]] == [0.7, 0.5]
    assert all(len(level["scores"]) == 25 for level in found["levels"])
    page = (tmp_path / "card.md").read_text()
    assert "| 70.0\u00a0% | 25 |" in page
    assert json.loads((tmp_path / "card.json").read_text())["levels"] == found["levels"]


def test_latency_is_no_exact_cost(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Use the metric macs or params"):
        make_card(recipe(weights, budget={"metric": "latency"}), tmp_path)


def test_a_budget_out_of_reach_begins_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "card", "randprune:digits_cnn", "--weights", str(weights), "--data", "digits",
        "--budget", "0.5,0.0001", "-n", "5", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main(arguments) == InfeasibleBudgetError.exit_code
    assert "can be reached" in capsys.readouterr().err
    assert not (tmp_path / "out" / "card.md").exists()
