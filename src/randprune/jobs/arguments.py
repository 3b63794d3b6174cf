"""What callers give to the jobs, checked before anything is done: one sentence for each mistake."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from randprune.cost import LATENCY, Budget
from randprune.errors import InvalidInputError, quoted
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.program import Inputs, as_inputs, in_mode, private_copy
from randprune.graph.trees import check_plain, joined, map_tensors, named_leaves, part_of
from randprune.recipe import CUSTOM
from randprune.tasks import Task
from randprune.tasks.given import function_name
from randprune.training import TrainRecipe
from randprune.zoo.data import Data, as_data
from randprune.zoo.given import as_samples
from randprune.zoo.splits import Samples


def as_network(model: Any, weights: Any, function: str) -> tuple[nn.Module | None, dict[str, Any]]:
    """The network that can be cut, None where it is named; and the section that stands for it.

    Args:
        model: a network, or a name for `build_model`.
        weights: the file with the weights of a named one.
        function: names the caller in messages.

    Raises:
        InvalidInputError, UnsupportedModelError, WeightsError: see `randprune.graph.entrance`.
    """
    if isinstance(model, str):
        return None, {"spec": model, **({} if weights is None else {"weights": os.fspath(weights)})}
    if weights is not None:
        raise InvalidInputError(
            f"The 'weights' parameter of {function} is for a network that is given by its name. "
            f"This {type(model).__name__} has its weights; load others before."
        )
    plain = plain_module(model, function)
    check_network(plain)
    check_values(plain)
    return plain, {"spec": f"{CUSTOM}{type(plain).__name__}"}


def as_fresh(given: Any, data: Data) -> Samples | None:
    """All samples of what a parameter takes beside the data; None where it is not given.

    Raises:
        DataError, InvalidInputError: see `as_data`, or `as_samples` where `data` has no classes.
    """
    if given is None:
        return None
    if not data.num_classes and not isinstance(given, str | Data | Mapping):
        return as_samples(given)
    if isinstance(given, str | Data | Mapping):
        return as_data(given).full_train
    return as_data({"train": given, "test": given}).full_train


def budget_section(budget: Any) -> dict[str, Any]:
    """The section of a recipe that one budget stands for, or several in their order.

    Raises:
        InvalidInputError: neither numbers nor `Budget`s, or several that do not go together.
    """
    several = isinstance(budget, list | tuple) or (isinstance(budget, np.ndarray) and budget.ndim)
    found = tuple(map(as_budget, budget)) if several else (as_budget(budget),)
    if len({replace(one, ratio=1.0) for one in found}) != 1:
        raise InvalidInputError(
            "The 'budget' parameter must be one budget or several of the same cost and tolerance. "
            f"Got {quoted(budget)} instead."
        )
    first = found[0]
    section: dict[str, Any] = {"metric": first.metric, "tolerance": first.tolerance}
    if first.metric == LATENCY:
        section |= {"runtime": first.runs_in, "threads": first.threads, "batch": first.batch}
    ratios = [one.ratio for one in found]
    return {**section, "ratios": ratios} if several else {**section, "ratio": ratios[0]}


def as_budget(budget: Any) -> Budget:
    """`budget` itself, or that share of the MACs.

    Raises:
        InvalidInputError: neither a number nor a `Budget`.
    """
    if isinstance(budget, Budget):
        return budget
    if not _is_number(budget):
        raise InvalidInputError(
            "The 'budget' parameter must be the share of the MACs that remains, in (0, 1], or a "
            f"Budget. Got {quoted(budget)} instead."
        )
    return Budget("macs", float(budget))


def search_document(
    model: Mapping[str, Any],
    budget: Any,
    *,
    seed: int,
    preset: str,
    plugins: Sequence[str],
    criterion: object,
    strategy: object,
    candidates: int | None,
    recovery: str | None,
    min_keep: float,
    round_to: int | Literal["auto"],
    task: str | Task | None,
    settings: Mapping[str, Any] | None,
    finetune: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The recipe, as plain data, that the parameters of `prune` or `search` stand for."""
    document: dict[str, Any] = {
        "seed": seed,
        "preset": preset,
        "plugins": list(plugins) if isinstance(plugins, list | tuple) else plugins,
        "model": dict(model),
        "budget": budget_section(budget),
        "search": {
            "min_keep": min_keep,
            "round_to": round_to,
            **_known(strategy=name_of(strategy), candidates=candidates),
        },
        **_known(criterion=name_of(criterion), recovery=recovery, finetune=finetune),
        **({} if task is None else {"task": {"name": name_of(task)}}),
    }
    merge_settings(document, settings)
    return document


