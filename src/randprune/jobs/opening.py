"""How a session begins: the network is looked at, traced, and from scratch widened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError
from randprune.graph.call import network_inputs
from randprune.graph.program import Inputs, as_inputs, evaluation_mode
from randprune.graph.trace import trace
from randprune.graph.trees import map_tensors
from randprune.jobs.candidate_rules import CandidateRules
from randprune.jobs.pricing import priced
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session, Subject
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import JobRecipe, ModelSection, PruneRecipe, Section, WidenSection
from randprune.space import Space
from randprune.strategies.steps import AUTO, step_for
from randprune.tasks import Classification, Outputs, Task, task_of, tasks
from randprune.tasks.classification import logits_of
from randprune.tasks.given import Function
from randprune.widening import wide_budget, widen, widening_of
from randprune.zoo.data import Data, as_data, load_data
from randprune.zoo.dataset import CALIBRATION_LIMIT, SEARCH_LIMIT, balanced
from randprune.zoo.given import as_any_data, has_classes
from randprune.zoo.models import build_model
from randprune.zoo.sources import FOLDER_ORDER
from randprune.zoo.splits import Samples
from randprune.zoo.weights import load_weights

R = TypeVar("R", bound=CandidateRules)


def open_trained(
    recipe: JobRecipe,
    network: nn.Module,
    data: Data,
    *,
    rules: CandidateRules,
    seeds: Seeds,
    work: Path,
    example: Inputs | None = None,
    task: Task | None = None,
) -> Session:
    """The session of a trained network, which candidates are cut from.

    Args:
        recipe: how the network is traced, and what candidates may cost.
        network: on the CPU; never modified.
        data: the images.
        rules: limits on widths, and how candidates are compared.
        seeds: where everything random comes from.
        work: the folder for what is kept until the work is done.
        example: what the network is traced with; default: one sample of the data.
        task: what the network is for; default: classification.

    Raises:
        InvalidInputError: the network cannot be traced.
        InfeasibleBudgetError: no configuration meets the budget.
    """
    example = example_of(data, network) if example is None else on_cpu(example)
    space = traced(recipe.model, network, example)
    rules = decided(rules, space)
    space, budget = priced(recipe.budget, network, space, step_of(rules), work.parent)
    subject = Subject(network, space, budget)
    session = Session(
        subject, subject, example, data, rules, seeds, WorkFolder(work), task or Classification()
    )
    session.check_reachable()
    return session


def open_widened(
    recipe: JobRecipe,
    widening: WidenSection,
    original: nn.Module,
    data: Data,
    *,
    wide_seed: int,
    rules: CandidateRules,
    seeds: Seeds,
    work: Path,
    example: Inputs | None = None,
) -> Session:
    """The session of an untrained network, which is widened: its widths are searched from scratch.

    Args:
        widening: how much wider a configuration may be.
        original: with the weights that come first in the widened network; never modified.
        wide_seed: of the widened network's new weights.
        recipe, data, rules, seeds, work, example: as in `open_trained`.

    Raises:
        InvalidInputError, UnsupportedModelError: the network cannot be traced or widened.
        InfeasibleBudgetError: no configuration meets the budget.
    """
    if not data.num_classes:
        raise DataError(
            f"Pruning from scratch needs labelled images, which {data.name} has not: shared "
            "weights are trained to classify."
        )
    example = example_of(data, original) if example is None else on_cpu(example)
    space = traced(recipe.model, original, example)
    wide = widened(original, space, widening, wide_seed)
    step, kept, rules = widening_of(wide), work.parent, decided(rules, space)
    space, budget = priced(recipe.budget, original, space, step_of(rules), kept)
    wide_space, _ = priced(recipe.budget, wide, step.wide, step_of(rules), kept)
    session = Session(
        Subject(wide, wide_space, wide_budget(space, wide_space, budget)),
        Subject(original, space, budget),
        example,
        data,
        rules,
        seeds,
        WorkFolder(work),
        trained=False,
    )
    session.check_reachable()
    return session


def decided(rules: R, space: Space) -> R:
    """The same rules with the step of widths as a number: see `randprune.strategies.steps`."""
    if rules.round_to != AUTO:
        return rules
    assert isinstance(rules, Section)
    return rules.model_copy(update={"round_to": step_for(space)})


def step_of(rules: CandidateRules) -> int:
    """The step of decided rules."""
    assert isinstance(rules.round_to, int)
    return rules.round_to


def network_of(asked: ModelSection, seed: int | None = None) -> nn.Module:
    """The network of a recipe's section, with its weights where it has some.

    Args:
        asked: the section.
        seed: of the weights that its constructor draws, the same in any process; None: they are
            drawn from torch's own generator.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = build_model(asked.spec, asked.num_classes, asked.in_channels, **asked.options)
    if asked.weights:
        load_weights(model, asked.weights)
    return model


