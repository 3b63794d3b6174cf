"""What the error of a group costs at the network's outputs: measured, one group at a time.

A layer's own error says little about the outputs: late layers are averaged over few places, wide
ones have many paths around them. So each group alone is cut to a share of its width in the dense
network, the layers behind it are refitted by least squares, and the outputs are compared with
those of the dense network on a few hundred images:

    sensitivity_g = (E|z - z0|^2 / E|z0 - mean z0|^2) / error_g(width).

One forward pass from the group onwards each; the part before it is shared. The tables for proxy
searches are `error_g(k) * sensitivity_g ** power`. A power of 1 takes the measurement at its word.
The default of 1.5 allows for what it cannot see: repair of later layers undoes much of an error
that they can see through (half of it, for channels inside a residual block), but hardly any of one
that removes what they need (channels of the residual stream, the last layers), and these are the
groups with the greatest sensitivities. Gradients would be cheaper, but errors within an image are
coherent, and products of local second moments misjudge late layers by up to their number of
places. Measurements: docs/results/recovery.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from randprune.cost import FloatArray
from randprune.errors import DataError
from randprune.graph.execute import Run
from randprune.recovery.elimination import Elimination
from randprune.recovery.least_squares import RIDGE, refit
from randprune.recovery.replay import Replay
from randprune.recovery.statistics import Moments, reference_replay, reference_tensors
from randprune.space import ChannelGroup, IntArray, Space

POWER = 1.5
KEEP = 0.5


def sensitivities(
    model: nn.Module,
    space: Space,
    moments: Moments,
    eliminations: Sequence[Elimination],
    images: Tensor,
    *,
    keep: float = KEEP,
    replay: Replay | None = None,
) -> FloatArray:
    """Relative error at the outputs over the group's own error, float64 (G,).

    Args:
        model: the dense network; left untouched.
        space: its channel groups.
        moments: of that network.
        eliminations: of its groups, which say what is kept.
        images: a batch, (B, C, H, W) float32 normalised; 256 are plenty.
        keep: the share of each group's channels that stays while it is measured.
        replay: the network's replay where there is one already.

    Raises:
        DataError: the outputs do not vary over the images.
    """
    replay = reference_replay(model, space, images) if replay is None else replay
    tensors = reference_tensors(model, space)
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(space.groups):
        for slot in group.with_role("in"):
            waiting[slot.tensor].append(number)
    outputs: dict[int, Tensor] = {}

    def before(node: Node, run: Run) -> None:
        for number in waiting.get(replay.layers[node].weight, ()):
            if number not in outputs:
                kept = eliminations[number].kept(_width(space.groups[number], keep))
                changed = masked(space.groups[number], kept, moments, tensors)
                outputs[number] = run.fork({**tensors, **changed}).finish()

    with torch.no_grad():
        reference = replay.run(tensors, images, before).finish()
        spread = float((reference - reference.mean(dim=0)).square().sum())
        if not spread > 1e-9 * float(reference.square().sum()):
            raise DataError("The network's outputs do not vary over the images given.")
        found = np.zeros(len(space))
        for number, output in outputs.items():
            error = float((output - reference).square().sum()) / spread
            local = eliminations[number].errors[_width(space.groups[number], keep)]
            found[number] = error / max(float(local), 1e-12)
    # A group whose readers the replay does not see as layers takes the median of the others.
    seen = found[list(outputs)] if outputs else np.ones(1)
    found[[g for g in range(len(space)) if g not in outputs]] = np.median(seen)
    return found


def sensitivity_tables(
    eliminations: Sequence[Elimination], measured: FloatArray, *, power: float = POWER
) -> list[FloatArray]:
    """Tables for proxy searches: `errors * sensitivity ** power`, (width + 1,) a group."""
    return [
        elimination.errors * max(float(value), 0.0) ** power
        for elimination, value in zip(eliminations, measured, strict=True)
    ]


def masked(
    group: ChannelGroup, kept: IntArray, moments: Moments, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Replacements, in dense shapes, for the tensors behind a group that alone is cut to `kept`."""
    changed: dict[str, Tensor] = {}
    gone = np.setdiff1d(np.arange(group.width), kept)
    for slot in group.with_role("in"):
        weight = changed.get(slot.tensor, tensors[slot.tensor]).clone()
        places = slot.places(gone)
        layer = moments.layers.get(slot.tensor) if slot.dim == 1 else None
        if layer is not None:
            inputs = np.setdiff1d(np.arange(weight.shape[1]), places)
            has_place = bool(layer.bias) or layer.norm is not None
            new, shift = refit(
                moments, layer, tensors[slot.tensor], inputs, RIDGE, centred=has_place
            )
            weight[:, torch.from_numpy(inputs)] = new.to(weight)
            if layer.bias:
                changed[layer.bias] = tensors[layer.bias] + shift.to(weight)
            elif layer.norm is not None:
                changed[layer.norm.mean] = tensors[layer.norm.mean] - shift.to(weight)
        changed[slot.tensor] = weight.index_fill(slot.dim, torch.from_numpy(places), 0.0)
    return changed


def _width(group: ChannelGroup, keep: float) -> int:
    return min(max(1, round(keep * group.width)), group.width)
