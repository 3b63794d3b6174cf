"""Ridge regression of many targets on the same rows, factorised once.

Minimises E|x W' + b - y|^2 + ridge * mean variance * |W - W0|^2 for one or several groups of
columns at a time. The ridge is given, or chosen by the error on rows that were held out: a layer
with many columns and few images needs a strong one, most layers hardly any. Products are float32,
everything that is subtracted or solved is float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from randprune.errors import InvalidInputError, quoted


class Regression:
    """Fits weights that map the rows to targets, starting from `prior`.

    Args:
        rows: (groups, N, columns) float32; centred in place.
        prior: W0, (groups, outputs, columns).
        ridge: relative to the mean variance of the columns.
        free: whether there is a constant term.
    """

    def __init__(self, rows: Tensor, prior: Tensor, ridge: float, *, free: bool) -> None:
        self.rows = rows
        self.prior = prior.double()
        self.free = free
        count = rows.shape[1]
        # As a product, since reductions over a strided axis are slow.
        mean = torch.matmul(rows.new_ones(1, count), rows) / count
        if free:
            rows -= mean
        self.mean = mean[:, 0].double()
        self.second = _products(rows.transpose(1, 2), rows).double() / count
        self._factor = damped_cholesky(self.second, ridge)

    def choose(
        self,
        ridges: Sequence[float],
        targets: Tensor,
        importance: Tensor,
        *,
        held: int,
        clearly: float = 0.0,
    ) -> float:
        """The ridge with the least error on the last `held` rows when the others are fitted.

        It is used from then on, for fits of all rows. Needs only products of the rows.

        Args:
            ridges: what to choose from; the first one stays unless another's error is less.
            targets: (N, groups * outputs) float32.
            importance: of the squared error of each output, (groups * outputs,).
            held: how many rows are left out of the fits, at least 1 and fewer than all.
            clearly: the share of the first ridge's error by which another must be less.
        """
        groups, count, _ = self.rows.shape
        apart = targets.reshape(count, groups, -1).transpose(0, 1)
        fitted, left = self.rows[:, :-held], self.rows[:, -held:]
        inner, cross, centre = self._about(fitted, apart[:, :-held])
        held_inner, held_cross, _ = self._about(left, apart[:, -held:], centre)
        prior = self.prior.transpose(1, 2)
        lacking, wanted = cross - inner @ prior, held_cross - held_inner @ prior
        weight = importance.double().reshape(groups, 1, -1)
        level = (apart[:, -held:] - centre[1].float()).square().mean(dim=1, keepdim=True).double()
        # The prior's error, E y^2 - 2 W0 c + W0 S W0', summed over outputs.
        before = level + (prior * (held_inner @ prior - 2.0 * held_cross)).sum(1, keepdim=True)
        errors = []
        for ridge in ridges:
            change = torch.cholesky_solve(lacking, damped_cholesky(inner, ridge))
            # The error less that of the prior: D' S D - 2 D' (c - S W0').
            gain = (change * (held_inner @ change - 2.0 * wanted)).sum(dim=1, keepdim=True)
            errors.append(float(((before + gain) * weight).sum()))
        best = ridges[0]
        if min(errors) < (1.0 - clearly) * errors[0]:
            best = ridges[errors.index(min(errors))]
        self._factor = damped_cholesky(self.second, best)
        return best

    def _about(
        self, rows: Tensor, targets: Tensor, centre: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Products of rows with rows and with targets about a centre, by default their means."""
        count = rows.shape[1]
        flipped = rows.transpose(1, 2)
        inner = _products(flipped, rows).double() / count
        cross = _products(flipped, targets).double() / count
        ones = rows.new_ones(len(rows), 1, count)
        x, y = (_products(ones, part).double() / count for part in (rows, targets))
        if centre is None:
            centre = (x, y) if self.free else (torch.zeros_like(x), torch.zeros_like(y))
        at_x, at_y = centre
        # E (x - a)(z - b)' = E xz' - E x b' - a E z' + a b', for z = x and for z = y.
        far = (x - at_x).transpose(1, 2)
        inner -= x.transpose(1, 2) @ at_x + at_x.transpose(1, 2) @ (x - at_x)
        cross -= far @ at_y + at_x.transpose(1, 2) @ y
        return inner, cross, centre

    def fit(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (groups, outputs, columns) and constants (groups * outputs,), both float64.

        `targets` is (N, groups * outputs) float32, the outputs of a group side by side.
        """
        groups, count, _ = self.rows.shape
        apart = targets.reshape(count, groups, -1).transpose(0, 1)
        cross = _products(self.rows.transpose(1, 2), apart).double() / count
        lacking = cross - _products(self.second, self.prior.transpose(1, 2))
        weights = self.prior + torch.cholesky_solve(lacking, self._factor).transpose(1, 2)
        constants = torch.zeros(targets.shape[1], dtype=torch.float64, device=targets.device)
        if self.free:
            level = targets.mean(dim=0, dtype=torch.float64)
            constants = level - torch.einsum("goc,gc->go", weights, self.mean).reshape(-1)
        return weights, constants

    def predict(self, weights: Tensor, constants: Tensor) -> Tensor:
        """The outputs of the rows as they were given, (N, groups * outputs) float32."""
        if self.free:
            constants = constants + torch.einsum("goc,gc->go", weights, self.mean).reshape(-1)
        outputs = _products(self.rows, weights.transpose(1, 2).to(self.rows))
        return outputs.transpose(0, 1).reshape(len(outputs[0]), -1).add_(constants.to(outputs))


def check_ridge(ridge: float) -> None:
    """Raise `InvalidInputError` unless the ridge is a number of at least 0."""
    if not 0.0 <= ridge < float("inf"):
        raise InvalidInputError(
            f"The 'ridge' parameter must be a number of at least 0. Got {quoted(ridge)} instead."
        )


def _products(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm`, by the faster plain product where there is one matrix only."""
    return (left[0] @ right[0])[None] if len(left) == 1 else torch.bmm(left, right)


def damped_cholesky(matrices: Tensor, ridge: float) -> Tensor:
    """Cholesky factor of matrix + ridge * mean diagonal * I, float64 (..., columns, columns).

    The ridge is raised until all are positive definite; inputs that never vary count as if they
    had variance 1, so that nothing is made of them.
    """
    mean = matrices.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    mean = torch.where(mean > 0.0, mean, torch.ones_like(mean))
    strength = max(ridge, 1e-10)
    while True:
        damped = matrices.clone()
        damped.diagonal(dim1=-2, dim2=-1).add_(strength * mean[..., None])
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            return factor
        strength *= 10.0
