"""What a recipe would do, found out without doing it: `--dry-run`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from randprune.cli.console import messages, print_json, print_lines
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


class Plan(Protocol):
    """What a recipe would do."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        ...

    def lines(self) -> list[Line]:
        """The plan in words."""
        ...


def show_plan(make: Callable[[], Plan], *, json: bool) -> None:
    """A plan on standard output: what `--dry-run` does."""
    from randprune.evaluate.threads import decide, using

    # Times are judged with the threads that the job will have.
    with messages().status("Looking at the network and the images ..."), using(decide().count):
        plan = make()
    if json:
        print_json(plan.to_json())
        return
    for name, text in plan.lines():
        print_lines([text], head=f"{name:<10}")


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
        from randprune.jobs.opening import check_outputs, decided, example_of, step_of
        from randprune.jobs.pricing import priced
        from randprune.jobs.search_loop import create_strategy
        from randprune.strategies import RandomSearch, reachable
        from randprune.strategies.feasible import require_reachable

        network, data = network_and_images(recipe)
        space = traced(recipe, network, data)
        check_outputs(network, data, example_of(data, network))
        search = decided(recipe.search, space)
        recipe = recipe.model_copy(update={"search": search})
        limits = search.min_keep, step_of(search)
        space, first = priced(recipe.budget, network, space, limits[1], None)
        budgets = recipe.budget.budgets() if recipe.budget.ratios else (first,)
        for budget in budgets:
            require_reachable(space, budget, *limits)
        law = ""
        if recipe.search.strategy == "random":
            strategy = create_strategy(recipe.search, list)
            assert isinstance(strategy, RandomSearch)
            law = strategy.resolve(space, min(budgets, key=lambda one: one.ratio)).law
        span = reachable(space, recipe.budget.metric, *limits)
        return cls(recipe, space, data, span, law, _speed(network, space, data))

    @property
    def seconds(self) -> dict[str, float]:
        """Estimated seconds by phase, without the equations that a repair solves."""
        from randprune.jobs.ledger import BACKWARD_MACS
        from randprune.jobs.session import TABLE_IMAGES
        from randprune.recovery import passes, quick_form
        from randprune.recovery.sensitivity import KEEPS
        from randprune.strategies.base import strategies

        recipe, data = self.recipe, self.data
        dense = self.space.cost("macs").dense
        # The cost of one network of every budget; several share what is known of the network.
        budgets = recipe.budget.budgets()
        small = dense * sum(b.ratio if b.metric == "macs" else 1.0 for b in budgets)
        calibration, judged = len(data.calibration), len(data.search)
        ranked = min(judged, recipe.search.images or judged)
        quick = passes(quick_form(recipe.recovery), calibration)
        per_candidate = ranked + quick.forward + BACKWARD_MACS * quick.backward
        # The part of the dense network after a group, half of it on average, for each width.
        takes = strategies.constructor(recipe.search.strategy)
        tabled = "tables" in inspect.signature(takes).parameters
        tables = TABLE_IMAGES * (1 + len(KEEPS) * len(self.space) / 2) if tabled else 0
        # A repair layer after layer also looks at the dense network.
        thorough = passes(recipe.finalists.recovery or recipe.recovery, calibration)
        seen = thorough.forward + BACKWARD_MACS * thorough.backward
        finalists = (recipe.finalists.count + _CONTROLS) * (
            (judged + seen) * small + min(thorough.forward, calibration) * dense * len(budgets)
        )
        tuning = recipe.finetune
        epochs = tuning.epochs if tuning else 0
        controlled = recipe.controls.random_search and recipe.search.strategy != "random"
        searches = 2 if controlled else 1
        trained = _TRAINED * epochs * len(data.full_train) * small
        macs = {
            "statistics": (calibration + judged + ranked + tables) * dense,
            "search": searches * recipe.search.candidates * per_candidate * small,
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

    def lines(self) -> list[Line]:
        """The plan in words."""
        from randprune.jobs.progress import epochs_in_words

        recipe = self.recipe
        weights = recipe.network.weights
        search, tuning = recipe.search, recipe.finetune
        law = f" ({self.law} law)" if self.law else ""
        return [
            network_line(recipe, self.space),
            ("weights", weights or "none: the network starts untrained"),
            images_line(self.data),
            preprocessing_line(self.data),
            budget_line(recipe, self.space, self.reachable[0]),
            ("search", f"{search.candidates} configurations, {search.strategy}{law}; channels by "
                       f"{recipe.criterion}, repaired by {recipe.recovery}, ranked by "
                       f"{search.rank_by}; widths in multiples of {search.round_to}"),
            ("finalists", f"{recipe.finalists.count}, repaired by "
                          f"{recipe.finalists.recovery or recipe.recovery}"),
            ("training", "none" if tuning is None or tuning.epochs == 0 else
                         f"{epochs_in_words(tuning.epochs)} on "
                         f"{number(len(self.data.full_train))} images, {tuning.optimizer}, "
                         f"learning rate {tuning.lr:g}"),
            ("time", self._time()),
            ("output", recipe.output.folder),
        ]  # fmt: skip

    def _time(self) -> str:
        took = self.seconds
        parts = ", ".join(f"{phase} {seconds(found)}" for phase, found in took.items() if found)
        return (
            f"about {seconds(sum(took.values()))}, and the equations of the repair ({parts}; "
            f"estimated from {_TIMED} images)"
        )


def _speed(network: nn.Module, space: Space, data: Data) -> float:
    """Multiply-adds a second of the dense network on a few images."""
    import torch

    from randprune.graph.call import network_inputs
    from randprune.graph.program import evaluation_mode
    from randprune.graph.trees import count_of

    inputs = network_inputs(
        network, next(data.calibration.batches(min(_TIMED, len(data.calibration))))
    )
    took = []
    with torch.no_grad(), evaluation_mode(network):
        for _ in range(3):
            start = time.perf_counter()
            network(*inputs)
            took.append(time.perf_counter() - start)
    return space.cost("macs").dense * count_of(inputs) / min(took)


def network_and_images(recipe: JobRecipes) -> tuple[nn.Module, Data]:
    """The network, with weights where it has some, and the images that a recipe names."""
    from randprune.jobs.opening import images_of_recipe, network_of

    return network_of(recipe.network), images_of_recipe(recipe)


def traced(recipe: JobRecipes, network: nn.Module, data: Data) -> Space:
    """The channel groups of a recipe's network."""
    from randprune.jobs.opening import example_of, traced as traced_network

    return traced_network(recipe.model, network, example_of(data, network))


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
    if not data.image_shape:
        return ("preprocessing", "as the data source gives its samples")
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
        "calibration": len(data.calibration),
        "search": len(data.search),
    }


