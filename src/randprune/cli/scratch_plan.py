"""What a recipe from scratch would do, and how long: `randprune scratch --dry-run`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randprune.cli.plan import (
    Line,
    budget_line,
    images,
    images_line,
    network_and_images,
    network_line,
    preprocessing_line,
    sizes,
    traced,
)
from randprune.report.format import number, percent, seconds, si

if TYPE_CHECKING:
    from torch import nn

    from randprune.recipe import ScratchRecipe
    from randprune.space import Space
    from randprune.zoo.data import Data

# A forward and a backward pass cost about three forward passes.
_TRAINED = 3
# Batches of a trial training: the speed that times are estimated from.
_BATCHES = 6


@dataclass(frozen=True, slots=True, eq=False)
class ScratchPlan:
    """A validated recipe with its network traced and widened, its data found, its cost counted.

    Attributes:
        recipe: what would be done.
        space, wide: the channel groups of the original network, and of the widened one.
        stayed: groups that cannot be widened, with reasons.
        data: the images.
        reachable: least and largest share of the budget's metric, relative to the original.
        trainings: networks trained from random weights, by their role.
        macs: multiply-adds by phase; a backward pass counts as two forward passes.
        speed: multiply-adds a second, measured by training the original network for a moment.
    """

    recipe: ScratchRecipe
    space: Space
    wide: Space
    stayed: dict[str, str]
    data: Data
    reachable: tuple[float, float]
    trainings: dict[str, int]
    macs: dict[str, float]
    speed: float

    @classmethod
    def of(cls, recipe: ScratchRecipe, device: str | None = None) -> ScratchPlan:
        """The plan of a recipe that names a network, images and an output folder.

        Raises:
            RandpruneError: whatever would stop the job at its start: an unknown network, missing
                images, a network that cannot be widened, a budget out of reach.
        """
        from randprune.jobs.opening import decided, step_of, widened
        from randprune.jobs.pricing import priced
        from randprune.strategies import reachable
        from randprune.strategies.feasible import require_reachable
        from randprune.widening import wide_budget, widening_of

        network, data = network_and_images(recipe)
        space = traced(recipe, network, data)
        wide = widened(network, space, recipe.widen, recipe.seed)
        step = widening_of(wide)
        search = decided(recipe.search, space)
        recipe = recipe.model_copy(update={"search": search})
        limits = search.min_keep, step_of(search)
        space, budget = priced(recipe.budget, network, space, limits[1], None)
        wide_space, _ = priced(recipe.budget, wide, step.wide, limits[1], None)
        limit = wide_budget(space, wide_space, budget)
        share = limit.ratio / budget.ratio
        require_reachable(wide_space, limit, *limits, whole=share)
        low, high = reachable(wide_space, limit.metric, *limits)
        trainings = _trainings(recipe)
        return cls(
            recipe=recipe,
            space=space,
            wide=wide_space,
            stayed=dict(step.stayed),
            data=data,
            reachable=(low / share, high / share),
            trainings=trainings,
            macs=_macs(recipe, space, wide_space, data, trainings),
            speed=_speed(recipe, network, space, data, device),
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Estimated seconds by phase."""
        return {phase: macs / self.speed for phase, macs in self.macs.items()}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "recipe": self.recipe.document(),
            **sizes(self.space),
            "wide": sizes(self.wide),
            "stayed": self.stayed,
            "reachable": list(self.reachable),
            "images": images(self.data),
            "trainings": self.trainings,
            "phase_macs": self.macs,
            "phase_seconds": self.seconds,
        }

    def lines(self) -> list[Line]:
        """The plan in words."""
        from randprune.jobs.progress import epochs_in_words

        recipe = self.recipe
        shared, training, search = recipe.supernet, recipe.training, recipe.search
        took = {phase: seconds(value) for phase, value in self.seconds.items()}
        ways = [f"{shared.per_step} random per step"]
        ways += ["widest and narrowest"] if shared.sandwich else []
        wide = sizes(self.wide)
        stay = f"; {len(self.stayed)} groups keep their widths" if self.stayed else ""
        rows = ", ".join(f"{role} {count}" for role, count in self.trainings.items())
        lines = [
            network_line(recipe, self.space),
            ("widened", f"{recipe.widen.factor:g}×: {si(wide['macs'])} MACs, "
                        f"{number(wide['params'])} parameters{stay}"),
            images_line(self.data),
            preprocessing_line(self.data),
            budget_line(recipe, self.space, self.reachable[0]),
            ("shared", f"weights: {epochs_in_words(shared.epochs)} on "
                       f"{number(len(self.data.fit))} images, {' + '.join(ways)}: "
                       f"about {took['shared weights']}"),
            ("search", f"{search.candidates} configurations, {search.strategy}, ranked by "
                       f"{search.rank_by}: about {took['search']}"),
            ("trainings", f"{sum(self.trainings.values())} from random weights ({rows}), "
                          f"{epochs_in_words(training.epochs)} on "
                          f"{number(len(self.data.full_train))} images each: "
                          f"about {took['trainings']}"),
        ]  # fmt: skip
        if recipe.controls.pretrained:
            text = f"{percent(recipe.pretrained.share, 0)} of its compute fine-tunes"
            lines += [("control", f"pre-trained route: {text}: about {took['pretrained']}")]
        total = (
            f"{si(sum(self.macs.values()))} multiply-adds, {seconds(sum(self.seconds.values()))}"
        )
        return [*lines, ("in all", f"about {total}"), ("output", recipe.output.folder)]


