"""The optimizer that a recipe asks for, its state as named tensors, and the average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from randprune.errors import ArtifactError, InvalidInputError
from randprune.training.recipe import TrainRecipe


def make_optimizer(network: nn.Module, recipe: TrainRecipe) -> Optimizer:
    """SGD or AdamW over the parameters that require gradients; fused: one pass over all weights.

    Raises:
        InvalidInputError: no parameter requires a gradient.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise InvalidInputError(
            f"No parameter of {type(network).__name__} requires a gradient, so there is nothing to "
            "train. Call requires_grad_(True) on the parts to train."
        )
    decayed = [p for p in trained if p.ndim > 1 or recipe.decay_norm_and_bias]
    plain = [p for p in trained if p.ndim <= 1 and not recipe.decay_norm_and_bias]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, recipe.weight_decay), (plain, 0.0))
        if params
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0.0,
        fused=fused,
    )


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by name; parameters count in the order of its groups."""
    return {
        f"optimizer.{index}.{key}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned.

    Buffers get the memory order of their parameter: fused steps walk through both in memory order.
    """
    parameters = _parameters(optimizer)
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix != "optimizer":
            continue
        index, _, key = rest.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            held = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
            held.copy_(value)
        else:
            held = value.to(parameter.device)
        optimizer.state[parameter][key] = held


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


class WeightAverage:
    """Exponential moving average of the weights and batch-norm statistics of a network.

    After step t (from 1) the decay is min(decay, (1 + t) / (10 + t)), so that the beginning does
    not weigh for long. Whole-number buffers are not averaged.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {
            name: tensor.detach()
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
            if tensor.is_floating_point()
        }
        self.mean = {name: tensor.clone() for name, tensor in self.live.items()}

    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), share)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by name."""
        return {f"average.{name}": tensor for name, tensor in self.mean.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        for name, mean in self.mean.items():
            if f"average.{name}" not in tensors:
                raise ArtifactError(f"The training state holds no average of {name!r}.")
            mean.copy_(tensors[f"average.{name}"])

    def write_to(self, network: nn.Module) -> None:
        """Put the averages into another copy of the network."""
        found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        with torch.no_grad():
            for name, mean in self.mean.items():
                found[name].copy_(mean)
