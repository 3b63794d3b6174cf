"""What a recipe would do, found out without doing it: `randprune prune --dry-run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randprune.cli.console import output
from randprune.report.format import number, percent, si

if TYPE_CHECKING:
    from torch import nn

    from randprune.jobs.result import JobRecipes
    from randprune.recipe import PruneRecipe
    from randprune.space import Space
    from randprune.zoo.data import Data

Line = tuple[str, str]
"""What a line is about, and what it says."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A validated recipe with its network traced and its data found.

    `law`: how the random strategy puts draws on the budget, "" for other strategies.
    """

    recipe: PruneRecipe
    space: Space
    data: Data
    reachable: tuple[float, float]
    law: str

    @classmethod
    def of(cls, recipe: PruneRecipe) -> Plan:
        """The plan of a recipe that names a network, images and an output folder.

        Raises:
            RandpruneError: whatever would stop the job at its start: an unknown network, weights
                that do not fit, missing images, a budget out of reach.
        """
        from randprune.jobs.search import create_strategy
        from randprune.search import RandomSearch, reachable
        from randprune.search.feasible import require_reachable

        network, data = network_and_images(recipe)
        space = traced(recipe, network, data)
        limits = recipe.search.min_keep, recipe.search.round_to
        budget = recipe.budget.budget()
        require_reachable(space, budget, *limits)
        law = ""
        if recipe.search.strategy == "random":
            strategy = create_strategy(recipe.search, list)
            assert isinstance(strategy, RandomSearch)
            law = strategy.resolve(space, budget).law
        return cls(recipe, space, data, reachable(space, budget.metric, *limits), law)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "recipe": self.recipe.document(),
            **sizes(self.space),
            "reachable": list(self.reachable),
            "law": self.law,
            "images": images(self.data),
        }

    def print(self) -> None:
        """The plan in words."""
        recipe = self.recipe
        assert recipe.model is not None
        search, tuning = recipe.search, recipe.finetune
        law = f" ({self.law} law)" if self.law else ""
        print_lines([
            network_line(recipe, self.space),
            ("weights", recipe.model.weights or "none: the network starts untrained"),
            images_line(self.data),
            budget_line(recipe, self.space, self.reachable[0]),
            ("search", f"{search.candidates} configurations, {search.strategy}{law}; channels by "
                       f"{recipe.criterion}, repaired by {recipe.recovery}, ranked by "
                       f"{search.rank_by}"),
            ("finalists", f"{recipe.finalists.count}, repaired by "
                          f"{recipe.finalists.recovery or recipe.recovery}"),
            ("training", "none" if tuning is None or tuning.epochs == 0 else
                         f"{tuning.epochs} epochs on {number(len(self.data.full_train))} images, "
                         f"{tuning.optimizer}, learning rate {tuning.lr:g}"),
            ("output", recipe.output.folder),
        ])  # fmt: skip


def network_and_images(recipe: JobRecipes) -> tuple[nn.Module, Data]:
    """The network, with weights where it has some, and the images that a recipe names."""
    from randprune.jobs.opening import images_of_recipe, network_of_recipe

    return network_of_recipe(recipe), images_of_recipe(recipe)


def traced(recipe: JobRecipes, network: nn.Module, data: Data) -> Space:
    """The channel groups of a recipe's network."""
    import torch

    from randprune.jobs.opening import traced as traced_network

    return traced_network(recipe.model, network, torch.zeros(1, *data.image_shape))


def sizes(space: Space) -> dict[str, int]:
    """How large a network is, JSON-ready."""
    return {
        "groups": len(space),
        "frozen": len(space.frozen),
        "macs": int(space.cost("macs").dense),
        "params": int(space.cost("params").dense),
    }


def images(data: Data) -> dict[str, int]:
    """How many images serve what, JSON-ready."""
    return {
        "fit": len(data.fit_indices),
        "calibration": len(data.calibration_indices),
        "search": len(data.search_indices),
    }


def network_line(recipe: JobRecipes, space: Space) -> Line:
    """The network and its size."""
    assert recipe.model is not None
    found = sizes(space)
    return "network", (
        f"{recipe.model.spec}: {si(found['macs'])} MACs, {number(found['params'])} parameters, "
        f"{found['groups']} channel groups, frozen layers: {found['frozen']}"
    )


def images_line(data: Data) -> Line:
    """Where images come from, and what they serve."""
    return "images", (
        f"{data.name}: {number(len(data.fit_indices))} to fit, "
        f"{number(len(data.calibration_indices))} to calibrate, "
        f"{number(len(data.search_indices))} to rank"
    )


def budget_line(recipe: JobRecipes, space: Space, lowest: float) -> Line:
    """The budget, and the least that can be reached."""
    budget = recipe.budget
    dense = space.cost(budget.metric).dense
    metric = {"macs": "MACs", "params": "parameters"}.get(budget.metric, budget.metric)
    return "budget", (
        f"{percent(budget.ratio)} ± {percent(budget.tolerance)} of the {metric}: "
        f"{si(budget.ratio * dense)} of {si(dense)} (reachable: {percent(lowest)} and more)"
    )


def print_lines(lines: Iterable[Line]) -> None:
    """A plan in words on standard output."""
    for name, text in lines:
        output().print(f"[bold]{name:<10}[/]", end="")
        output().print(text, markup=False, soft_wrap=True)
