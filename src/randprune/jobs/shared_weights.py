"""Shared weights: trained once, then every candidate is a slice of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from randprune.cost import Budget
from randprune.graph.program import private_copy
from randprune.jobs.candidates import Slices
from randprune.jobs.progress import epochs_in_words
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.jobs.train import NamedTraining, trained, training_cost
from randprune.recipe import SupernetSection
from randprune.space import IntArray, Space
from randprune.store import CostEntry
from randprune.strategies import RandomSearch
from randprune.strategies.feasible import WidthGrid, as_widths
from randprune.supernet import SharedStep, Supernet, initialise
from randprune.training import TrainRecipe

SHARED = "shared"
"""The kept network with trained shared weights."""
SUPERNET = "supernet"
"""Their phase and key in the ledger, and the purpose of their seed."""

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
        seeds: Seeds,
    ) -> SharedTraining:
        """What a recipe asks for.

        Args:
            section: of the recipe.
            space: of the wide network.
            budget: of the configurations that steps draw.
            limits: on their widths.
            seeds: of the pool and of the training.
        """
        pool = RandomSearch(*limits).ask(space, budget, section.pool, seeds.rng("pool"))
        step = SharedStep(
            pool,
            per_step=section.per_step,
            sandwich=section.sandwich,
            narrowest=narrowest(space, limits) if section.sandwich else None,
            distill=section.distill,
            label_smoothing=section.label_smoothing,
        )
        macs = step_macs(section, space, limits, float(space.cost("macs")(pool).mean()))
        return cls(space, section.train_recipe(seeds.seed(SUPERNET)), step, macs)

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


def train_shared(session: Session, section: SupernetSection) -> Slices:
    """The trained shared weights of the session's widened network, as the maker of candidates."""
    asked = SharedTraining.of(section, session.space, session.budget, session.limits, session.seeds)
    epochs = asked.recipe.epochs
    training = NamedTraining(
        name=SHARED,
        label="shared weights",
        text=f"Training shared weights for {epochs_in_words(epochs)}",
        phase=SUPERNET,
        key=SUPERNET,
        recipe=asked.recipe,
        macs=asked.macs,
        step=asked.step,
    )
    start = partial(asked.start, session.network, session.seeds.seed(SUPERNET))
    return Slices(session, trained(session, training, start, session.data.fit, shared_of))


def kept_slices(session: Session) -> Slices:
    """The maker of candidates from the shared weights that another process has trained."""
    return Slices(session, session.made.made_network(SHARED, session.original.network))


def shared_cost(session: Session) -> CostEntry:
    """What the kept shared weights cost."""
    return training_cost(session, SHARED)