def network_line(recipe: JobRecipes, space: Space) -> Line:
    """The network and its size."""
    found = sizes(space)
    return "network", (
        f"{recipe.network.spec}: {si(found['macs'])} MACs, {number(found['params'])} parameters, "
        f"{found['groups']} channel groups, frozen layers: {found['frozen']}"
    )


def images_line(data: Data) -> Line:
    """Where images come from, and what they serve."""
    return "images", (
        f"{data.name}: {number(len(data.fit_indices))} to fit, "
        f"{number(len(data.calibration))} to calibrate, "
        f"{number(len(data.search))} to rank"
    )


def budget_line(recipe: JobRecipes, space: Space, lowest: float) -> Line:
    """The budget, and the least that can be reached."""
    section, budgets = recipe.budget, recipe.budget.budgets()
    cost = space.cost(section.metric)
    dense = cost.dense
    if cost.unit == "ms":
        asked = section.budget(dense)
        shares = [b.ratio for b in budgets] if section.ms is None else [asked.ratio]
        return "budget", (
            f"{' and '.join(f'{share * dense:.3g}' for share in shares)} of {dense:.3g} ms in "
            f"{asked.runs_in}, {asked.threads} thread{'s' if asked.threads > 1 else ''}, "
            f"{asked.batch} image{'s' if asked.batch > 1 else ''} a batch "
            f"(reachable: {lowest * dense:.3g} ms and more)"
        )
    metric = {"macs": "MACs", "params": "parameters"}.get(section.metric, section.metric)
    ratios = " and ".join(percent(budget.ratio) for budget in budgets)
    costs = " and ".join(si(budget.ratio * dense) for budget in budgets)
    return "budget", (
        f"{ratios} ± {percent(section.tolerance)} of the {metric}: {costs} of {si(dense)} "
        f"(reachable: {percent(lowest)} and more)"
    )
