"""Global ranking: which channels go when the scores of all groups are in one list."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from randprune.bench.methods.base import Limits
from randprune.bench.methods.global_ranking import ranked_widths
from randprune.cost import Budget
from randprune.graph.trace import trace
from randprune.space import Space

SCALE = 1000.0


@pytest.fixture(scope="module")
def space() -> Space:
    """Two groups of 8 and 12 channels, whose parameters are theirs alone: 2 and 3 a channel."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU(),
                          nn.Conv2d(12, 2, 1))  # fmt: skip
    return trace(model, torch.zeros(1, 1, 4, 4))


def scores(*scales: float) -> list[Tensor]:
    """The same spread of scores in both groups, at these scales."""
    return [
        torch.linspace(1.0, 2.0, width, dtype=torch.float64) * scale
        for width, scale in zip((8, 12), scales, strict=True)
    ]


def widths(space: Space, norm: str, *scales: float) -> list[int]:
    budget, limits = Budget("macs", 0.5, 0.08), Limits(0.1, 1)
    found = ranked_widths(space, budget, limits, scores(*scales), norm)
    assert budget.fits(space.cost("macs"), found)
    return found.tolist()


@pytest.mark.parametrize("norm", ["l2", "mean", "max"])
@pytest.mark.parametrize("scales", [(SCALE, 1.0), (1.0, SCALE), (SCALE, SCALE)])
def test_a_divided_score_forgets_its_groups_scale(
    norm: str, scales: tuple[float, float], space: Space
) -> None:
    assert widths(space, norm, *scales) == widths(space, norm, 1.0, 1.0)


def test_undivided_scores_cut_the_group_of_smaller_ones(space: Space) -> None:
    first, second = widths(space, "none", 1.0, SCALE)
    assert first < 8
    assert second == 12
    first, second = widths(space, "none", SCALE, 1.0)
    assert first == 8
    assert second < 12


@pytest.mark.parametrize(("norm", "statistic"), [
    ("l2", np.linalg.norm), ("mean", np.mean), ("max", np.max),
])  # fmt: skip
def test_the_lowest_divided_scores_go(norm: str, statistic: object, space: Space) -> None:
    """What is kept are the highest of all divided scores, whatever the threshold."""
    raw = [torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 1]), torch.linspace(4.0, 5.0, 12)]
    budget, limits = Budget("macs", 0.5, 0.08), Limits(0.1, 1)
    kept = ranked_widths(space, budget, limits, raw, norm)
    divided = [np.sort(group.numpy() / statistic(group.numpy()))[::-1] for group in raw]  # type: ignore[operator]
    for own, other, here, there in ((0, 1, kept[0], kept[1]), (1, 0, kept[1], kept[0])):
        if here < len(divided[own]) and there > 1:
            assert divided[own][here] <= divided[other][there - 1]
