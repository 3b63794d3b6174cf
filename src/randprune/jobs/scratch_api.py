"""How the job from scratch is called: with a network and images in memory, or with a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from randprune.cost import Budget
from randprune.jobs.api import (
    Folder,
    check_sections,
    job_folder,
)
from randprune.jobs.arguments import (
    as_budget,
    as_epochs,
    as_network,
    as_widening,
    check_batches,
    check_example,
    check_settings,
    merge_settings,
)
from randprune.jobs.opening import images_of_recipe, network_of_recipe
from randprune.jobs.progress import Progress, Silent
from randprune.jobs.result import PruneResult
from randprune.jobs.scratch import scratch_network
from randprune.recipe import CUSTOM, ScratchRecipe
from randprune.search import Strategy, strategies
from randprune.training import TrainRecipe
from randprune.zoo.data import as_data

_BATCHES = ("search.batch_size", "supernet.batch_size", "training.batch_size")

Epochs = int | TrainRecipe | Mapping[str, Any]


def prune_from_scratch(
    model: nn.Module,
    data: Any,
    budget: float | Budget = 0.5,
    factor: float | Mapping[str, float] = 1.5,
    candidates: int = 100,
    supernet: Epochs = 20,
    training: Epochs = 20,
    seed: int = 0,
    *,
    seeds: int = 1,
    standalone: int = 0,
    example_inputs: Tensor | None = None,
    strategy: str | Strategy = "random",
    min_keep: float = 0.1,
    round_to: int = 1,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PruneResult:
    """Search the widths of an untrained network, and train what was found from random weights.

        result = rp.prune_from_scratch(model, data, budget=0.5, seeds=3, out="runs/scratch")
        result.model, result.accuracy("searched"), result.accuracy("uniform")
        print(result.summary())

    Interrupted at any moment, the same call with the same `out` goes on where it stopped and ends
    with the same network. A finished job is only read.

    Args:
        model: the original network; left bit-identical. Its weights do not matter, but those of
            layers that cannot draw new ones.
        data: as `prune` takes it.
        budget: the share of the original network's MACs, or a `Budget`.
        factor: how much wider than originally a configuration may be in a layer, of all channel
            groups or by group name.
        candidates: how many configurations are evaluated with shared weights.
        supernet: how the shared weights are trained: epochs, a `TrainRecipe`, or its fields.
        training: how the found network and the controls are trained; the same kinds.
        seed: decides everything random.
        seeds: how often each network is trained.
        standalone: how many more candidates are trained alone, for the rank correlation.
        example_inputs: what the network is traced with; default: one image of the data.
        strategy: what proposes configurations, by name or as an object.
        min_keep: least share of a group's largest width.
        round_to: widths are multiples of this number.
        out: the folder for records, recipe and the network; None keeps nothing.
        progress: is told how far the job is.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        settings: any other key of a recipe, in its sections, such as
            ``{"controls": {"pretrained": False}, "supernet": {"sandwich": True}}``.

    Raises:
        InvalidInputError: parameters that cannot mean anything.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        DataError: images or labels that cannot be used, or a training that diverges.
        UnsupportedModelError: the network cannot be traced or widened.
        StorageError: `out` cannot be written, or is in use.
        MemoryLimitError: memory does not suffice for a batch.
    """
    function = "prune_from_scratch"
    model, asked = as_network(model, function), as_budget(budget)
    check_settings(settings)
    check_example(example_inputs)
    if not isinstance(strategy, str):
        strategies.named_or_given(strategy, Strategy, "strategy")
    document: dict[str, Any] = {
        "seed": seed,
        "model": {"spec": f"{CUSTOM}{type(model).__name__}"},
        "budget": {"metric": asked.metric, "ratio": asked.ratio, "tolerance": asked.tolerance},
        "widen": as_widening(factor),
        "supernet": as_epochs(supernet, "supernet", function),
        "search": {
            "strategy": strategy if isinstance(strategy, str) else f"{CUSTOM}{strategy!r}",
            "candidates": candidates,
            "min_keep": min_keep,
            "round_to": round_to,
        },
        "training": {
            **as_epochs(training, "training", function),
            "seeds": seeds,
            "standalone": standalone,
        },
    }
    merge_settings(document, settings)
    recipe = ScratchRecipe.parse(document, f"the parameters of {function}")
    images = as_data(data)
    check_batches(model, next(images.calibration.batches(1))[0])
    with job_folder(out, _BATCHES) as folder:
        result = scratch_network(
            recipe,
            model,
            images,
            folder,
            progress or Silent(),
            example=example_inputs,
            strategy=None if isinstance(strategy, str) else strategy,
            device=device,
        )
    return result if out is not None else result.without_folder()


def run_scratch_recipe(
    recipe: ScratchRecipe,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult:
    """Do the job that a recipe describes, with the network and images that it names.

    Args:
        recipe: with [model] and [data].
        out: instead of the recipe's output folder.
        progress, device: as in `prune_from_scratch`.

    Raises:
        InvalidInputError: the recipe names no network or images; and as `prune_from_scratch`.
    """
    check_sections(recipe, {"strategy": recipe.search.strategy})
    # A constructor draws weights: the same ones in the process that goes on after an interruption.
    data, model = images_of_recipe(recipe), network_of_recipe(recipe, recipe.seed)
    out = out or recipe.output.folder or None
    with job_folder(out, _BATCHES) as folder:
        result = scratch_network(recipe, model, data, folder, progress or Silent(), device=device)
    return result if out is not None else result.without_folder()
