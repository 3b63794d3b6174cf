"""Recoveries of one job: quick ones for every candidate, thorough ones for finalists.

Both have the same name, such as "least_squares+bn". The quick form leaves out what needs forward
passes where the chain repairs by other means too: a batch norm is then recomputed for finalists
only; alone, it is computed from moments.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from randprune.cost import FloatArray
from randprune.criteria.reconstruction import eliminate
from randprune.errors import ArtifactError
from randprune.pipeline.candidates import Repair
from randprune.pipeline.job import Job
from randprune.recovery import Moments, Sequential, collect_moments, parse, recover
from randprune.recovery.sensitivity import sensitivities, sensitivity_tables
from randprune.recovery.statistics import reference_tensors
from randprune.space import Selection

BATCH = 128
SENSITIVITY_IMAGES = 256


def quick_form(name: str) -> str:
    """The form of a recovery that every candidate gets: no measured batch-norm statistics.

    "least_squares+bn" -> "least_squares", "bn" -> "bn_closed_form"; others stay.
    """
    steps = [step.name for step in parse(name)]
    if steps == ["bn"]:
        return "bn_closed_form"
    return "+".join(step for step in steps if step != "bn") or "none"


@dataclass(slots=True, eq=False)
class Recoveries:
    """Builds the repairs of one job; statistics are made when first needed, and kept."""

    job: Job
    shared: dict[str, Any] = field(init=False, default_factory=dict)

    def quick(self, name: str) -> Repair:
        """The recovery of every candidate."""
        return self.thorough(quick_form(name))

    def thorough(self, name: str) -> Repair:
        """The recovery of finalists, as its name says."""
        job = self.job
        if self.needs_moments(name):
            self.moments()

        def repair(small: nn.Module, selection: Selection) -> nn.Module:
            calibration = job.data.calibration
            return recover(
                small,
                job.model,
                job.space,
                selection,
                name or "none",
                calibration,
                batch_size=BATCH,
                shared=self.shared,
            )

        return repair

    @staticmethod
    def needs_moments(name: str) -> bool:
        """Whether the recovery works from moments."""
        return any("moments" in step.needs for step in parse(name))

    def images_forward(self, name: str) -> int:
        """Images that one recovery sends through the candidate."""
        calibration = len(self.job.data.calibration_indices)
        total = 0
        for step in parse(name):
            if isinstance(step, Sequential):
                total += min(step.images, calibration)
            elif "data" in step.needs:
                total += calibration
        return total

    # -- statistics ----------------------------------------------------------------------------

    def moments(self) -> Moments:
        """Second moments of the dense network on the calibration images."""
        if "moments" not in self.shared:
            path = self.job.work / "moments.safetensors"
            found: Moments | None = None
            if path.exists():
                try:
                    found = Moments.load(path)
                except ArtifactError:
                    path.unlink(missing_ok=True)
            if found is None:
                found = self._collect()
                found.save(path)
            self.shared["moments"] = found
        moments: Moments = self.shared["moments"]
        return moments

    def _collect(self) -> Moments:
        job = self.job
        start = time.perf_counter()
        moments = collect_moments(
            job.model, job.space, job.data.calibration.batches(BATCH), seed=job.seed("moments")
        )
        seconds = time.perf_counter() - start
        forward = {job.macs(): moments.images}
        job.run.add_cost(job.entry("calibrate", "moments", seconds=seconds, forward=forward))
        return moments

    def tables(self) -> list[FloatArray]:
        """What each width of each group costs at the network's outputs, (width + 1,) a group."""
        job = self.job

        def make() -> dict[str, Tensor]:
            start = time.perf_counter()
            tensors = reference_tensors(job.model, job.space)
            found = eliminate(job.space, self.moments(), tensors)
            images = next(job.data.calibration.batches(SENSITIVITY_IMAGES))[0]
            measured = sensitivities(job.model, job.space, self.moments(), found, images)
            forward = {job.macs(): len(images) * len(job.space)}
            seconds = time.perf_counter() - start
            job.run.add_cost(job.entry("calibrate", "tables", seconds=seconds, forward=forward))
            tables = sensitivity_tables(found, measured)
            return {f"{g:05d}": torch.from_numpy(table) for g, table in enumerate(tables)}

        kept = job.tensors("tables", make)
        return [kept[f"{g:05d}"].numpy() for g in range(len(job.space))]