def merge_settings(document: dict[str, Any], settings: Mapping[str, Any] | None) -> None:
    """Put further keys into a recipe's document, section by section, in place."""
    for key, value in (settings or {}).items():
        section = document.get(key)
        both = isinstance(section, dict) and isinstance(value, Mapping)
        document[key] = {**section, **value} if both else value  # type: ignore[dict-item]


def name_of(part: object) -> str | None:
    """What a recipe calls a criterion, a strategy or a task; None where none is given."""
    return part if part is None or isinstance(part, str) else f"{CUSTOM}{part!r}"


def _known(**parameters: Any) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


def as_training(training: Any, parameter: str, function: str) -> dict[str, Any] | None:
    """The section of a recipe that a parameter stands for; None: no training.

    Args:
        training: epochs, a `TrainRecipe`, a mapping of its fields, or a trainer of one's own.
        parameter, function: name it in messages.

    Raises:
        InvalidInputError: none of what the parameter takes.
    """
    if training is None or training is False:
        return None
    if isinstance(training, TrainRecipe):
        return training.model_dump()
    if isinstance(training, Mapping) and all(isinstance(key, str) for key in training):
        return dict(training)
    if callable(training) and not isinstance(training, type):
        return {"trainer": f"{CUSTOM}{function_name(training)}", "controls": True}
    if isinstance(training, int) and not isinstance(training, bool):
        return {"epochs": training} if training else None
    raise InvalidInputError(
        f"The {parameter!r} parameter of {function} must be a number of epochs, a TrainRecipe, a "
        f"mapping of its fields, a trainer that can be called, or None. "
        f"Got {quoted(training)} instead."
    )


def as_epochs(training: Any, parameter: str, function: str) -> dict[str, Any]:
    """The same for a training that cannot be left out.

    Raises:
        InvalidInputError: none of what the parameter takes.
    """
    found = as_training(training, parameter, function)
    if found is None:
        raise InvalidInputError(
            f"The {parameter!r} parameter of {function} must be at least one epoch. "
            f"Got {quoted(training)} instead."
        )
    return found


def as_widening(factor: Any) -> dict[str, Any]:
    """The [widen] section that the parameter stands for.

    Raises:
        InvalidInputError: neither a number nor numbers by group.
    """
    if isinstance(factor, Mapping):
        if all(isinstance(name, str) and _is_number(value) for name, value in factor.items()):
            factors = {name: float(value) for name, value in factor.items()}
            return {"factor": 1.0, "factors": factors}
    elif _is_number(factor):
        return {"factor": float(factor)}
    raise InvalidInputError(
        "The 'factor' parameter of prune_from_scratch must be how much wider layers may become, at "
        f"least 1, as a number or as numbers by channel group. Got {quoted(factor)} instead."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_settings(settings: Any) -> None:
    """Refuse settings that are no mapping of recipe keys."""
    if settings is not None and not isinstance(settings, Mapping):
        raise InvalidInputError(
            "The 'settings' parameter must be a mapping of recipe keys, such as "
            f'{{"finalists": {{"count": 3}}}}. Got {quoted(settings)} instead.'
        )


def check_example(example: Any) -> None:
    """Refuse example inputs that are no tensors, or tensors without values."""
    if example is not None:
        for _, tensor in named_leaves(as_inputs(example)):
            check_plain(tensor, "example inputs")


def check_batches(model: nn.Module, example: Inputs) -> None:
    """Refuse a network whose forward fixes the number of images: it cannot be evaluated.

    Raises:
        InvalidInputError: one image runs, two do not.
    """
    trial = in_mode(private_copy(model))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    one = map_tensors(lambda x: x.to(device), part_of(as_inputs(example), slice(1)))
    with torch.no_grad():
        try:
            trial(*one)
        except Exception:
            return  # what is wrong besides the number of images is said by `trace`
        try:
            trial(*joined([one, one]))
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidInputError(
                f"{type(model).__name__} runs on one image and not on two: {reason}. A batch size "
                "is written into its forward; take it from the input (x.flatten(1), x.shape[0])."
            ) from error
