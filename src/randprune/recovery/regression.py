"""Ridge regression of many targets on the same rows, factorised once.

Minimises E|x W' + b - y|^2 + ridge * mean variance * |W - W0|^2 for one or several groups of
columns at a time. Products are float32, everything that is subtracted or solved is float64.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
