"""One check for every network of the graph tests: traced, cut at random, and proven right."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

import randprune as rp
from randprune.space import Selection, Space

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def as_tuple(inputs: Any) -> tuple[Any, ...]:
    return (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)


def counted_macs(model: nn.Module, inputs: Any) -> float:
    """Half of what torch's counter reports for one forward pass in evaluation mode."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    # With gradients on: without them torch replaces transformer layers by one uncounted operator.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(*as_tuple(inputs))
    for module, flag in flags:
        module.training = flag
    return counter.get_total_flops() / 2


def counted_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def random_kept(space: Space, seed: int, low: float = 0.1, high: float = 1.0) -> Selection:
    """A random subset of every group, of a random size; seeds 0 and 1 give one channel and all."""
    rng = np.random.default_rng(seed)
    kept = []
    for width in space.widths.tolist():
        count = int(np.clip(round(rng.uniform(low, high) * width), 1, width))
        kept.append(np.sort(rng.permutation(width)[:count]).astype(np.int64))
    return Selection(tuple(kept), space.fingerprint)


def fill_randomly(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random numbers in every parameter and statistic, so that no default hides a channel."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim < 2:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5 + 0.3)
    return model


def state_bytes(model: nn.Module) -> dict[str, bytes]:
    return {n: t.detach().cpu().numpy().tobytes() for n, t in model.state_dict().items()}


def check_slots(model: nn.Module, space: Space) -> None:
    """Slots name real axes; a place belongs to one channel of one group; roles are complete."""
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    taken: set[tuple[str, int, int]] = set()
    names = [group.name for group in space.groups]
    assert len(set(names)) == len(names)
    for group in space.groups:
        assert group.slots
        assert group.width >= 1
        assert {slot.role for slot in group.slots} & {"out", "in"}
        for slot in group.slots:
            assert slot.index.dtype == np.int64
            assert slot.index.ndim == 2
            assert slot.index.shape[0] == group.width
            assert slot.index.min() >= 0
            assert slot.index.max() < tensors[slot.tensor].shape[slot.dim]
            for place in slot.index.reshape(-1).tolist():
                key = (slot.tensor, slot.dim, place)
                assert key not in taken, f"{key} belongs to two channels"
                taken.add(key)


def check_attributes(small: nn.Module) -> None:
    """What a layer says about itself is what its tensors hold."""
    for name, module in small.named_modules():
        if isinstance(module, CONVOLUTIONS):
            weight = module.weight
            first, second = weight.shape[:2]
            if isinstance(module, _ConvTransposeNd):
                wanted = (first, second * module.groups)
            else:
                wanted = (second * module.groups, first)
            assert (module.in_channels, module.out_channels) == wanted, name
            assert module.out_channels % module.groups == 0, name
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape), name
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            for tensor in (module.weight, module.running_mean):
                assert tensor is None or module.num_features == tensor.shape[0], name
        elif isinstance(module, nn.GroupNorm) and module.weight is not None:
            assert module.num_channels == module.weight.shape[0], name
            assert module.num_channels % module.num_groups == 0, name
        elif isinstance(module, nn.LayerNorm) and module.weight is not None:
            assert tuple(module.normalized_shape) == tuple(module.weight.shape), name
        elif isinstance(module, nn.PReLU):
            assert module.num_parameters == module.weight.shape[0], name


def check(
    model: nn.Module,
    inputs: Any,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    train: bool = True,
    retrace: bool = True,
    low: float = 0.1,
    randomise: bool = True,
    **options: Any,
) -> Space:
    """Trace, and prove cuts at several random selections; returns the space.

    The caller's model is bit-identical after each call, costs equal the FLOP counter exactly, the
    space survives JSON, cut networks train, and tracing a cut network again gives its widths.
    """
    if randomise:
        fill_randomly(model)
    before, modes = state_bytes(model), [module.training for module in model.modules()]
    space = rp.trace(model, inputs, **options)
    assert state_bytes(model) == before
    assert [module.training for module in model.modules()] == modes
    check_slots(model, space)
    macs, params = space.cost("macs"), space.cost("params")
    # An emitted graph has no unused layers, and weights that were computed are stored as such.
    dense = rp.cut(model, space, space.dense) if space.as_graph else model
    assert macs.dense == counted_macs(dense, inputs)
    assert params.dense == counted_params(dense)
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again.fingerprint == space.fingerprint
    for seed in seeds:
        selection = random_kept(space, seed, low)
        small = rp.cut(model, space, selection)
        assert float(macs(selection.widths)) == counted_macs(small, inputs)
        assert float(params(selection.widths)) == counted_params(small)
        assert float(again.cost("macs")(selection.widths)) == float(macs(selection.widths))
        assert rp.verify(model, small, space, selection, inputs) <= 1e-6
        check_attributes(small)
        if train and seed == seeds[0]:
            check_trains(small, inputs)
        if retrace and seed == seeds[-1]:
            check_retraced(small, space, selection, inputs, options)
    assert state_bytes(model) == before
    assert [module.training for module in model.modules()] == modes
    return space


def check_trains(small: nn.Module, inputs: Any) -> None:
    """One backward pass and optimiser step: every gradient has the shape of its parameter."""
    small = copy.deepcopy(small)
    optimiser = torch.optim.SGD(small.parameters(), lr=0.01)
    outputs = small(*as_tuple(inputs))
    loss = sum((t.float() ** 2).mean() for t in tensors_of(outputs))
    loss.backward()
    gradients = [p.grad for p in small.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    optimiser.step()


def check_retraced(
    small: nn.Module, space: Space, selection: Selection, inputs: Any, options: dict[str, Any]
) -> None:
    """The cut network exports again and costs what the dense network's polynomial said."""
    options = {key: value for key, value in options.items() if key != "freeze"}
    again = rp.trace(small, inputs, trial=False, **options)
    assert again.cost("macs").dense == float(space.cost("macs")(selection.widths))
    assert again.cost("params").dense == float(space.cost("params")(selection.widths))


def tensors_of(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return [t for part in outputs for t in tensors_of(part)]


def widths_of(space: Space) -> dict[str, int]:
    """Group names with their widths."""
    return {group.name: group.width for group in space.groups}


def slots_of(space: Space, group: str) -> dict[tuple[str, int], tuple[str, tuple[int, int]]]:
    """(tensor, dim) -> (role, shape of the index) of one group."""
    return {
        (slot.tensor, slot.dim): (slot.role, slot.index.shape) for slot in space.group(group).slots
    }


def reasons_of(space: Space) -> dict[str, str]:
    """Layer -> reason of everything that is frozen."""
    return {part.layer: part.reason for part in space.frozen}


class Net(nn.Module):
    """A network from a forward function and its layers, parameters and buffers by name."""

    def __init__(self, run: Any, **layers: Any) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.run(self, *inputs)


def classifier(channels: int, classes: int = 3) -> nn.Sequential:
    """Pooling and a linear layer: the end of most networks here."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(batch: int = 2, channels: int = 3, size: int = 8) -> torch.Tensor:
    """Random images (batch, channels, size, size)."""
    return drawn(batch, channels, size, size)
