"""Shared weights: trained once, then every candidate is a slice of them.

`SharedTraining` and `Slices` serve whoever searches widths; `SharedWeights` is their use in a job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from randprune.cost import Budget
from randprune.evaluate.engine import pick_device
from randprune.graph.program import private_copy
from randprune.jobs.candidates import Made
from randprune.jobs.job import Job
from randprune.jobs.judge import Judge
from randprune.jobs.search import Tools
from randprune.jobs.trained import Training
from randprune.recipe import ScratchRecipe, SupernetSection
from randprune.recovery.batch_norm import recalibrate
from randprune.search import RandomSearch
from randprune.search.feasible import WidthGrid, as_widths
from randprune.space import IntArray, Space
from randprune.supernet import SharedStep, Supernet, first_channels, initialise
from randprune.surgery import cut
from randprune.training import TrainRecipe
from randprune.zoo.data import in_memory
from randprune.zoo.splits import Split

# Images a batch when batch-norm statistics are measured.
_BATCH = 250

Limits = tuple[float, int]
"""Of widths: the least share of a group, and what they are multiples of."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedTraining:
    """How the shared weights of a space are trained.

    Attributes:
        space: of the wide network.
        recipe: of the training.
        step: what a step computes.
        macs: of one image through all configurations of a step, on average over steps.
    """

    space: Space
    recipe: TrainRecipe
    step: SharedStep
    macs: float

    @classmethod
    def of(
        cls,
        section: SupernetSection,
        space: Space,
        budget: Budget,
        limits: Limits,
        seed: Callable[[str], int],
    ) -> SharedTraining:
        """What a recipe asks for.

        Args:
            section: of the recipe.
            space: of the wide network.
            budget: of the configurations that steps draw.
            limits: on their widths.
            seed: gives a seed for a purpose, "supernet" or "pool".
        """
        rng = np.random.default_rng(seed("pool"))
        pool = RandomSearch(*limits).ask(space, budget, section.pool, rng)
        step = SharedStep(
            pool,
            per_step=section.per_step,
            sandwich=section.sandwich,
            narrowest=narrowest(space, limits) if section.sandwich else None,
            distill=section.distill,
            label_smoothing=section.label_smoothing,
        )
        macs = step_macs(section, space, limits, float(space.cost("macs")(pool).mean()))
        return cls(space, section.train_recipe(seed("supernet")), step, macs)

    def start(self, wide: nn.Module, seed: int) -> Supernet:
        """What is trained: a copy of the wide network with fresh weights."""
        return Supernet(initialise(private_copy(wide), seed), self.space)


def narrowest(space: Space, limits: Limits) -> IntArray:
    """The least widths that a configuration may have, int64 (G,)."""
    return as_widths(WidthGrid.of(space, *limits).low)


def step_macs(section: SupernetSection, space: Space, limits: Limits, drawn: float) -> float:
    """Multiply-adds of one image through all networks that one step trains.

    Args:
        section: says which they are.
        space: of the wide network.
        limits: on widths.
        drawn: multiply-adds of the mean random configuration.
    """
    macs = section.per_step * drawn
    if section.sandwich:
        cost = space.cost("macs")
        macs += cost.dense + float(cost(narrowest(space, limits)))
    return macs


def shared_of(trained: nn.Module) -> nn.Module:
    """The wide network within a trained `Supernet`."""
    assert isinstance(trained, Supernet)
    return trained.shared


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Makes candidates of trained shared weights.

    Attributes:
        shared: the wide network with trained shared weights.
        space: its channel groups.
        calibration: the images that give each candidate batch-norm statistics of its own.
        device: where these are measured; default: the GPU if there is one.
    """

    shared: nn.Module
    space: Space
    calibration: Split
    device: str | None = None

    def make(self, widths: IntArray) -> Made:
        """The network of a configuration: the first channels of every group."""
        place = pick_device(self.device)
        start = time.perf_counter()
        selection = first_channels(self.space, widths)
        small = cut(self.shared, self.space, selection)
        ready = time.perf_counter()
        images = (images.to(place) for images, _ in self.calibration.batches(_BATCH))
        network = recalibrate(small.to(place), images)
        done = time.perf_counter()
        return Made(selection, network, {"select": ready - start, "recover": done - ready})


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
        job, search = self.job, self.job.recipe.search
        limits = (search.min_keep, search.round_to)
        asked = SharedTraining.of(job.recipe.supernet, job.space, job.budget, limits, job.seed)
        training = Training(
            name="shared",
            label="shared weights",
            text=f"Training shared weights for {asked.recipe.epochs} epochs",
            phase="supernet",
            key="supernet",
            recipe=asked.recipe,
            macs=asked.macs,
            step=asked.step,
        )

        def start() -> nn.Module:
            return asked.start(job.model, job.seed("supernet"))

        return training.run(job, start, job.data.fit, self.original, shared_of)

    def tools(self) -> Tools:
        """What makes and judges the candidates of the search."""
        job = self.job
        calibration = in_memory(job.data.calibration)
        evaluator = job.evaluator(in_memory(job.data.search), "search", job.recipe.search.precision)
        slices = Slices(self.network, job.space, calibration, job.device)
        return Tools(
            make=lambda widths, _: slices.make(widths),
            judge=Judge(evaluator),
            images_forward=len(calibration),
            criterion="shared weights",
            recovery="bn",
        )
