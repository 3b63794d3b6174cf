"""Inverses of the damped covariances of what layers read: one factorisation for all candidates.

With P the inverse of S + r t I (S a layer's covariance, t its mean variance, r the ridge), the
least-squares weights without the columns R are

    W'_K = W_K - W_R (P_RR)^-1 P_RK

(Optimal Brain Surgeon, Hassibi & Stork, NIPS 1993, for whole columns): per candidate, only a matrix
of the columns that go is factorised, instead of one of those that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from randprune.recovery.regression import check_ridge, damped_cholesky
from randprune.recovery.replay import Layer
from randprune.recovery.statistics import Moments

RIDGE = 1e-4


class Inverses:
    """The inverse at each place that layers read, made when first asked for.

    Args:
        moments: of the dense network.
        ridge: relative to the mean variance of a layer's columns, at least 0.

    Raises:
        InvalidInputError: a ridge that is negative or not finite.
    """

    def __init__(self, moments: Moments, ridge: float = RIDGE) -> None:
        check_ridge(ridge)
        self.moments = moments
        self.ridge = ridge
        self._kept: dict[tuple[str, bool], Tensor] = {}

    def of(self, layer: Layer, *, centred: bool = True) -> Tensor:
        """The inverse for one layer, (groups, columns, columns) float64; not to be edited.

        Args:
            layer: one that the moments know.
            centred: of the covariance. Otherwise of the second moments about 0.
        """
        key = (layer.site, centred)
        if key not in self._kept:
            site = self.moments.site(layer)
            matrices = site.covariance.to(torch.float64, copy=True).cpu()
            if not centred:
                matrices += site.mean[:, :, None] * site.mean[:, None, :]
            for number, matrix in enumerate(matrices):
                matrices[number] = torch.cholesky_inverse(damped_cholesky(matrix, self.ridge))
            self._kept[key] = matrices
        return self._kept[key]