def _trainings(recipe: ScratchRecipe) -> dict[str, int]:
    """How many networks are trained from random weights, by what they are for."""
    seeds, controls = recipe.training.seeds, recipe.controls
    counts = {
        "original": seeds * controls.dense,
        "searched": seeds,
        "uniform": seeds * controls.uniform,
        "random": seeds * controls.random,
        "other candidates": min(recipe.training.standalone, recipe.search.candidates - 1),
    }
    return {role: count for role, count in counts.items() if count}


def _macs(
    recipe: ScratchRecipe, space: Space, wide: Space, data: Data, trainings: dict[str, int]
) -> dict[str, float]:
    """Multiply-adds by phase, of candidates that use the budget's share of the MACs."""
    from randprune.jobs.opening import step_of
    from randprune.jobs.shared_weights import step_macs

    dense = space.cost("macs").dense
    small = recipe.budget.ratio * dense
    fit, every = len(data.fit), len(data.full_train)
    limits = recipe.search.min_keep, step_of(recipe.search)
    step = step_macs(recipe.supernet, wide, limits, small)
    shared = _TRAINED * recipe.supernet.epochs * fit * step
    looked_at = len(data.search) + len(data.calibration)
    search = recipe.search.candidates * looked_at * small
    one = _TRAINED * recipe.training.epochs * every * small
    originals = trainings.get("original", 0)
    found = {
        "shared weights": shared,
        "search": search,
        "trainings": one * (sum(trainings.values()) - originals + originals * dense / small),
    }
    if recipe.controls.pretrained:
        found["pretrained"] = shared + search + one
    return found


def _speed(
    recipe: ScratchRecipe, network: nn.Module, space: Space, data: Data, device: str | None
) -> float:
    """Multiply-adds a second of a short training of the original network."""
    import numpy as np

    from randprune.training import train

    section = recipe.training.train_recipe(0).replace(epochs=1, warmup_epochs=0.0)
    count = min(len(data.full_train), _BATCHES * section.batch_size)
    part = data.full_train.subset(np.arange(count))
    train(network, part, section, device=device)  # warm-up
    start = time.perf_counter()
    train(network, part, section, device=device)
    return _TRAINED * space.cost("macs").dense * count / (time.perf_counter() - start)
