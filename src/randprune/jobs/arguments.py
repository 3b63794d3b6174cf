"""What callers give to the jobs, checked before anything is done: one sentence for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.program import Inputs, as_inputs, in_mode, private_copy
from randprune.graph.trees import joined, map_tensors, part_of
from randprune.recipe import CUSTOM
from randprune.tasks import Task
from randprune.tasks.given import function_name
from randprune.training import TrainRecipe


def as_network(model: Any, function: str) -> nn.Module:
    """The network inside of `model`, which can be cut.

    Raises:
        InvalidInputError, UnsupportedModelError, WeightsError: see `randprune.graph.entrance`.
    """
    plain = plain_module(model, function)
    check_network(plain)
    check_values(plain)
    return plain


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
            f"Budget. Got {budget!r} instead."
        )
    return Budget("macs", float(budget))


def job_document(
    model: nn.Module,
    budget: Budget,
    *,
    seed: int,
    preset: str,
    criterion: object,
    strategy: object,
    candidates: int | None,
    recovery: str | None,
    min_keep: float,
    round_to: int,
    settings: Mapping[str, Any] | None,
    finetune: Mapping[str, Any] | None = None,
    task: str | Task | None = None,
) -> dict[str, Any]:
    """The recipe, as plain data, that the parameters of a Python call stand for."""
    document: dict[str, Any] = {
        "seed": seed,
        "preset": preset,
        "model": {"spec": f"{CUSTOM}{type(model).__name__}"},
        "budget": {"metric": budget.metric, "ratio": budget.ratio, "tolerance": budget.tolerance},
        "search": {
            "min_keep": min_keep,
            "round_to": round_to,
            **_given(strategy=_name(strategy), candidates=candidates),
        },
        **_given(criterion=_name(criterion), recovery=recovery, finetune=finetune),
        **({} if task is None else {"task": {"name": _name(task)}}),
    }
    merge_settings(document, settings)
    return document


def merge_settings(document: dict[str, Any], settings: Mapping[str, Any] | None) -> None:
    """Put further keys into a recipe's document, section by section, in place."""
    for key, value in (settings or {}).items():
        section = document.get(key)
        both = isinstance(section, Mapping) and isinstance(value, Mapping)
        document[key] = {**section, **value} if both else value  # type: ignore[dict-item]


def _given(**parameters: Any) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


def _name(part: object) -> str | None:
    """What a recipe calls a criterion or a strategy; None where none is given."""
    return part if part is None or isinstance(part, str) else f"{CUSTOM}{part!r}"


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
        f"mapping of its fields, a trainer that can be called, or None. Got {training!r} instead."
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
            f"Got {training!r} instead."
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
        f"least 1, as a number or as numbers by channel group. Got {factor!r} instead."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_settings(settings: Any) -> None:
    """Refuse settings that are no mapping of recipe keys."""
    if settings is not None and not isinstance(settings, Mapping):
        raise InvalidInputError(
            "The 'settings' parameter must be a mapping of recipe keys, such as "
            f'{{"finalists": {{"count": 3}}}}. Got {settings!r} instead.'
        )


def check_example(example: Any) -> None:
    """Refuse example inputs that are no tensors."""
    if example is not None:
        as_inputs(example)


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
