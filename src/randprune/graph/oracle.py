"""The exactness oracle: what a cut network must compute.

Zero, in a copy of the dense network, every consumer's weights for the cut input channels; its
outputs must equal the cut network's. Numbers per channel (batch-norm statistics, scales) are
randomised alike in both, so that default values cannot hide a wrong channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map_only

from randprune.graph.labels import IntArray
from randprune.graph.slicing import kept_positions, narrow_tensor
from randprune.lineage import named_tensors
from randprune.space import Selection, Space


def mask_consumers(model: nn.Module, space: Space, selection: Selection) -> None:
    """Zero, in place, the weights through which the cut channels act."""
    tensors = named_tensors(model)
    with torch.no_grad():
        for group, kept in zip(space.groups, selection, strict=True):
            gone = np.setdiff1d(np.arange(group.width), kept, assume_unique=True)
            if not gone.size:
                continue
            for slot in group.with_role("in"):
                index = torch.from_numpy(slot.places(gone)).to(tensors[slot.tensor].device)
                tensors[slot.tensor].index_fill_(slot.dim, index, 0.0)


def randomise_scales(
    dense: nn.Module, small: nn.Module, space: Space, selection: Selection, seed: int = 0
) -> None:
    """Draw per-channel numbers anew in `dense` and give `small` its share of them, in place."""
    generator = torch.Generator().manual_seed(seed)
    removed = kept_positions(space, selection)
    names = {s.tensor for g in space.groups for s in g.slots if s.role == "pass"}
    for prefix, module in dense.named_modules():
        if isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            own = [*module._parameters, *module._buffers]
            names.update(f"{prefix}.{n}" if prefix else n for n in own)
    # Vectors are biases and scales; a layer scale of 1e-6 would hide a whole branch.
    names.update(n for n, p in dense.named_parameters() if p.numel() == max(p.shape, default=1))
    # A weight that starts at zero (the last layer of a branch, a fresh head) would hide all else.
    names.update(n for n, p in dense.named_parameters() if not p.any())
    big, cut = named_tensors(dense), named_tensors(small)
    with torch.no_grad():
        for name in sorted(names):
            tensor = big.get(name)
            if tensor is None or name not in cut or not tensor.is_floating_point():
                continue
            if name.endswith("running_mean"):
                drawn = 0.1 * torch.randn(tensor.shape, generator=generator)
            elif name.endswith("bias"):
                # Positive, so that few channels die in a ReLU and hide what comes after it.
                drawn = 0.1 + 0.4 * torch.rand(tensor.shape, generator=generator)
            else:
                drawn = 0.5 + torch.rand(tensor.shape, generator=generator)
            if not tensor.any() and not name.endswith(("bias", "running_mean", "weight")):
                continue  # a buffer of zeros is a constant of the network, not a scale
            tensor.copy_(drawn)
            share = narrow_tensor(tensor, removed[name]) if name in removed else tensor
            if share.shape == cut[name].shape:
                cut[name].copy_(share)


def relative_error(reference: Any, candidate: Any) -> float:
    """max |a - b| / max |a| over all output tensors; inf where shapes or structures differ."""
    a, b = _flatten(reference), _flatten(candidate)
    if len(a) != len(b):
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        if not x.numel():
            continue
        x, y = x.double(), y.double()
        if not torch.isfinite(y).all() or not torch.isfinite(x).all():
            return float("inf") if not torch.equal(x, y) else worst
        scale = float(x.abs().max())
        gap = float((x - y).abs().max())
        worst = max(worst, gap / scale if scale > 0 else (0.0 if gap == 0 else float("inf")))
    return worst


def all_zero(outputs: Any) -> bool:
    """Whether the outputs carry no information to compare."""
    return not any(bool(t.any()) for t in _flatten(outputs))


def random_like(
    inputs: tuple[Any, ...], seed: int = 0, batch: int | None = None
) -> tuple[Any, ...]:
    """Inputs of the same shapes and dtypes with random content; integers are kept."""
    generator = torch.Generator().manual_seed(seed)

    def draw(value: torch.Tensor) -> torch.Tensor:
        if batch is not None and value.ndim and value.shape[0] > batch:
            value = value[:batch]
        if not value.is_floating_point():
            return value
        return torch.randn(value.shape, generator=generator).to(value)

    drawn: tuple[Any, ...] = tree_map_only(torch.Tensor, draw, inputs)
    return drawn


def _flatten(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        return [t for value in outputs.values() for t in _flatten(value)]
    if isinstance(outputs, (list, tuple)):
        return [t for value in outputs for t in _flatten(value)]
    return []


def random_selection(
    widths: IntArray, seed: int, low: float = 0.4, high: float = 0.8, groups: set[int] | None = None
) -> tuple[IntArray, ...]:
    """Uneven random kept sets, for trials: every group (of `groups`) loses at least one channel."""
    rng = np.random.default_rng(seed)
    kept = []
    for number, width in enumerate(widths.tolist()):
        share = rng.uniform(low, high)
        permutation = rng.permutation(width)
        count = width if width == 1 else int(np.clip(round(share * width), 1, width - 1))
        if groups is not None and number not in groups:
            count = width
        kept.append(np.sort(permutation[:count]).astype(np.int64))
    return tuple(kept)
