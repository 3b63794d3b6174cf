"""Repairs of one dense network's candidates: quick for all of them, thorough for finalists.

Both have the same name, such as "least_squares+bn". The quick form leaves out what needs forward
passes where the chain repairs by other means too: a batch norm is then recomputed for finalists
only; alone, it is computed from moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from randprune.cost import FloatArray
from randprune.errors import ArtifactError
from randprune.jobs.candidates import Repair
from randprune.jobs.kept import Kept
from randprune.jobs.ledger import entry
from randprune.recovery import (
    DenseStatistics,
    Moments,
    collect_moments,
    needs_moments,
    quick_form,
    recover,
)
from randprune.recovery.sensitivity import sensitivities, sensitivity_tables
from randprune.space import Selection, Space
from randprune.store import CostEntry
from randprune.zoo.splits import Split

BATCH = 128
SENSITIVITY_IMAGES = 256


@dataclass(slots=True, eq=False)
class Recoveries:
    """Builds repairs; statistics are made when first needed, and kept.

    Args:
        model: the dense network.
        space: its channel groups.
        calibration: the images that repairs look at.
        kept: where statistics are kept.
        seed: of what the statistics draw.
        spend: is told what the statistics cost.
    """

    model: nn.Module
    space: Space
    calibration: Split
    kept: Kept
    seed: int
    spend: Callable[[CostEntry], None]
    device: str | None = None
    shared: DenseStatistics = field(init=False)

    def __post_init__(self) -> None:
        self.shared = DenseStatistics(self.model, self.space)

    def quick(self, name: str) -> Repair:
        """The recovery of every candidate."""
        return self.thorough(quick_form(name))

    def thorough(self, name: str) -> Repair:
        """The recovery of finalists, as its name says."""
        if needs_moments(name):
            self.moments()

        def repair(small: nn.Module, selection: Selection) -> nn.Module:
            return recover(
                small,
                self.model,
                self.space,
                selection,
                name,
                self.calibration,
                batch_size=BATCH,
                shared=self.shared,
            )

        return repair

    # -- statistics ----------------------------------------------------------------------------

    def moments(self) -> Moments:
        """Second moments of the dense network on the calibration images."""
        if self.shared.moments is None:
            path = self.kept.file("moments")
            found: Moments | None = None
            if path.exists():
                try:
                    found = Moments.load(path)
                except ArtifactError:
                    path.unlink(missing_ok=True)
            if found is None:
                found = self._collect()
                found.save(path)
            self.shared.moments = found
        return self.shared.moments

    def _collect(self) -> Moments:
        start = time.perf_counter()
        batches = self.calibration.batches(BATCH)
        moments = collect_moments(self.model, self.space, batches, seed=self.seed)
        self._spend("moments", start, moments.images)
        return moments

    def tables(self) -> list[FloatArray]:
        """What each width of each group costs at the network's outputs, (width + 1,) a group."""

        def make() -> dict[str, Tensor]:
            start = time.perf_counter()
            moments, found = self.moments(), self.shared.eliminations()
            images = next(self.calibration.batches(SENSITIVITY_IMAGES))[0]
            measured = sensitivities(self.model, self.space, moments, found, images)
            self._spend("tables", start, len(images) * len(self.space))
            tables = sensitivity_tables(found, measured)
            return {f"{g:05d}": torch.from_numpy(table) for g, table in enumerate(tables)}

        kept = self.kept.tensors("tables", make)
        return [kept[f"{g:05d}"].numpy() for g in range(len(self.space))]

    def _spend(self, key: str, start: float, images: int) -> None:
        seconds = time.perf_counter() - start
        forward = {self.space.cost("macs").dense: images}
        self.spend(entry("calibrate", key, seconds=seconds, device=self.device, forward=forward))
