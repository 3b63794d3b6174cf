"""How the main job is called: with a network and images in memory, or with a recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from randprune.atomic import checked_path
from randprune.cost import Budget
from randprune.criteria import Criterion, criteria
from randprune.errors import InvalidInputError
from randprune.evaluate.threads import decide, using
from randprune.graph.program import Inputs
from randprune.jobs.arguments import (
    as_budget,
    as_network,
    as_training,
    check_batches,
    check_example,
    check_settings,
    job_document,
)
from randprune.jobs.opening import (
    data_and_task,
    example_of,
    images_of_recipe,
    network_of_recipe,
    task_of_recipe,
)
from randprune.jobs.progress import Progress, Silent
from randprune.jobs.pruning import prune_network
from randprune.jobs.result import JobRecipes, PruneResult
from randprune.jobs.trainer import Trainer
from randprune.memory import memory_errors
from randprune.recipe import CUSTOM, PruneRecipe
from randprune.recipe.presets import DEFAULT
from randprune.search import Strategy, strategies
from randprune.tasks import Task
from randprune.training import TrainRecipe

Finetune = TrainRecipe | Mapping[str, Any] | Trainer | int | None
Folder = str | os.PathLike[str]


def prune(
    model: nn.Module,
    data: Any,
    budget: float | Budget = 0.5,
    criterion: str | Criterion | None = None,
    candidates: int | None = None,
    recovery: str | None = None,
    finetune: Finetune = None,
    seed: int = 0,
    *,
    task: str | Task | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    metric: Any = None,
    higher_is_better: bool | None = None,
    example_inputs: Inputs | None = None,
    preset: str = DEFAULT,
    strategy: str | Strategy | None = None,
    min_keep: float = 0.1,
    round_to: int = 1,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PruneResult:
    """Prune a trained network: search widths, cut, repair, verify, fine-tune, measure, save.

        result = rp.prune(model, rp_data, budget=0.5, out="runs/half")
        result.model, result.accuracy("searched"), print(result.summary())

    Interrupted at any moment (Ctrl-C, `kill -9`, power), the same call with the same `out` goes on
    where it stopped and ends with the same network. A finished job is only read.

    Args:
        model: the trained network; left bit-identical.
        data: a `Data`, a name such as "npz:DIR", tensors, arrays, torch datasets or loaders, or
            batches of any structure, labelled or not: whatever `randprune.zoo.data.as_data` and
            `randprune.zoo.given.as_any_data` take. Parts of the training samples calibrate and
            rank; the test samples are opened once, for the final numbers.
        budget: the share of the MACs that remains, or a `Budget`.
        criterion: what ranks the channels of a group, by name or as an object; default: the
            preset's, "reconstruction".
        candidates: how many configurations are repaired and evaluated; default: 100.
        recovery: how they are repaired without training: "none", "bn", "least_squares", or a chain
            such as "least_squares+sequential"; default: the preset's, "least_squares".
        finetune: epochs, a `TrainRecipe`, or a mapping of its fields; None or 0: no training. Or a
            trainer of your own: a callable that gets a module and returns it trained, or None where
            it trained in place. It is called once for each network that is compared, with the same
            random state.
        seed: decides everything random.
        task: "classification", "multi_label", "regression", "segmentation", or "outputs", which
            matches the given network's outputs and needs no labels; or an object. Default:
            classification of labelled images, "outputs" for all other data.
        loss: what training minimises, (outputs, batch) -> scalar, in place of the task's.
        metric: what is reported, (outputs, batch) -> number, averaged over samples, or a
            torchmetrics metric, in place of the task's.
        higher_is_better: the direction of `metric`, where it does not say so itself.
        example_inputs: what the network is traced with; default: one sample of the data.
        preset: what stands in for parameters that are not given: "default", what was best on
            measured networks, or "paper", random widths and channels by L1.
        strategy: what proposes configurations, by name or as an object; default: the preset's,
            "lagrangian".
        min_keep: least share of a group's channels that stays.
        round_to: widths are multiples of this number.
        out: the folder for records, recipe and the pruned network; None keeps nothing.
        progress: is told how far the job is.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        settings: any other key of a recipe, in its sections, such as
            ``{"finalists": {"count": 3}, "search": {"rank_by": "accuracy"}}``.

    Raises:
        InvalidInputError: parameters that cannot mean anything.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        WeightsError: weights that are NaN or infinite.
        DataError: images or labels that cannot be used.
        StorageError: `out` cannot be written, or is in use.
        MemoryLimitError: memory does not suffice for a batch.
        VerificationError: the cut is not exact.
        TrainerError: the trainer failed; says how, and has the networks so far.
    """
    model, asked = as_network(model, "prune"), as_budget(budget)
    check_settings(settings)
    check_example(example_inputs)
    if criterion is not None and not isinstance(criterion, str):
        criteria.named_or_given(criterion, Criterion, "criterion")
    if strategy is not None and not isinstance(strategy, str):
        strategies.named_or_given(strategy, Strategy, "strategy")
    samples, chosen = data_and_task(data, task, loss, metric, higher_is_better)
    document = job_document(
        model, asked, seed=seed, preset=preset, criterion=criterion, strategy=strategy,
        candidates=candidates, recovery=recovery, min_keep=min_keep, round_to=round_to,
        settings=settings, finetune=as_training(finetune, "finetune", "prune"),
        task=task if loss is None and metric is None else chosen,
    )  # fmt: skip
    recipe = PruneRecipe.parse(document, "the parameters of prune")
    check_batches(model, example_of(samples, model) if example_inputs is None else example_inputs)
    with job_folder(out) as folder:
        result = prune_network(
            recipe,
            model,
            samples,
            folder,
            progress or Silent(),
            example=example_inputs,
            task=chosen,
            trainer=finetune if callable(finetune) else None,
            criterion=None if isinstance(criterion, str) else criterion,
            strategy=None if isinstance(strategy, str) else strategy,
            device=device,
        )
    return result if out is not None else result.without_folder()


def run_recipe(
    recipe: PruneRecipe,
    *,
    out: Folder | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> PruneResult:
    """Do the job that a recipe describes, with the network and images that it names.

    Args:
        recipe: with [model] and [data].
        out: instead of the recipe's output folder.
        progress, device: as in `prune`.

    Raises:
        InvalidInputError: the recipe names no network, images or folder; and as `prune`.
    """
    trainer = recipe.finetune.trainer if recipe.finetune else ""
    parts = {"criterion": recipe.criterion, "strategy": recipe.search.strategy, "trainer": trainer}
    check_sections(recipe, {**parts, "task": recipe.task.name if recipe.task else ""})
    data, model = images_of_recipe(recipe), network_of_recipe(recipe)
    out = out or recipe.output.folder or None
    with job_folder(out) as folder:
        result = prune_network(
            recipe,
            model,
            data,
            folder,
            progress or Silent(),
            task=task_of_recipe(recipe, data),
            device=device,
        )
    return result if out is not None else result.without_folder()


def check_sections(recipe: JobRecipes, objects: Mapping[str, str]) -> None:
    """The recipe names its network and images, and nothing that was given as an object.

    Raises:
        InvalidInputError: it does not; says what is missing.
    """
    for section, example in (("model", "randprune:resnet20"), ("data", "digits")):
        if getattr(recipe, section) is None:
            raise InvalidInputError(
                f"The recipe has no [{section}] section. Add one, e.g. [{section}] with "
                f'spec = "{example}".'
            )
    assert recipe.model is not None
    for key, name in {"network": recipe.model.spec, **objects}.items():
        if name.startswith(CUSTOM):
            raise InvalidInputError(
                f"The recipe's {key} was given as an object, {name!r}, which a recipe cannot hold. "
                "Give that object to the Python function."
            )


@contextmanager
def job_folder(
    out: Folder | None, batches: Sequence[str] = ("search.batch_size", "finetune.batch_size")
) -> Iterator[Path]:
    """The folder asked for, or one that goes away; within, torch has the threads of a job.

    `batches`: the keys of the recipe to make smaller where memory does not suffice.
    """
    with using(decide().count), memory_errors(*batches):
        if out is not None:
            yield checked_path(out, "out")
            return
        with tempfile.TemporaryDirectory(prefix="randprune-") as folder:
            yield Path(folder)
