"""The session of a trained network, as a recipe asks for it."""

from __future__ import annotations

from randprune.graph.program import private_copy
from randprune.jobs.job import Given
from randprune.jobs.opening import check_outputs, example_of, on_cpu, open_trained
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.recipe import PruneRecipe


def traced_session(recipe: PruneRecipe, given: Given) -> Session:
    """The session of the trained network, on the CPU, which candidates are cut from."""
    dense = given.model if given.place.type == "cpu" else private_copy(given.model).cpu()
    example = example_of(given.data, dense) if given.example is None else on_cpu(given.example)
    session = open_trained(
        recipe,
        dense,
        given.data,
        rules=recipe.search,
        seeds=Seeds(str(recipe.seed)),
        work=given.folder / "work",
        example=example,
        task=given.task,
    )
    check_outputs(dense, given.data, example)
    return session
