"""What a recipe would do, found out without doing it: `randprune prune --dry-run`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randprune.cli.console import output
from randprune.report.format import number, percent, seconds, si

if TYPE_CHECKING:
    from torch import nn

    from randprune.jobs.result import JobRecipes
    from randprune.recipe import PruneRecipe
    from randprune.space import Space
    from randprune.zoo.data import Data

# A forward and a backward pass cost about three forward passes.
_TRAINED = 3
# Uniform widths and random channels get what the searched network gets.
_CONTROLS = 2
# Images of the pass that times are estimated from.
_TIMED = 16

Line = tuple[str, str]
"""What a line is about, and what it says."""


@dataclass(frozen=True, slots=True, eq=False)
class JobPlan:
    """A validated recipe with its network traced and its data found.

    Attributes:
        recipe: what would be done.
        space: the channel groups of the network.
        data: the images.
        reachable: least and largest share of the budget's metric.
        law: how the random strategy puts draws on the budget, "" for other strategies.
        speed: multiply-adds a second, measured with a few images.
    """

    recipe: PruneRecipe
    space: Space
    data: Data
    reachable: tuple[float, float]
    law: str
    speed: float

    @classmethod
    def of(cls, recipe: PruneRecipe) -> JobPlan:
        """The plan of a recipe that names a network, images and an output folder.

        Raises:
            RandpruneError: whatever would stop the job at its start: an unknown network, weights
                that do not fit, missing images, outputs that are not the images' classes, a budget
                out of reach.
        """
        from randprune.jobs.opening import check_outputs, example_of
        from randprune.jobs.search import create_strategy
        from randprune.search import RandomSearch, reachable
        from randprune.search.feasible import require_reachable

        network, data = network_and_images(recipe)
        check_outputs(network, data, example_of(data, network))
        space = traced(recipe, network, data)
        limits = recipe.search.min_keep, recipe.search.round_to
        budget = recipe.budget.budget()
        require_reachable(space, budget, *limits)
        law = ""
        if recipe.search.strategy == "random":
            strategy = create_strategy(recipe.search, list)
            assert isinstance(strategy, RandomSearch)
            law = strategy.resolve(space, budget).law
        span = reachable(space, budget.metric, *limits)
        return cls(recipe, space, data, span, law, _speed(network, space, data))

    @property
    def seconds(self) -> dict[str, float]:
        """Estimated seconds by phase, without the equations that a repair solves."""
        from randprune.jobs.session import TABLE_IMAGES
        from randprune.recovery import images_forward, quick_form
        from randprune.recovery.sensitivity import KEEPS
        from randprune.search.base import strategies

        recipe, data = self.recipe, self.data
        dense = self.space.cost("macs").dense
        small = dense * (recipe.budget.ratio if recipe.budget.metric == "macs" else 1.0)
        calibration, judged = len(data.calibration_indices), len(data.search_indices)
        ranked = min(judged, recipe.search.images or judged)
        quick = images_forward(quick_form(recipe.recovery), calibration)
        # The part of the dense network after a group, half of it on average, for each width.
        takes = strategies.constructor(recipe.search.strategy)
        tabled = "tables" in inspect.signature(takes).parameters
        tables = TABLE_IMAGES * (1 + len(KEEPS) * len(self.space) / 2) if tabled else 0
        # A repair layer after layer also looks at the dense network.
        thorough = images_forward(recipe.finalists.recovery or recipe.recovery, calibration)
        finalists = (recipe.finalists.count + _CONTROLS) * (
            (judged + thorough) * small + thorough * dense
        )
        tuning = recipe.finetune
        epochs = tuning.epochs if tuning else 0
        trained = _TRAINED * epochs * len(data.full_train) * small
        macs = {
            "statistics": (calibration + judged + ranked + tables) * dense,
            "search": recipe.search.candidates * (ranked + quick) * small,
            "finalists": finalists,
            "training": trained * (1 + _CONTROLS if tuning and tuning.controls else 1),
        }
        return {phase: count / self.speed for phase, count in macs.items()}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "recipe": self.recipe.document(),
            **sizes(self.space),
            "reachable": list(self.reachable),
            "law": self.law,
            "images": images(self.data),
            "seconds": self.seconds,
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
            preprocessing_line(self.data),
            budget_line(recipe, self.space, self.reachable[0]),
            ("search", f"{search.candidates} configurations, {search.strategy}{law}; channels by "
                       f"{recipe.criterion}, repaired by {recipe.recovery}, ranked by "
                       f"{search.rank_by}"),
            ("finalists", f"{recipe.finalists.count}, repaired by "
                          f"{recipe.finalists.recovery or recipe.recovery}"),
            ("training", "none" if tuning is None or tuning.epochs == 0 else
                         f"{tuning.epochs} epochs on {number(len(self.data.full_train))} images, "
                         f"{tuning.optimizer}, learning rate {tuning.lr:g}"),
            ("time", self._time()),
            ("output", recipe.output.folder),
        ])  # fmt: skip

    def _time(self) -> str:
        took = self.seconds
        parts = ", ".join(f"{phase} {seconds(found)}" for phase, found in took.items() if found)
        return (
            f"about {seconds(sum(took.values()))} and the equations of the repair ({parts}; "
            f"judged by {_TIMED} images)"
        )


def _speed(network: nn.Module, space: Space, data: Data) -> float:
    """Multiply-adds a second of the dense network on a few images."""
    import torch

    from randprune.graph.program import evaluation_mode

    batch = next(data.calibration.batches(min(_TIMED, len(data.calibration))))[0]
    took = []
    with torch.no_grad(), evaluation_mode(network):
        for _ in range(3):
            start = time.perf_counter()
            network(batch)
            took.append(time.perf_counter() - start)
    return space.cost("macs").dense * len(batch) / min(took)


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


def preprocessing_line(data: Data) -> Line:
    """What is done to each image before the network sees it."""
    channels, height, width = data.image_shape
    split = data.full_train
    size = f"{channels} x {height} x {width}"
    own = data.provenance.get("files")
    resize = getattr(split, "resize", None)
    if own == f"{height} x {width}":
        how = f"{size}, as in the files"
    elif resize is not None:
        how = f"files {own}, resized to a shorter side of {resize} and cropped to {size}"
    else:
        how = size
    mean, std = getattr(split, "mean", None), getattr(split, "std", None)
    if mean is not None and std is not None:
        how += f"; mean {_numbers(mean)}, deviation {_numbers(std)} of pixels in [0, 1]"
    return "pixels", how


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


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
