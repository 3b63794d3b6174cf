"""Greedy elimination against explicit least squares, channel by channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import randprune as rp
from randprune.criteria.reconstruction import Reconstruction
from randprune.recovery.collect import collect_moments
from randprune.recovery.elimination import Elimination, eliminate
from randprune.recovery.inverses import Inverses
from randprune.recovery.replay import detached_tensors

Matrix = npt.NDArray[np.float64]
EVERYWHERE = 10_000


class Three(nn.Module):
    """A convolution whose channels two layers read: a strided one with a norm, and a 1x1 one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.c = nn.Conv2d(6, 3, 1)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        b, c = F.relu(self.norm(self.b(x))), F.relu(self.c(x))
        return self.head(torch.cat([b.mean((2, 3)), c.mean((2, 3))], dim=1))


def network() -> nn.Module:
    torch.manual_seed(0)
    made = Three().eval()
    made.norm.running_var.uniform_(0.2, 2.0)
    nn.init.uniform_(made.norm.weight, -1.0, 2.0)
    return made


def images(count: int = 60) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def residual(rows: Matrix, target: Matrix, columns: list[int]) -> float:
    """Mean squared error of the best affine map, summed over outputs."""
    design = np.concatenate([rows[:, columns], np.ones((len(rows), 1))], axis=1)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.square(target - design @ solution).sum() / len(rows))


def brute_force(readers: list[tuple[Matrix, Matrix, int]], width: int) -> tuple[list[int], Matrix]:
    """Order and errors by solving every problem anew; readers: (rows, targets, taps)."""
    left, order, errors = list(range(width)), [], [0.0]
    while left:
        found = {}
        for gone in left:
            stay = [j for j in left if j != gone]
            total = 0.0
            for rows, target, taps in readers:
                columns = [j * taps + t for j in stay for t in range(taps)]
                variance = np.square(target - target.mean(0)).sum() / len(target)
                total += residual(rows, target, columns) / variance
            found[gone] = total
        best = min(found, key=lambda j: found[j])
        left.remove(best)
        order.append(best)
        errors.append(found[best])
    return order, np.array(errors[::-1])


def test_order_and_errors_are_those_of_explicit_least_squares() -> None:
    made, x = network(), images()
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x], positions=EVERYWHERE)
    found = eliminate(space, Inverses(moments, 0.0), detached_tensors(made))
    with torch.no_grad():
        a = F.relu(made.a(x))
        b = F.unfold(a, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1).double().numpy()
        c = a.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        slope = made.norm.weight / (made.norm.running_var + 1e-5).sqrt()
        b_weight = (made.b.weight * slope[:, None, None, None]).flatten(1).double().numpy()
        c_weight = made.c.weight.flatten(1).double().numpy()
    order, errors = brute_force([(b, b @ b_weight.T, 9), (c, c @ c_weight.T, 1)], 6)
    place = [group.name for group in space.groups].index("a")
    assert found[place].exact
    assert found[place].order.tolist() == order
    np.testing.assert_allclose(found[place].errors, errors, rtol=1e-3, atol=1e-5)
    # Everything cut: only the constant is left, for both layers.
    assert found[place].errors[0] == pytest.approx(2.0, rel=1e-3)


def test_scores_rank_as_the_elimination_does() -> None:
    made, x = network(), images()
    space = rp.trace(made, x[:1])
    scores = rp.score(made, space, Reconstruction(), [(x, torch.zeros(len(x)))])
    moments = collect_moments(made, space, [x])
    found = eliminate(space, Inverses(moments), detached_tensors(made))
    for values, elimination in zip(scores, found, strict=True):
        in_order = values[torch.from_numpy(elimination.order)]
        assert bool((in_order.diff() > 0).all())
        for width in range(1, len(values) + 1):
            widths = [width if values is s else len(s) for s in scores]
            selection = rp.select(space, scores, widths)
            place = next(i for i, s in enumerate(scores) if s is values)
            assert np.array_equal(selection[place], elimination.kept(width))


def test_a_copied_channel_goes_first_at_no_error() -> None:
    made, x = network(), images()
    with torch.no_grad():
        made.a.weight[4] = made.a.weight[1]
        made.a.bias[4] = made.a.bias[1]
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x])
    place = [group.name for group in space.groups].index("a")
    found = eliminate(space, Inverses(moments), detached_tensors(made))[place]
    assert found.order[0] in (1, 4)
    assert found.errors[5] < 1e-3
    assert found.errors[5] < 0.1 * found.errors[4]


def test_a_dead_channel_goes_first() -> None:
    made, x = network(), images()
    with torch.no_grad():
        made.a.bias[2] = -100.0
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x])
    place = [group.name for group in space.groups].index("a")
    assert eliminate(space, Inverses(moments), detached_tensors(made))[place].order[0] == 2


def test_tables_never_rise_with_the_width() -> None:
    made, x = network(), images()
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x])
    for found, group in zip(
        eliminate(space, Inverses(moments), detached_tensors(made)), space.groups, strict=True
    ):
        table = found.errors
        assert table.shape == (group.width + 1,)
        assert table[-1] == 0.0
        assert bool((np.diff(table) <= 0).all())


def test_wide_groups_lose_several_channels_at_once_with_their_joint_error() -> None:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 300, 1), nn.ReLU(), nn.Conv2d(300, 8, 1)).eval()
    x = torch.randn(200, 3, 4, 4)
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x], positions=EVERYWHERE)
    found = eliminate(space, Inverses(moments), detached_tensors(made))[0]
    assert sorted(found.order.tolist()) == list(range(300))
    rows = F.relu(made[0](x)).permute(0, 2, 3, 1).flatten(0, 2).double().detach().numpy()
    target = rows @ made[2].weight.flatten(1).double().detach().numpy().T
    variance = np.square(target - target.mean(0)).sum() / len(target)
    for width in (2, 10, 40):
        explicit = residual(rows, target, found.kept(width).tolist()) / variance
        assert found.errors[width] == pytest.approx(explicit, rel=0.05, abs=2e-3)


def test_groups_without_readers_that_have_moments_go_by_their_norms() -> None:
    made, x = network(), images()
    space = rp.trace(made, x[:1])
    moments = collect_moments(made, space, [x], limit_mib=0)
    place = [group.name for group in space.groups].index("a")
    found = eliminate(space, Inverses(moments), detached_tensors(made))[place]
    assert not found.exact
    norms = made.a.weight.detach().double().flatten(1).square().sum(1)
    assert found.order.tolist() == norms.argsort().tolist()
    assert found.errors[0] == pytest.approx(1.0)


def test_scores_stay_strict_where_errors_are_zero() -> None:
    tied = Elimination(np.array([2, 0, 1]), np.array([1.0, 0.0, 0.0, 0.0]), exact=True)
    assert tied.scores.argsort().tolist() == [2, 0, 1]
    assert len(set(tied.scores.tolist())) == 3
