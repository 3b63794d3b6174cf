"""How the jobs are called: with a network and images in memory, or with a recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

from torch import nn

from randprune.atomic import checked_path
from randprune.cost import Budget
from randprune.criteria import Criterion, criteria
from randprune.errors import InvalidInputError
from randprune.evaluate.threads import decide, using
from randprune.graph.program import Inputs, in_mode
from randprune.jobs.arguments import (
    as_budget,
    as_epochs,
    as_fresh,
    as_network,
    as_training,
    as_widening,
    budget_section,
    check_batches,
    check_example,
    check_settings,
    merge_settings,
    name_of,
    search_document,
)
from randprune.jobs.budgets import prune_to_budgets
from randprune.jobs.curve import PruneCurve
from randprune.jobs.job import Given
from randprune.jobs.opening import (
    data_and_task,
    example_of,
    images_of_recipe,
    network_of,
    task_of_recipe,
)
from randprune.jobs.progress import Progress, checked
from randprune.jobs.pruning import prune_network
from randprune.jobs.result import JobRecipes, PruneResult
from randprune.jobs.scratch import scratch_network
from randprune.jobs.trainer import Trainer
from randprune.memory import memory_errors
from randprune.recipe import CUSTOM, PruneRecipe, ScratchRecipe
from randprune.recipe.presets import DEFAULT
from randprune.strategies import Strategy, strategies
from randprune.tasks import Task
from randprune.tasks.given import Function
from randprune.training import TrainRecipe
from randprune.zoo.data import Data, as_data

Epochs = int | TrainRecipe | Mapping[str, Any]
Finetune = Epochs | Trainer | None
Folder = str | os.PathLike[str]

# Keys of the recipes to make smaller where memory does not suffice.
_BATCHES = {
    "prune": ("search.batch_size", "finetune.batch_size"),
    "scratch": ("search.batch_size", "supernet.batch_size", "training.batch_size"),
}


@overload
def prune(
    model: nn.Module | str,
    data: Any,
    budget: float | Budget = 0.5,
    criterion: str | Criterion | None = None,
    candidates: int | None = None,
    recovery: str | None = None,
    finetune: Finetune = None,
    seed: int = 0,
    *,
    task: str | Task | None = None,
    loss: Function | None = None,
    metric: Any = None,
    higher_is_better: bool | None = None,
    weights: Folder | None = None,
    calibration_data: Any = None,
    search_data: Any = None,
    example_inputs: Inputs | None = None,
    preset: str = DEFAULT,
    strategy: str | Strategy | None = None,
    min_keep: float = 0.1,
    round_to: int | Literal["auto"] = "auto",
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    plugins: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> PruneResult: ...


@overload
def prune(
    model: nn.Module | str,
    data: Any,
    budget: Sequence[float | Budget],
    criterion: str | Criterion | None = None,
    candidates: int | None = None,
    recovery: str | None = None,
    finetune: Finetune = None,
    seed: int = 0,
    *,
    task: str | Task | None = None,
    loss: Function | None = None,
    metric: Any = None,
    higher_is_better: bool | None = None,
    weights: Folder | None = None,
    calibration_data: Any = None,
    search_data: Any = None,
    example_inputs: Inputs | None = None,
    preset: str = DEFAULT,
    strategy: str | Strategy | None = None,
    min_keep: float = 0.1,
    round_to: int | Literal["auto"] = "auto",
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    plugins: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> PruneCurve: ...


def prune(
    model: nn.Module | str,
    data: Any,
    budget: float | Budget | Sequence[float | Budget] = 0.5,
    criterion: str | Criterion | None = None,
    candidates: int | None = None,
    recovery: str | None = None,
    finetune: Finetune = None,
    seed: int = 0,
    *,
    task: str | Task | None = None,
    loss: Function | None = None,
    metric: Any = None,
    higher_is_better: bool | None = None,
    weights: Folder | None = None,
    calibration_data: Any = None,
    search_data: Any = None,
    example_inputs: Inputs | None = None,
    preset: str = DEFAULT,
    strategy: str | Strategy | None = None,
    min_keep: float = 0.1,
    round_to: int | Literal["auto"] = "auto",
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    plugins: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> PruneResult | PruneCurve:
    """Prune a trained network: search widths, cut, repair, verify, fine-tune, measure, save.

        result = rp.prune(model, rp_data, budget=0.5, out="runs/half")
        result.model, result.accuracy("searched"), print(result.summary())

    Interrupted at any moment (Ctrl-C, `kill -9`, power), the same call with the same `out` goes on
    where it stopped and ends with the same network. A finished job is only read.

    Args:
        model: the trained network, left bit-identical; or a name such as "torchvision:resnet18".
        data: a `Data`, a name such as "npz:DIR", tensors, arrays, torch datasets or loaders, or
            batches of any structure, labelled or not: whatever `randprune.zoo.data.as_data` and
            `randprune.zoo.given.as_any_data` take. Parts of the training samples calibrate and
            rank; the test samples are opened once, for the final numbers.
        budget: the share of the MACs that remains, or a `Budget`; or several of them, which share
            all that is known of the network and give a `PruneCurve`.
        criterion: what ranks the channels of a group, by name or as an object; default: the
            preset's, "reconstruction".
        candidates: how many configurations are repaired and evaluated; default: 100.
        recovery: how they are repaired without training: "none", "bn", "least_squares", or a chain
            such as "least_squares+sequential"; default: the preset's, "least_squares".
        finetune: epochs, a `TrainRecipe`, or a mapping of its fields; None or 0: no training. Or a
            trainer of your own: a callable that gets a module and returns it trained, or None where
            it trained in place. It is called once for each network that is compared, with the same
            random state.
        seed: random seed; the same seed gives the same result.
        task: "classification", "multi_label", "regression", "segmentation", or "outputs", which
            matches the given network's outputs and needs no labels; or an object. Default:
            classification of labelled images, "outputs" for all other data.
        loss: what training minimises, (outputs, batch) -> scalar, in place of the task's.
        metric: what is reported, (outputs, batch) -> number, averaged over samples, or a
            torchmetrics metric, in place of the task's.
        higher_is_better: the direction of `metric`, where it does not say so itself.
        weights: the file with the weights of a network that was given by its name.
        calibration_data: other images for repair and criteria than training images, which the
            network has seen: whatever `data` may be, all of its training images.
        search_data: other images on which candidates are compared, new to the network too.
        example_inputs: what the network is traced with; default: one sample of the data.
        preset: what stands in for parameters that are not given: "default", what was best on
            measured networks; "thorough", which repairs every candidate layer after layer; or
            "paper", random widths and channels by L1.
        strategy: what proposes configurations, by name or as an object; default: the preset's,
            "lagrangian".
        min_keep: least share of a group's channels that stays.
        round_to: widths are multiples of this number; "auto": of 16 or 8, which runtimes reward,
            where the network is wide enough, else of 1.
        out: the folder for records, recipe and the pruned network; None keeps nothing.
        progress: is told how far the job is; default: bars in a notebook, nothing elsewhere.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        plugins: modules to import first, which register criteria, strategies or recoveries.
        settings: any other key of a recipe, in its sections, such as
            ``{"finalists": {"count": 3}, "search": {"rank_by": "accuracy"}}``.

    Raises:
        InvalidInputError: invalid parameters; the message says what to give instead.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        WeightsError: weights that are NaN or infinite.
        DataError: images or labels that cannot be used.
        StorageError: `out` cannot be written, or is in use.
        MemoryLimitError: memory does not suffice for a batch.
        VerificationError: the cut is not exact.
        TrainerError: the trainer failed; says how, and has the networks so far.
    """
    network, section = as_network(model, weights, "prune")
    check_settings(settings)
    check_example(example_inputs)
    if criterion is not None and not isinstance(criterion, str):
        criteria.named_or_given(criterion, Criterion, "criterion")
    if strategy is not None and not isinstance(strategy, str):
        strategies.named_or_given(strategy, Strategy, "strategy")
    section_of_task = (settings or {}).get("task") if task is None else None
    task = section_of_task.get("name") if isinstance(section_of_task, Mapping) else task
    samples, chosen = data_and_task(data, task, loss, metric, higher_is_better)
    document = search_document(
        section, budget, seed=seed, preset=preset, plugins=plugins, criterion=criterion,
        strategy=strategy, candidates=candidates, recovery=recovery, min_keep=min_keep,
        round_to=round_to, task=task if loss is None and metric is None else chosen,
        settings=settings, finetune=as_training(finetune, "finetune", "prune"),
    )  # fmt: skip
    where = "the parameters of prune"
    recipe = PruneRecipe.parse(document, where).resolved(where)
    if recipe.task is not None and not recipe.task.name.startswith(CUSTOM):
        chosen = recipe.task.task()
    network = network or in_mode(network_of(recipe.network))
    samples = samples.with_fresh(
        calibration=as_fresh(calibration_data, samples), search=as_fresh(search_data, samples)
    )
    trainer = finetune if callable(finetune) else None
    with _given(
        recipe, network, samples, out, progress, device, example_inputs, chosen, trainer
    ) as given:
        result = _pruned(
            recipe,
            given,
            criterion=None if isinstance(criterion, str) else criterion,
            strategy=None if isinstance(strategy, str) else strategy,
        )
    return result if out is not None else result.without_folder()


def prune_from_scratch(
    model: nn.Module | str,
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
    example_inputs: Inputs | None = None,
    strategy: str | Strategy = "random",
    min_keep: float = 0.1,
    round_to: int | Literal["auto"] = "auto",
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
        model: the original network, left bit-identical, or its name. Its weights do not matter,
            but those of layers that cannot draw new ones.
        data: as `prune` takes it.
        budget: the share of the original network's MACs, or a `Budget`.
        factor: how much wider than originally a configuration may be in a layer, of all channel
            groups or by group name.
        candidates: how many configurations are evaluated with shared weights.
        supernet: how the shared weights are trained: epochs, a `TrainRecipe`, or its fields.
        training: how the found network and the controls are trained; the same kinds.
        seed: random seed; the same seed gives the same result.
        seeds: how often each network is trained.
        standalone: how many more candidates are trained alone, for the rank correlation.
        example_inputs: what the network is traced with; default: one image of the data.
        strategy: what proposes configurations, by name or as an object.
        min_keep: least share of a group's largest width.
        round_to: widths are multiples of this number; "auto": of 16 or 8, which runtimes reward,
            where the network is wide enough, else of 1.
        out: the folder for records, recipe and the network; None keeps nothing.
        progress: is told how far the job is; default: bars in a notebook, nothing elsewhere.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        settings: any other key of a recipe, in its sections, such as
            ``{"controls": {"pretrained": False}, "supernet": {"sandwich": True}}``.

    Raises:
        InvalidInputError: invalid parameters; the message says what to give instead.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        DataError: images or labels that cannot be used, or a training that diverges.
        UnsupportedModelError: the network cannot be traced or widened.
        StorageError: `out` cannot be written, or is in use.
        MemoryLimitError: memory does not suffice for a batch.
    """
    function = "prune_from_scratch"
    network, section = as_network(model, None, function)
    check_settings(settings)
    check_example(example_inputs)
    if not isinstance(strategy, str):
        strategies.named_or_given(strategy, Strategy, "strategy")
    document: dict[str, Any] = {
        "seed": seed,
        "model": section,
        "budget": budget_section(as_budget(budget)),
        "widen": as_widening(factor),
        "supernet": as_epochs(supernet, "supernet", function),
        "search": {
            "strategy": name_of(strategy),
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
    network = network or network_of(recipe.network, seed)
    with _given(recipe, network, as_data(data), out, progress, device, example_inputs) as given:
        proposer = None if isinstance(strategy, str) else strategy
        result = scratch_network(recipe, given, strategy=proposer)
    return result if out is not None else result.without_folder()


@overload
def run_recipe(
    recipe: ScratchRecipe,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult: ...


@overload
def run_recipe(
    recipe: JobRecipes,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult | PruneCurve: ...


def run_recipe(
    recipe: JobRecipes,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult | PruneCurve:
    """Do the job that a recipe describes, with the network and images that it names.

    Args:
        recipe: with [model] and [data].
        out: instead of the recipe's output folder.
        progress, device: as in `prune`.

    Returns:
        A `PruneCurve` where the recipe has several budgets.

    Raises:
        InvalidInputError: the recipe names no network or images; and as `prune` or
            `prune_from_scratch`.
    """
    recipe = recipe.resolved()
    scratch = isinstance(recipe, ScratchRecipe)
    named = {"network": recipe.network.spec, "strategy": recipe.search.strategy}
    if isinstance(recipe, PruneRecipe):
        named["criterion"] = recipe.criterion
        named["task"] = "" if recipe.task is None else recipe.task.name
        named["trainer"] = "" if recipe.finetune is None else recipe.finetune.trainer
    for key, name in named.items():
        if name.startswith(CUSTOM):
            raise InvalidInputError(
                f"The recipe's {key} was given as an object, {name!r}, which a recipe cannot hold. "
                "Give that object to the Python function."
            )
    images = images_of_recipe(recipe)
    # From scratch the constructor's weights matter: they are the same ones in the process that goes
    # on after an interruption.
    model = network_of(recipe.network, recipe.seed if scratch else None)
    out = out or recipe.output.folder or None
    with _given(recipe, model, images, out, progress, device) as given:
        if isinstance(recipe, ScratchRecipe):
            result: PruneResult | PruneCurve = scratch_network(recipe, given)
        else:
            result = _pruned(recipe, given)
    return result if out is not None else result.without_folder()


def run_scratch_recipe(
    recipe: ScratchRecipe,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult:
    """The same as `run_recipe`."""
    return run_recipe(recipe, out=out, progress=progress, device=device)


def _pruned(
    recipe: PruneRecipe,
    given: Given,
    *,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
) -> PruneResult | PruneCurve:
    """The job for one budget, or for each of several."""
    if recipe.budget.ratios:
        return prune_to_budgets(recipe, given, criterion=criterion, strategy=strategy)
    return prune_network(recipe, given, criterion=criterion, strategy=strategy)


@contextmanager
def _given(
    recipe: JobRecipes,
    model: nn.Module,
    data: Data,
    out: Folder | None,
    progress: Progress | None,
    device: str | None,
    example: Inputs | None = None,
    task: Task | None = None,
    trainer: Trainer | None = None,
) -> Iterator[Given]:
    """What a job works on; within the block torch has the threads of a job.

    Without `out` the folder goes away after the block.
    """
    check_batches(model, example_of(data, model) if example is None else example)
    shown = checked(progress)
    task = task_of_recipe(recipe, data) if task is None else task
    with using(decide().count), memory_errors(*_BATCHES[recipe.job]):
        if out is not None:
            folder = checked_path(out, "out")
            yield Given(model, data, folder, shown, example, device, task, trainer)
            return
        with tempfile.TemporaryDirectory(prefix="randprune-") as made:
            yield Given(model, data, Path(made), shown, example, device, task, trainer)
