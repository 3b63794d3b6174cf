"""What a job needs before its first candidate, made once and kept: reference, moments, scores.

Everything that takes time is written to the job's folder, so that a resumed job only reads it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from randprune.criteria import Criterion, Random, criteria, score
from randprune.jobs.candidates import Made, make_candidate
from randprune.jobs.job import Job
from randprune.jobs.judge import Judge
from randprune.jobs.recoveries import Recoveries
from randprune.jobs.search import Tools
from randprune.recovery import needs_moments
from randprune.space import IntArray
from randprune.store import RANDOM_CHANNELS, SEARCHED, UNIFORM, Accuracy
from randprune.zoo.data import in_memory
from randprune.zoo.splits import Split


@dataclass(slots=True, eq=False)
class Workshop:
    """The tools of one job.

    Args:
        job: the job.
        criterion: an object, instead of the one that the recipe names.
    """

    job: Job
    criterion: Criterion | None = None
    recoveries: Recoveries = field(init=False)
    _scores: dict[str, Sequence[Tensor]] = field(init=False, default_factory=dict)
    _search: Split = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        self.recoveries = Recoveries(
            model=job.model,
            space=job.space,
            calibration=job.data.calibration,
            kept=job.kept,
            seed=job.seed("moments"),
            spend=job.run.add_cost,
            device=job.device,
        )
        # Walked once per candidate: decoded images are kept where they fit.
        self._search = in_memory(job.data.search)

    def prepare(self) -> None:
        """The dense network's outputs, calibration statistics and scores, with progress."""
        job = self.job
        with job.phase("dense", "Evaluating the dense network") as dense:
            self.judge()
            chance = self._search.labels.bincount().max().item() / len(self._search)
            dense.step(dense_accuracy=self.dense_accuracy().share, chance_accuracy=chance)
        with job.phase("calibrate", "Collecting statistics", total=2) as running:
            names = (job.recipe.recovery, job.recipe.finalists.recovery)
            if any(needs_moments(name) for name in names):
                self.recoveries.moments()
            running.step()
            self.scores()
            running.step()

    # -- judging -------------------------------------------------------------------------------

    def judge(self) -> Judge:
        """Judges candidates on the search images with the fastest engine."""
        return self._judge(self.job.recipe.search.precision)

    def exact_judge(self) -> Judge:
        """Judges finalists on the search images in float32."""
        return self._judge("float32")

    def _judge(self, precision: str) -> Judge:
        job = self.job
        evaluator = job.evaluator(self._search, "search", precision)

        def run_dense() -> Mapping[str, Tensor]:
            start = time.perf_counter()
            logits = evaluator.logits(job.model, name="the dense network")
            seconds = time.perf_counter() - start
            forward = {job.macs(): len(self._search)}
            job.run.add_cost(
                job.entry("dense", f"dense/{precision}", seconds=seconds, forward=forward)
            )
            return {"logits": logits}

        return Judge(evaluator, job.kept.tensors(f"dense-{precision}", run_dense)["logits"])

    def dense_accuracy(self) -> Accuracy:
        """Of the dense network on the search images, in float32."""
        judge = self.exact_judge()
        assert judge.dense_logits is not None
        right = judge.dense_logits.argmax(dim=1) == self._search.labels
        return Accuracy(int(right.sum()), len(right))

    # -- choosing channels ---------------------------------------------------------------------

    def scores(self) -> Mapping[str, Sequence[Tensor]]:
        """The criterion's scores, and random ones for the control, by method."""
        if not self._scores:
            job = self.job
            random = score(job.model, job.space, Random(), seed=job.seed("random_channels"))
            kept = job.kept.tensors("scores", self._score)
            ours = [kept[f"{g:05d}"] for g in range(len(job.space))]
            self._scores = {SEARCHED: ours, UNIFORM: ours, RANDOM_CHANNELS: random}
        return self._scores

    def _score(self) -> Mapping[str, Tensor]:
        job = self.job
        chosen = self.criterion or criteria.create(job.recipe.criterion)
        shared = self.recoveries.shared
        if "moments" in chosen.needs:
            self.recoveries.moments()
        start = time.perf_counter()
        found = score(
            job.model,
            job.space,
            chosen,
            job.data.calibration,
            seed=job.seed("criterion"),
            shared=shared,
        )
        images = len(job.data.calibration_indices) if chosen.needs - {"weights", "moments"} else 0
        backward = {job.macs(): images} if "gradients" in chosen.needs else {}
        job.run.add_cost(
            job.entry(
                "calibrate",
                f"scores/{chosen.name}",
                seconds=time.perf_counter() - start,
                forward={job.macs(): images},
                backward=backward,
            )
        )
        return {f"{g:05d}": torch.as_tensor(values) for g, values in enumerate(found)}

    def tables(self) -> list[Any]:
        """The error of each group over its width, for strategies that search by a proxy."""
        return self.recoveries.tables()

    # -- making networks -----------------------------------------------------------------------

    def tools(self) -> Tools:
        """What makes and judges the candidates of the search."""
        job, name = self.job, self.job.recipe.recovery
        scores, repair = self.scores(), self.recoveries.quick(name)
        return Tools(
            make=lambda widths, method: make_candidate(
                job.model, job.space, scores[method], widths, repair
            ),
            judge=self.judge(),
            criterion=job.recipe.criterion,
            recovery=name,
        )

    def make(self, widths: IntArray, method: str, recovery: str) -> Made:
        """The network of a configuration after a thorough recovery: real batch-norm statistics."""
        job = self.job
        repair = self.recoveries.thorough(recovery)
        return make_candidate(job.model, job.space, self.scores()[method], widths, repair)
