"""EagleEye: random configurations, compared after their batch norms were measured anew.

Method. `candidates` random configurations within the budget; in each the criterion ranks the
channels; the network is cut, nothing is repaired but batch-norm statistics, which are measured on
calibration images; the one with the most right answers on the search images is proposed.

Li et al., "EagleEye: Fast sub-network evaluation for efficient neural network pruning", ECCV 2020.
Differs from the paper: the sampling law is that of random search here, the images are the
benchmark's, and the runner repairs the proposal as it repairs all others.

Known shortcomings. Says nothing in networks without batch norm, where cut networks are compared as
they are; accuracy on images that the network was trained on saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from randprune.bench.methods.base import Task, check_count, methods
from randprune.recovery.batch_norm import recalibrate
from randprune.space import IntArray, Selection
from randprune.surgery import cut

_BATCH = 128


@methods.register("eagleeye")
@dataclass(frozen=True)
class EagleEye:
    """The best random configuration by adaptive batch norm.

    Args:
        candidates: how many are compared.
    """

    candidates: int = 50
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("eagleeye", "candidates", self.candidates)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"{self.candidates} random configurations, cut, their batch norms measured anew, and "
            "compared by right answers on the search images."
        )

    def propose(self, task: Task) -> Selection:
        """The first of those with the most right answers."""
        rows = task.random_widths(self.candidates)
        right = [self._right(task, widths) for widths in rows]
        return task.select(rows[int(np.argmax(right))])

    @torch.no_grad()
    def _right(self, task: Task, widths: IntArray) -> int:
        network = cut(task.model, task.space, task.select(widths))
        macs = float(task.space.cost("macs")(widths))
        calibration, search = task.calibration.through(macs), task.search.through(macs)
        recalibrate(network, (images for images, _ in calibration.batches(_BATCH)))
        network.eval()
        return sum(
            int((network(images).argmax(dim=1) == labels).sum())
            for images, labels in search.batches(_BATCH)
        )
