"""The step that the rule takes, by the widths of networks alone."""

from __future__ import annotations

import pytest
from quadratic_spaces import make_space, resnet50

from randprune.strategies.steps import step_for


@pytest.mark.parametrize(
    ("widths", "step"),
    [
        ([12, 16], 1),  # digits
        ([16] * 9 + [32] * 9 + [64] * 9, 1),  # ResNet-20, ResNet-56
        ([64, 64, 64], 8),
        ([127, 127], 8),
        ([128, 128], 16),
        ([16, 24, 32, 144, 192, 576, 1280], 16),  # MobileNet-V2
        ([], 1),
    ],
)
def test_half_of_the_groups_keep_eight_widths(widths: list[int], step: int) -> None:
    assert step_for(make_space(widths)) == step


def test_a_wide_network() -> None:
    assert step_for(resnet50()) == 16
