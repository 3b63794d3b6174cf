"""What callers give to the jobs, checked before anything is done: one sentence for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.program import in_mode, private_copy
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
    if isinstance(budget, bool) or not isinstance(budget, int | float | np.number):
        raise InvalidInputError(
            "The 'budget' parameter must be the share of the MACs that remains, in (0, 1], or a "
            f"Budget. Got {budget!r} instead."
        )
    return Budget("macs", float(budget))


def as_training(finetune: Any) -> dict[str, Any] | None:
    """The [finetune] section that the parameter stands for; None: no training.

    Raises:
        InvalidInputError: none of what the parameter takes.
    """
    if finetune is None or finetune is False:
        return None
    if isinstance(finetune, TrainRecipe):
        return finetune.model_dump()
    if isinstance(finetune, Mapping) and all(isinstance(key, str) for key in finetune):
        return dict(finetune)
    if isinstance(finetune, int) and not isinstance(finetune, bool):
        return {"epochs": finetune} if finetune else None
    raise InvalidInputError(
        "The 'finetune' parameter of prune must be a number of epochs, a TrainRecipe, a "
        f"mapping of its fields, or None. Got {finetune!r} instead."
    )


def check_settings(settings: Any) -> None:
    """Refuse settings that are no mapping of recipe keys."""
    if settings is not None and not isinstance(settings, Mapping):
        raise InvalidInputError(
            "The 'settings' parameter must be a mapping of recipe keys, such as "
            f'{{"finalists": {{"count": 3}}}}. Got {settings!r} instead.'
        )


def check_example(example: Any) -> None:
    """Refuse example inputs that are no tensor."""
    if example is not None and not isinstance(example, Tensor):
        raise InvalidInputError(
            "The 'example_inputs' parameter must be one tensor, a batch of images. "
            f"Got {type(example).__name__} instead."
        )


def check_batches(model: nn.Module, example: Tensor) -> None:
    """Refuse a network whose forward fixes the number of images: it cannot be evaluated.

    Raises:
        InvalidInputError: one image runs, two do not.
    """
    trial = in_mode(private_copy(model))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    one = example[:1].to(device)
    with torch.no_grad():
        try:
            trial(one)
        except Exception:
            return  # what is wrong besides the number of images is said by `trace`
        try:
            trial(torch.cat([one, one]))
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidInputError(
                f"{type(model).__name__} runs on one image and not on two: {reason}. A batch size "
                "is written into its forward; take it from the input (x.flatten(1), x.shape[0])."
            ) from error