def images_of_recipe(recipe: JobRecipe) -> Data:
    """The images that a recipe names.

    Raises:
        InvalidInputError, DataError: see `load_data` and `Data.with_fresh`.
    """
    asked = recipe.images
    data = load_data(
        asked.spec,
        calibration=asked.calibration,
        search=asked.search,
        seed=asked.seed,
        **asked.options,
    )
    fresh: dict[str, Samples] = {}
    for part, spec, count, most in (
        ("calibration", asked.calibration_data, asked.calibration, CALIBRATION_LIMIT),
        ("search", asked.search_data, asked.search, SEARCH_LIMIT),
    ):
        if spec:
            images = load_data(spec, **asked.options).full_train
            fresh[part] = balanced(images, count or most, asked.seed)
    return data.with_fresh(**fresh)


def data_and_task(
    data: Any,
    task: str | Task | None,
    loss: Function | None = None,
    metric: Any = None,
    higher_is_better: bool | None = None,
) -> tuple[Data, Task]:
    """The data and the task that a caller's parameters mean.

    Without a name, labelled images are to be classified, and the outputs of the given network are
    to be matched on all other data; a loss or a metric takes the place of the task's own.

    Raises:
        InvalidInputError, DataError: what cannot be used.
    """
    classes = has_classes(data, indices=loss is not None or metric is not None)
    if task is None:
        base: Task = Classification() if classes and loss is None else Outputs()
    else:
        base = tasks.named_or_given(task, Task, "task")
    images = classes and isinstance(base, Classification)
    found = as_data(data) if images or isinstance(data, str) else as_any_data(data)
    if task is None and loss is None and not found.num_classes:
        base = Outputs()
    return found, task_of(base, loss, metric, higher_is_better)


def task_of_recipe(recipe: JobRecipe, data: Data) -> Task:
    """The task that a recipe names; else classification where the data has classes."""
    if isinstance(recipe, PruneRecipe) and recipe.task is not None:
        return recipe.task.task()
    return Classification() if data.num_classes else Outputs()


def on_cpu(example: Inputs) -> Inputs:
    """Inputs on the CPU: the tensor alone where there is one."""
    inputs = map_tensors(lambda x: x.cpu(), as_inputs(example))
    alone = len(inputs) == 1 and isinstance(inputs[0], Tensor)
    return inputs[0] if alone else inputs  # type: ignore[no-any-return]


def example_of(data: Data, network: nn.Module) -> Inputs:
    """The network's inputs of one sample, on the CPU: the tensor alone where there is one."""
    return on_cpu(network_inputs(network, next(data.calibration.batches(1))))


def traced(section: ModelSection | None, network: nn.Module, example: Inputs) -> Space:
    """The channel groups of a network, as a recipe asks for them.

    Raises:
        InvalidInputError: it does not run on the images; says how to bring them to another size.
    """
    asked = ModelSection(spec="") if section is None else section
    try:
        return trace(network, example, asked.freeze, as_graph=asked.as_graph, allow=asked.allow)
    except InvalidInputError as error:
        images = isinstance(example, Tensor) and example.ndim == 4
        if not isinstance(example, Tensor) or not images or error.__cause__ is None:
            raise
        size = " x ".join(map(str, example.shape[2:]))
        wanted = getattr(network, "image_size", None)
        wanted = wanted if isinstance(wanted, int) else 224
        raise InvalidInputError(
            f"{error} The images are {size}: if the network needs others, bring them to their "
            f"size, e.g. --image-size {wanted} (data.options.size), or give images of that size."
        ) from error


def widened(original: nn.Module, space: Space, section: WidenSection, seed: int) -> nn.Module:
    """The original network with every group at the largest width that a configuration may have.

    Args:
        original: with its own weights, which come first in the wide one.
        space: the original's.
        section: a factor for all groups, and others for groups by name.
        seed: of the new weights.
    """
    factor: float | dict[str, float] = section.factor
    if section.factors:
        others = {group.name: section.factor for group in space.groups}
        factor = {**others, **section.factors}
    return widen(original, space, factor, round_to=section.round_to, seed=seed)


def check_outputs(model: nn.Module, data: Data, example: Inputs) -> None:
    """Refuse image folders that were numbered 0, 1, ... for a network that knows more classes.

    A network of 1,000 classes on folders of ten of them would be taken for a very bad one.

    Args:
        model: the trained network; left untouched.
        data: the images.
        example: one batch.

    Raises:
        InvalidInputError: the network has more outputs than there are folders, and no list says
            which output is which folder; or it returns no logits.
    """
    if data.provenance.get("labels") != FOLDER_ORDER:
        return
    with torch.no_grad(), evaluation_mode(model):
        outputs = logits_of(model(*as_inputs(example)), "The network").shape[1]
    if outputs > data.num_classes:
        raise InvalidInputError(
            f"The network tells {outputs} classes apart, {data.name} has {data.num_classes} class "
            "folders. If they are some of its classes, say which: a JSON file with the names of "
            f"all {outputs} folders in the order of the network's outputs, as data.options.classes "
            "(--set data.options.classes=FILE). Otherwise use a network with "
            f"{data.num_classes} outputs (--num-classes {data.num_classes})."
        )
