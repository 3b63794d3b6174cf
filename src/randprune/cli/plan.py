"""What a recipe would do, found out without doing it: `randprune prune --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randprune.cli.console import output
from randprune.report.format import number, percent, si

if TYPE_CHECKING:
    from randprune.recipe import PruneRecipe
    from randprune.space import Space
    from randprune.zoo.data import Data


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
        import torch

        from randprune.graph.trace import trace
        from randprune.pipeline.search import create_strategy
        from randprune.search import RandomSearch, reachable
        from randprune.search.feasible import require_reachable
        from randprune.zoo.data import load_data
        from randprune.zoo.models import build_model
        from randprune.zoo.weights import load_weights

        asked, images = recipe.model, recipe.data
        assert asked is not None
        assert images is not None
        network = build_model(asked.spec, asked.num_classes, asked.in_channels, **asked.options)
        if asked.weights:
            load_weights(network, asked.weights)
        data = load_data(
            images.spec,
            calibration=images.calibration,
            search=images.search,
            seed=images.seed,
            **images.options,
        )
        example = torch.zeros(1, *data.image_shape)
        space = trace(network, example, asked.freeze, as_graph=asked.as_graph, allow=asked.allow)
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
            "groups": len(self.space),
            "frozen": len(self.space.frozen),
            "macs": int(self.space.cost("macs").dense),
            "params": int(self.space.cost("params").dense),
            "reachable": list(self.reachable),
            "law": self.law,
            "images": {
                "fit": len(self.data.fit_indices),
                "calibration": len(self.data.calibration_indices),
                "search": len(self.data.search_indices),
            },
        }

    def print(self) -> None:
        """The plan in words."""
        recipe, space, data = self.recipe, self.space, self.data
        assert recipe.model is not None
        budget, search, tuning = recipe.budget, recipe.search, recipe.finetune
        dense = space.cost(budget.metric).dense
        metric = {"macs": "MACs", "params": "parameters"}.get(budget.metric, budget.metric)
        law = f" ({self.law} law)" if self.law else ""
        lines = [
            ("network", f"{recipe.model.spec}: {si(space.cost('macs').dense)} MACs, "
                        f"{number(space.cost('params').dense)} parameters, "
                        f"{len(space)} channel groups, frozen layers: {len(space.frozen)}"),
            ("weights", recipe.model.weights or "none: the network starts untrained"),
            ("images", f"{data.name}: {number(len(data.fit_indices))} to fit, "
                       f"{number(len(data.calibration_indices))} to calibrate, "
                       f"{number(len(data.search_indices))} to rank"),
            ("budget", f"{percent(budget.ratio)} ± {percent(budget.tolerance)} of the {metric}: "
                       f"{si(budget.ratio * dense)} of {si(dense)} "
                       f"(reachable: {percent(self.reachable[0])} and more)"),
            ("search", f"{search.candidates} configurations, {search.strategy}{law}; channels by "
                       f"{recipe.criterion}, repaired by {recipe.recovery}, ranked by "
                       f"{search.rank_by}"),
            ("finalists", f"{recipe.finalists.count}, repaired by "
                          f"{recipe.finalists.recovery or recipe.recovery}"),
            ("training", "none" if tuning is None or tuning.epochs == 0 else
                         f"{tuning.epochs} epochs on {number(len(data.full_train))} images, "
                         f"{tuning.optimizer}, learning rate {tuning.lr:g}"),
            ("output", recipe.output.folder),
        ]  # fmt: skip
        for name, text in lines:
            output().print(f"[bold]{name:<10}[/]", end="")
            output().print(text, markup=False, soft_wrap=True)
