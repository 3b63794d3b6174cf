"""Configurations that were published, and where they lie among random ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import randprune as rp
from randprune.bench.configurations import (
    Configuration,
    configurations_in,
    published_configurations,
)
from randprune.bench.placing import Placed, place
from randprune.cli.app import app, main
from randprune.errors import InvalidInputError
from randprune.recipe import PruneRecipe
from randprune.space import Space
from randprune.training import TrainRecipe, train
from randprune.zoo import build_model, load_data

DOCUMENT: dict[str, Any] = {
    "model": {"spec": "randprune:digits_cnn"},
    "data": {"spec": "digits", "calibration": 100, "search": 200},
    "search": {"candidates": 12, "precision": "float32"},
    "output": {"folder": "unused"},
}
HALF = Configuration(name="half", cut=(("*.conv1", 0.5),))
BAD = Configuration(name="thin", keep={"conv1": 1})


@pytest.fixture(scope="module")
def resnet56() -> Space:
    return rp.trace(build_model("randprune:resnet56"), torch.zeros(1, 3, 32, 32))


def recipe(tmp_path: Path, **changes: Any) -> PruneRecipe:
    """A network that was trained a little, so that configurations differ."""
    torch.manual_seed(0)
    network = build_model("randprune:digits_cnn")
    data = load_data("digits", calibration=100, search=200)
    how = TrainRecipe(epochs=1, lr=0.1, batch_size=64, precision="float32")
    weights = tmp_path / "weights.pt"
    torch.save(train(network, data.full_train, how).model.state_dict(), weights)
    model = {**DOCUMENT["model"], "weights": str(weights)}
    return PruneRecipe.parse({**DOCUMENT, "model": model, **changes})


@pytest.mark.parametrize(
    ("name", "share"),
    [
        # By the authors' own counts, of 125.5 to 127.6 M; shortcuts of theirs are cut otherwise.
        ("ABCPruner", 58.54 / 127.62),
        ("L1 filters, ResNet-56-B", 90.9 / 125.49),
        ("CHIP, 47 % fewer", 65.94 / 125.49),
        ("CHIP, 74 % fewer", 34.78 / 125.49),
        ("HRankPlus, 28 % fewer", 90.35 / 125.49),
    ],
)
def test_published_ones_cost_about_what_their_authors_say(
    resnet56: Space, name: str, share: float
) -> None:
    (configuration,) = [c for c in published_configurations("resnet56") if c.name == name]
    cost = resnet56.cost("macs")
    found = float(cost(configuration.widths(resnet56))) / cost.dense
    tied = "tie" in configuration.note or "hand on" in configuration.note
    assert abs(found - share) < (0.04 if tied else 0.01)
    assert configuration.source


def test_every_published_one_says_where_it_is_from() -> None:
    every = published_configurations()
    assert len({c.name for c in every}) == len(every) >= 5
    assert all(c.source and c.chosen and c.model and c.data for c in every)


def test_patterns_shares_and_counts(resnet56: Space) -> None:
    names = [group.name for group in resnet56.groups]
    made = Configuration(
        name="mine",
        cut=(("layer1.*.conv1", 0.1), ("layer1.0.conv1", 0.5)),
        keep={"conv1": 9},
    )
    widths = dict(zip(names, made.widths(resnet56).tolist(), strict=True))
    assert widths["layer1.0.conv1"] == 8, "the later pattern counts"
    assert widths["layer1.1.conv1"] == 14
    assert widths["conv1"] == 9
    assert widths["layer3.0.conv1"] == 64


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cut": (("layer9.*", 0.5),)}, "for groups like 'layer9.*', of which the network has 0"),
        ({"cut": (("layer1.*.conv1", (0.5, 0.5)),)}, "gives 2 for groups .* has 9"),
        ({"keep": {"conv9": 3}}, "'conv9', which is not in the network"),
        ({"keep": {"conv1": 17}}, "keeps 17 channels of the group 'conv1', which has 16 channels"),
    ],
)
def test_configurations_of_other_networks(
    resnet56: Space, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Configuration(name="wrong", **fields).widths(resnet56)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no configurations. Write one as"),
        ("[[configuration]]\nname = 'a'\nkeep = { conv1 = 0 }\n", "greater than or equal to 1"),
        ("[[configuration]]\nname = 'a'\ncut = [['conv1', 1.5]]\n", "less than 1"),
        ("[[configuration]]\nkeep = { conv1 = 3 }\n", "Field required"),
        ("[[configuration]]\nname = 'a'\nwidth = 3\n", "Extra inputs"),
        ("configuration", "holds no configurations"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        configurations_in(path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        configurations_in(tmp_path / "none.toml")


def same(first: Placed, second: Placed) -> bool:
    one, other = first.pool, second.pool
    return (first.worth, one.ratio, one.uniform) == (second.worth, other.ratio, other.uniform) and (
        np.array_equal(one.values, other.values) and np.array_equal(one.scores, other.scores)
    )


def test_a_sound_one_beats_a_thin_one_and_nothing_is_done_twice(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    folder = tmp_path / "whole"
    half, thin = place(asked, [HALF, BAD], folder)
    assert 0.5 < half.pool.ratio < 0.9
    assert len(half.pool.values) == 12
    assert half.beaten > thin.beaten == 0
    low, high = half.interval
    assert low <= half.share <= high
    # Interrupted after the first configuration, and in the middle of the second.
    other = tmp_path / "parts"
    halves = place(asked, [HALF, BAD], other)
    assert same(next(halves), half)
    halves.close()

    class Stop:
        """Raises at the sixth candidate of the second configuration."""

        def start(self, phase: str, total: int, done: int, text: str) -> None:
            self.text = text

        def advance(self, phase: str, done: int, metrics: Any) -> None:
            if self.text.startswith("thin: 13") and done == 6:
                raise KeyboardInterrupt

        def finish(self, phase: str) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        list(place(asked, [HALF, BAD], other, progress=Stop()))
    again = list(place(asked, [HALF, BAD], other))
    assert same(again[0], half)
    assert same(again[1], thin)


def test_on_the_command_line(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    mine = tmp_path / "mine.toml"
    mine.write_text('[[configuration]]\nname = "half"\ncut = [["*.conv1", 0.5]]\n')
    out = tmp_path / "out"
    arguments = [
        "place", "randprune:digits_cnn", "--weights", str(asked.network.weights),
        "--data", "digits", "-c", str(mine), "-n", "5", "--out", str(out), "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["configurations"]
    assert (row["name"], row["random"]) == ("half", 5)
    with (out / "placed.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert int(line["beaten"]) == row["beaten"]
    shown = CliRunner().invoke(app, arguments)
    assert f"{row['beaten']} of 5" in shown.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "No configuration of 'digits_cnn' is listed (there are some of resnet56)"),
        (("-c", "CHIP"), "No configuration of 'digits_cnn' is called 'CHIP'. There are: none"),
    ],
)
def test_names_that_are_not_listed(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "place",
        "randprune:digits_cnn",
        "--data",
        "digits",
        *options,
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == InvalidInputError.exit_code
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_network_has_to_be_smaller(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'whole' cuts nothing"):
        list(place(recipe(tmp_path), [Configuration(name="whole")], tmp_path / "out"))


def test_any_network_takes_patterns() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3))
    space = rp.trace(network, torch.zeros(1, 3, 8, 8))
    assert Configuration(name="all", cut=(("*", 0.9),)).widths(space).tolist() == [1]
