"""The shared weights of a job: trained once, then every candidate is a slice of them."""

from __future__ import annotations

import time
from functools import cached_property

from torch import nn

from randprune.evaluate.engine import pick_device
from randprune.graph.program import private_copy
from randprune.pipeline.candidates import Made
from randprune.pipeline.job import Job
from randprune.pipeline.judge import Judge
from randprune.pipeline.search import Tools
from randprune.pipeline.trained import Training
from randprune.recipe import ScratchRecipe, ScratchSearchSection
from randprune.recovery.batch_norm import recalibrate
from randprune.search import RandomSearch
from randprune.search.feasible import WidthGrid, as_widths
from randprune.space import IntArray, Space
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
        least = narrowest(job.space, search)
        step = SharedStep(
            pool,
            per_step=section.per_step,
            sandwich=section.sandwich,
            narrowest=least if section.sandwich else None,
            distill=section.distill,
            label_smoothing=section.label_smoothing,
        )
        drawn = float(job.space.cost("macs")(pool).mean())
        macs = step_macs(recipe=job.recipe, space=job.space, drawn=drawn)
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


def narrowest(space: Space, section: ScratchSearchSection) -> IntArray:
    """The least widths that a configuration may have, int64 (G,)."""
    return as_widths(WidthGrid.of(space, section.min_keep, section.round_to).low)


def step_macs(recipe: ScratchRecipe, space: Space, drawn: float) -> float:
    """Multiply-adds of one image through all networks that one step trains.

    Args:
        recipe: says which they are.
        space: of the wide network.
        drawn: multiply-adds of the mean random configuration.
    """
    cost, section = space.cost("macs"), recipe.supernet
    sandwich = cost.dense + float(cost(narrowest(space, recipe.search)))
    return section.per_step * drawn + sandwich * section.sandwich
