"""How a session begins: the network is looked at, traced, and from scratch widened."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.evaluate.inference import logits_of
from randprune.graph.program import evaluation_mode
from randprune.graph.trace import trace
from randprune.jobs.pricing import priced
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import CandidateRules, Session, Subject
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import JobRecipe, ModelSection, Section, WidenSection
from randprune.search.steps import AUTO, step_for
from randprune.space import Space
from randprune.widening import wide_budget, widen, widening_of
from randprune.zoo.data import Data, load_data
from randprune.zoo.dataset import CALIBRATION_LIMIT, SEARCH_LIMIT, balanced
from randprune.zoo.models import build_model
from randprune.zoo.sources import FOLDER_ORDER
from randprune.zoo.splits import Split
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
    example: Tensor | None = None,
) -> Session:
    """The session of a trained network, which candidates are cut from.

    Args:
        recipe: how the network is traced, and what candidates may cost.
        network: on the CPU; never modified.
        data: the images.
        rules: limits on widths, and how candidates are compared.
        seeds: where everything random comes from.
        work: the folder for what is kept until the work is done.
        example: what the network is traced with; default: one image of the data.

    Raises:
        InvalidInputError: the network cannot be traced.
        InfeasibleBudgetError: no configuration meets the budget.
    """
    example = example_of(data) if example is None else example.cpu()
    space = traced(recipe.model, network, example)
    rules = decided(rules, space)
    space, budget = priced(recipe.budget, network, space, step_of(rules), work.parent)
    subject = Subject(network, space, budget)
    session = Session(subject, subject, example, data, rules, seeds, WorkFolder(work))
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
    example: Tensor | None = None,
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
    example = example_of(data) if example is None else example.cpu()
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
    """The same rules with the step of widths as a number: see `randprune.search.steps`."""
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
    fresh: dict[str, Split] = {}
    for part, spec, count, most in (
        ("calibration", asked.calibration_data, asked.calibration, CALIBRATION_LIMIT),
        ("search", asked.search_data, asked.search, SEARCH_LIMIT),
    ):
        if spec:
            images = load_data(spec, **asked.options).full_train
            fresh[part] = balanced(images, count or most, asked.seed)
    return data.with_fresh(**fresh)


def example_of(data: Data) -> Tensor:
    """One normalised batch of one image."""
    return next(data.calibration.batches(1))[0].cpu()


def traced(section: ModelSection | None, network: nn.Module, example: Tensor) -> Space:
    """The channel groups of a network, as a recipe asks for them.

    Raises:
        InvalidInputError: it does not run on the images; says how to bring them to another size.
    """
    asked = ModelSection(spec="") if section is None else section
    try:
        return trace(network, example, asked.freeze, as_graph=asked.as_graph, allow=asked.allow)
    except InvalidInputError as error:
        if example.ndim != 4 or not isinstance(error.__cause__, Exception):
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


def check_outputs(model: nn.Module, data: Data, example: Tensor) -> None:
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
        outputs = logits_of(model(example), "The network").shape[1]
    if outputs > data.num_classes:
        raise InvalidInputError(
            f"The network tells {outputs} classes apart, {data.name} has {data.num_classes} class "
            "folders. If they are some of its classes, say which: a JSON file with the names of "
            f"all {outputs} folders in the order of the network's outputs, as data.options.classes "
            "(--set data.options.classes=FILE). Otherwise use a network with "
            f"{data.num_classes} outputs."
        )
