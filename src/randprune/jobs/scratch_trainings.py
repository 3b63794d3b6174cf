"""The final trainings of a job from scratch: every network from random weights, by one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from randprune.graph.program import private_copy
from randprune.jobs.final import Entrant, entrant
from randprune.jobs.job import Job
from randprune.jobs.trained import Training
from randprune.recipe import ScratchRecipe
from randprune.space import IntArray
from randprune.store import (
    DENSE,
    RANDOM_CONFIGURATION,
    SEARCHED,
    STANDALONE,
    UNIFORM,
    Accuracy,
    Candidate,
)
from randprune.supernet import first_channels, initialise
from randprune.surgery import cut
from randprune.widening import widening_of


@dataclass(frozen=True, slots=True, eq=False)
class FinalTrainings:
    """Trains the networks that a job compares.

    Attributes:
        job: the job; its model is the wide network.
        original: the network as it was given.
    """

    job: Job[ScratchRecipe]
    original: nn.Module

    def run(self, candidates: Sequence[Candidate]) -> list[Entrant]:
        """Every network with every seed, the original first.

        Seed k gives every network the same order of images and augmentation.

        Args:
            candidates: the winner and the controls; their `method` is their role. Random
                configurations are trained once each, with the seed of their index; of the others,
                stand-alone candidates once, and the rest with every seed.
        """
        job, seeds = self.job, self.job.recipe.training.seeds
        entrants: list[Entrant] = []
        if job.recipe.controls.dense:
            widths = widening_of(job.model).space.widths
            for k in range(seeds):
                network = self._train(DENSE, DENSE, widths, k)
                entrants.append(self._entrant(network, DENSE, DENSE, widths, k))
        for candidate in candidates:
            widths = np.array(candidate.widths, dtype=np.int64)
            role = candidate.method
            label = _label(job, candidate)
            chosen = {RANDOM_CONFIGURATION: [candidate.index], STANDALONE: [0]}
            for k in chosen.get(role, list(range(seeds))):
                name = f"{role}-{candidate.index}" if role == STANDALONE else role
                network = self._train(name, label, widths, k)
                entrants.append(self._entrant(network, role, label, widths, k, candidate))
        return entrants

    def _train(self, name: str, label: str, widths: IntArray, k: int) -> nn.Module:
        job, section = self.job, self.job.recipe.training
        seed = job.seed("training", k)
        recipe = section.train_recipe(seed)
        if section.seed is not None:
            recipe = recipe.replace(seed=section.seed + k)

        def start() -> nn.Module:
            if name == DENSE:
                return initialise(private_copy(self.original), seed)
            return initialise(cut(job.model, job.space, first_channels(job.space, widths)), seed)

        training = Training(
            name=f"trained-{name}-{k}",
            label=f"{label}, seed {k}",
            text=f"Training {label}, seed {k}, for {recipe.epochs} epochs",
            phase="training",
            key=f"training/{name}/{k}",
            recipe=recipe,
            macs=float(job.space.cost("macs")(widths)),
        )
        return training.run(job, start, job.data.full_train, self.original)

    def _entrant(
        self,
        network: nn.Module,
        role: str,
        label: str,
        widths: IntArray,
        k: int,
        candidate: Candidate | None = None,
    ) -> Entrant:
        job = self.job
        return entrant(
            job,
            network,
            role=role,
            label=label,
            stage="dense" if role == DENSE else "finetuned",
            widths=tuple(widths.tolist()),
            candidate=None if candidate is None else candidate.index,
            search=None if candidate is None else _shared_accuracy(candidate, job),
            epochs=float(job.recipe.training.epochs),
            seed=k,
            timed=k == 0 and role in (DENSE, SEARCHED, UNIFORM),
        )


def _label(job: Job[ScratchRecipe], candidate: Candidate) -> str:
    strategy = job.recipe.search.strategy
    names = {
        SEARCHED: "best random" if strategy == "random" else f"best of {strategy}",
        UNIFORM: "uniform",
        RANDOM_CONFIGURATION: "random configuration",
        STANDALONE: f"candidate {candidate.index}",
    }
    return names[candidate.method]


def _shared_accuracy(candidate: Candidate, job: Job[ScratchRecipe]) -> Accuracy:
    images = len(job.data.search_indices)
    return Accuracy(round(candidate.scores["search_top1"] * images), images)
