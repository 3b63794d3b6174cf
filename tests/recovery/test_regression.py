"""Ridge regression against its normal equations, and on inputs that determine nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from randprune.recovery.regression import Regression, damped_cholesky


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_it_minimises_the_damped_error(groups: int, free: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(groups, 200, 5, generator=generator) + 0.5
    targets = torch.randn(200, groups * 2, generator=generator)
    prior = torch.randn(groups, 2, 5, generator=generator)
    ridge = 0.3
    regression = Regression(rows.clone(), prior, ridge, free=free)
    weights, constants = regression.fit(targets)
    predicted = regression.predict(weights, constants)
    assert predicted.shape == targets.shape
    if not free:
        assert not constants.any()
    for group in range(groups):
        x, y = rows[group].double(), targets[:, 2 * group : 2 * group + 2].double()
        w = weights[group].clone().requires_grad_(True)
        b = constants[2 * group : 2 * group + 2].clone().requires_grad_(True)
        output = x @ w.T + b
        torch.testing.assert_close(output.float(), predicted[:, 2 * group : 2 * group + 2])
        level = x.var(0, correction=0).mean() if free else x.square().mean()
        loss = (output - y).square().sum() / 200
        loss = loss + ridge * level * (w - prior[group].double()).square().sum()
        loss.backward()
        assert float(w.grad.abs().max()) < 1e-5
        if free:
            assert float(b.grad.abs().max()) < 1e-5


def test_a_strong_ridge_keeps_the_prior() -> None:
    rows = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    prior = torch.ones(1, 2, 4)
    weights, _ = Regression(rows, prior, 1e9, free=True).fit(torch.zeros(50, 2))
    torch.testing.assert_close(weights, prior.double())


def test_dead_and_duplicate_inputs_are_survived() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator)
    rows = torch.cat([x, x[:, :1], torch.zeros(50, 1)], dim=1)[None]
    targets = x @ torch.randn(3, 2, generator=generator)
    regression = Regression(rows, torch.zeros(1, 2, 5), 0.0, free=True)
    torch.testing.assert_close(
        regression.predict(*regression.fit(targets)), targets, rtol=0, atol=1e-3
    )
    dead = Regression(torch.zeros(1, 50, 3), torch.zeros(1, 2, 3), 1e-3, free=True)
    weights, constants = dead.fit(targets)
    assert not weights.any()
    torch.testing.assert_close(constants, targets.double().mean(0))


def test_indefinite_matrices_are_damped_until_they_are_not() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1.0, -1e-6], dtype=torch.float64))
    factor = damped_cholesky(matrix, 0.0)
    assert bool(torch.isfinite(factor).all())


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_chosen_ridge_errs_least_on_rows_that_were_not_fitted(groups: int, free: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(groups, 60, 30, generator=generator) + 0.5
    targets = torch.randn(60, groups * 2, generator=generator)
    prior = 0.1 * torch.randn(groups, 2, 30, generator=generator)
    importance = torch.rand(groups * 2, generator=generator) + 0.5
    ridges = (1e-3, 0.1, 1.0, 10.0)

    def error(ridge: float) -> float:
        part = Regression(rows[:, :40].clone(), prior, ridge, free=free)
        weights, constants = part.fit(targets[:40])
        predicted = part.predict(weights, constants)  # on the fitted rows: only the shape is used
        assert predicted.shape == (40, groups * 2)
        outputs = torch.einsum("gnc,goc->ngo", rows[:, 40:].double(), weights).reshape(20, -1)
        return float(((outputs + constants - targets[40:]).square() * importance).sum())

    regression = Regression(rows.clone(), prior, 1e-3, free=free)
    chosen = regression.choose(ridges, targets, importance, held=20)
    assert chosen == min(ridges, key=error)
    expected = Regression(rows.clone(), prior, chosen, free=free).fit(targets)
    torch.testing.assert_close(regression.fit(targets), expected)


def test_noise_is_shrunk_and_a_law_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 100, 20, generator=generator)
    prior = torch.zeros(1, 1, 20)

    def chosen(targets: Tensor) -> float:
        regression = Regression(x.clone(), prior, 1e-3, free=True)
        return regression.choose((1e-4, 1e-2, 1.0, 100.0), targets, torch.ones(1), held=20)

    assert chosen(x[0] @ torch.randn(20, 1, generator=generator)) == 1e-4
    assert chosen(torch.randn(100, 1, generator=generator)) >= 1.0


def test_the_first_ridge_stays_unless_another_is_clearly_better() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 100, 60, generator=generator)
    targets = torch.randn(100, 1, generator=generator)  # noise: the strongest ridge errs least
    prior = torch.zeros(1, 1, 60)
    ridges = (1e-3, 10.0)

    def error(ridge: float) -> float:
        weights, constants = Regression(rows[:, :80].clone(), prior, ridge, free=True).fit(
            targets[:80]
        )
        outputs = rows[0, 80:].double() @ weights[0].T + constants
        return float((outputs - targets[80:]).square().sum())

    first, second = map(error, ridges)
    lower = 1.0 - second / first
    assert lower > 0.1

    def chosen(clearly: float) -> float:
        regression = Regression(rows.clone(), prior, 1e-3, free=True)
        return regression.choose(ridges, targets, torch.ones(1), held=20, clearly=clearly)

    assert chosen(lower - 1e-3) == 10.0
    assert chosen(lower + 1e-3) == 1e-3
