"""The shared weights of a job: trained once, then every candidate is a slice of them."""

from __future__ import annotations

import time
from functools import cached_property

import numpy as np
from torch import nn

from randprune.evaluate.engine import pick_device
from randprune.graph.program import private_copy
from randprune.pipeline.candidates import Made
from randprune.pipeline.job import Job
from randprune.pipeline.judge import Judge
from randprune.pipeline.search import Tools
from randprune.pipeline.trained import Training
from randprune.recipe import ScratchRecipe
from randprune.recovery.batch_norm import recalibrate
from randprune.search import RandomSearch
from randprune.space import IntArray
from randprune.supernet import SharedStep, Supernet, first_channels, initialise
from randprune.surgery import cut
from randprune.zoo.data import in_memory

# Images a batch when batch-norm statistics are measured.
_BATCH = 250


class SharedWeights:
    """Trains the shared weights of a job, and makes candidates of them.

    Args:
        job: the job; its model is the wide network.
        original: what the wide network comes from.
    """

    def __init__(self, job: Job[ScratchRecipe], original: nn.Module) -> None:
        self.job = job
        self.original = original

    @cached_property
    def network(self) -> nn.Module:
        """The wide network with trained shared weights."""
        job, section = self.job, self.job.recipe.supernet
        search = job.recipe.search
        recipe = section.train_recipe(job.seed("supernet"))
        pool = RandomSearch(search.min_keep, search.round_to).ask(
            job.space, job.budget, section.pool, job.rng("pool")
        )
        full = job.space.widths
        least = np.maximum(1, np.ceil(search.min_keep * full)).astype(np.int64)
        if search.round_to > 1:
            steps = -(-least // search.round_to) * search.round_to
            least = np.minimum(full, steps)
        step = SharedStep(
            pool,
            per_step=section.per_step,
            sandwich=section.sandwich,
            narrowest=least if section.sandwich else None,
            distill=section.distill,
            label_smoothing=section.label_smoothing,
        )
        cost = job.space.cost("macs")
        macs = section.per_step * float(cost(pool).mean())
        if section.sandwich:
            macs += cost.dense + float(cost(least))
        training = Training(
            name="shared",
            label="shared weights",
            text=f"Training shared weights for {recipe.epochs} epochs",
            phase="supernet",
            key="supernet",
            recipe=recipe,
            macs=macs,
            step=step,
        )

        def start() -> nn.Module:
            return Supernet(initialise(private_copy(job.model), job.seed("supernet")), job.space)

        def finish(trained: nn.Module) -> nn.Module:
            assert isinstance(trained, Supernet)
            return trained.shared

        return training.run(job, start, job.data.fit, self.original, finish)

    def tools(self) -> Tools:
        """What makes and judges the candidates of the search."""
        job = self.job
        calibration = in_memory(job.data.calibration)
        evaluator = job.evaluator(in_memory(job.data.search), "search", job.recipe.search.precision)
        shared, place = self.network, pick_device(job.device)

        def make(widths: IntArray, method: str) -> Made:
            start = time.perf_counter()
            selection = first_channels(job.space, widths)
            small = cut(shared, job.space, selection)
            ready = time.perf_counter()
            images = (images.to(place) for images, _ in calibration.batches(_BATCH))
            network = recalibrate(small.to(place), images)
            done = time.perf_counter()
            return Made(selection, network, {"select": ready - start, "recover": done - ready})

        return Tools(
            make=make,
            judge=Judge(evaluator),
            images_forward=len(calibration),
            criterion="shared weights",
            recovery="bn",
        )
