"""The final trainings of a job from scratch: every network from random weights, by one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import nn

from randprune.graph.program import private_copy
from randprune.jobs.measure import Entrant, entrant
from randprune.jobs.progress import epochs_in_words
from randprune.jobs.session import Session
from randprune.jobs.train import NamedTraining, trained
from randprune.recipe import ScratchRecipe
from randprune.space import IntArray
from randprune.store import (
    DENSE,
    RANDOM_CONFIGURATION,
    SEARCH_TOP1,
    SEARCHED,
    STANDALONE,
    UNIFORM,
    Candidate,
    NetworkRow,
)
from randprune.supernet import first_channels, initialise
from randprune.surgery import cut


def train_all(
    session: Session, recipe: ScratchRecipe, candidates: Sequence[Candidate]
) -> list[Entrant]:
    """Every network of the comparison with every seed, trained; the original first.

    Seed k gives every network the same order of images and augmentation.

    Args:
        session: of the job.
        recipe: of the job.
        candidates: the winner and the controls; their `method` is their role. Random configurations
            are trained once each, with the seed of their index; of the others, stand-alone
            candidates once, and the rest with every seed.
    """
    every, epochs = range(recipe.training.seeds), float(recipe.training.epochs)
    entrants: list[Entrant] = []
    if recipe.controls.dense:
        widths = tuple(session.original.space.widths.tolist())
        for k in every:
            row = NetworkRow(DENSE, DENSE, "dense", widths=widths, epochs=epochs, seed=k)
            network = _trained(session, recipe, row, DENSE, k)
            entrants.append(entrant(session, network, row, timed=k == 0))
    for candidate in candidates:
        role, index = candidate.method, candidate.index
        chosen = {RANDOM_CONFIGURATION: [index], STANDALONE: [0]}
        images = len(session.data.search)
        for k in chosen.get(role, every):
            row = NetworkRow(
                _label(recipe, candidate),
                role,
                "finetuned",
                search=session.result(candidate.scores[SEARCH_TOP1], images),
                widths=candidate.widths,
                candidate=index,
                epochs=epochs,
                seed=k,
            )
            name = f"{role}-{index}" if role == STANDALONE else role
            network = _trained(session, recipe, row, name, k)
            shown = k == 0 and role in (SEARCHED, UNIFORM)
            entrants.append(entrant(session, network, row, timed=shown))
    return entrants


def _trained(
    session: Session, recipe: ScratchRecipe, row: NetworkRow, name: str, k: int
) -> nn.Module:
    """The network of a row, trained from random weights that seed `k` draws."""
    section = recipe.training
    seed = session.seeds.seed("training", k)
    how = section.train_recipe(seed)
    if section.seed is not None:
        how = how.replace(seed=section.seed + k)
    widths = np.array(row.widths, dtype=np.int64)
    training = NamedTraining(
        name=f"trained-{name}-{k}",
        label=f"{row.label}, seed {k}",
        text=f"Training {row.label}, seed {k}, for {epochs_in_words(how.epochs)}",
        phase="training",
        key=f"training/{name}/{k}",
        recipe=how,
        macs=session.macs(widths),
    )
    start = partial(random_network, session, widths, row.role, seed)
    return trained(session, training, start, session.data.full_train)


def random_network(session: Session, widths: IntArray, role: str, seed: int) -> nn.Module:
    """The network of a configuration, with random weights; the dense one as it was given."""
    if role == DENSE:
        return initialise(private_copy(session.original.network), seed)
    small = cut(session.network, session.space, first_channels(session.space, widths))
    return initialise(small, seed)


def _label(recipe: ScratchRecipe, candidate: Candidate) -> str:
    strategy = recipe.search.strategy
    names = {
        SEARCHED: "best random" if strategy == "random" else f"best of {strategy}",
        UNIFORM: "uniform",
        RANDOM_CONFIGURATION: "random configuration",
        STANDALONE: f"candidate {candidate.index}",
    }
    return names[candidate.method]
