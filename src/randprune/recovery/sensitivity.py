"""What each width of a group costs at the network's outputs: measured, one group at a time.

A layer's own error says little about the outputs: late layers are averaged over few places, wide
ones have many paths around them, and where a layer reads more columns than there are rows its
moments explain everything that they were collected on and nothing else. So each group alone is cut
to a few of its widths in the dense network, the layers behind it are refitted by least squares, and
the outputs are compared with those of the dense network on images that the moments have not seen:

    table_g(width) = E|z - z0|^2 / E|z0 - mean z0|^2.

One forward pass from the group onwards for each; the part before it is shared. Between the measured
widths the logarithm of the error is linear in that of the number of channels cut, beyond them it
goes on as it is. Errors of single groups are added up, as if they did not interact.

Known shortcomings: a group whose readers the replay does not see as layers borrows the median ratio
of the others' measured errors to their own ones. Few images: noise in small errors is smoothed by
monotony alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from randprune.cost import FloatArray
from randprune.errors import DataError
from randprune.graph.execute import Execution
from randprune.graph.program import Inputs
from randprune.recovery.elimination import Elimination
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import refit
from randprune.recovery.partial import Partial
from randprune.recovery.replay import Replay
from randprune.recovery.statistics import reference_replay, reference_tensors
from randprune.space import ChannelGroup, IntArray, Space

KEEPS = (0.9, 0.7, 0.45, 0.2)
"""Shares of each group's channels that stay while it is measured."""

_LEAST = 1e-9
# Limits of the exponent by which a table goes on towards the dense width.
_GENTLE, _STEEP = 1.0, 3.0


def measured_tables(
    model: nn.Module,
    space: Space,
    inverses: Inverses,
    eliminations: Sequence[Elimination],
    inputs: Inputs,
    *,
    keeps: Sequence[float] = KEEPS,
    replay: Replay | None = None,
    partial: Partial | None = None,
    tell: Callable[[int], None] | None = None,
) -> list[FloatArray]:
    """Tables for proxy searches: relative error at the outputs of keeping k channels of a group.

    Args:
        model: the dense network; left untouched.
        space: its channel groups.
        inverses: of that network's moments.
        eliminations: of its groups, which say what is kept.
        inputs: of the network, a batch, such as images (B, C, H, W) float32 normalised, best of
            samples that are not in the moments; 64 are plenty.
        keeps: the shares of each group's channels at which it is measured.
        replay: the network's replay where there is one already.
        partial: keeps what has been measured, for an interrupted measurement to go on from.
        tell: is told how many widths of all groups have been measured.

    Returns:
        One array (width + 1,) a group, float64: 0 at the dense width, never less for fewer
        channels.

    Raises:
        DataError: the outputs do not vary over the images.
    """
    replay = reference_replay(model, space, inputs) if replay is None else replay
    tensors = reference_tensors(model, space)
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(space.groups):
        for slot in group.with_role("in"):
            waiting[slot.tensor].append(number)
    errors = {_place(name): e for name, e in ({} if partial is None else partial.read()).items()}

    with torch.no_grad():
        reference = replay.run(tensors, inputs).outputs()
        spreads = [float((z - z.mean(dim=0)).square().sum()) if z.ndim else 0.0 for z in reference]
        # Outputs that are the same for all samples (anchors, sizes) say nothing.
        vary = [i for i, z in enumerate(reference) if spreads[i] > 1e-9 * float(z.square().sum())]
        if not vary:
            raise DataError("The network's outputs do not vary over the images given.")

        def before(node: Node, run: Execution) -> None:
            for number in waiting.get(replay.layers[node].weight, ()):
                group = space.groups[number]
                for width in _widths(group, keeps):
                    if (number, width) in errors:
                        continue
                    kept = eliminations[number].kept(width)
                    changed = masked(group, kept, inverses, tensors)
                    outputs = run.fork({**tensors, **changed}).outputs()
                    # Maps of many places are too large to keep for all widths of all groups.
                    of_outputs = [
                        float((outputs[i] - reference[i]).square().sum()) / spreads[i] for i in vary
                    ]
                    mean = sum(of_outputs) / len(of_outputs)
                    errors[number, width] = torch.tensor(mean, dtype=torch.float64)
                    if partial is not None:
                        partial.save(lambda: _named(errors))
                    if tell is not None:
                        tell(len(errors))

        replay.run(tensors, inputs, before).finish()
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for (number, width), error in errors.items():
        found[number][width] = float(error)
    tables = {number: table(space.groups[number].width, at) for number, at in found.items()}
    ratios = [
        error / max(float(eliminations[number].errors[width]), 1e-12)
        for number, at in found.items()
        for width, error in at.items()
    ]
    typical = float(np.median(ratios)) if ratios else 1.0
    return [
        tables[number] if number in tables else typical * eliminations[number].errors
        for number in range(len(space))
    ]


def measurements(space: Space, keeps: Sequence[float] = KEEPS) -> int:
    """How many widths of all groups are measured, at most."""
    return sum(len(_widths(group, keeps)) for group in space.groups)


def _named(errors: Mapping[tuple[int, int], Tensor]) -> dict[str, Tensor]:
    """What has been measured, as it is kept."""
    return {f"{number}/{width}": error for (number, width), error in errors.items()}


def _place(name: str) -> tuple[int, int]:
    number, width = name.split("/")
    return int(number), int(width)


def table(full: int, measured: Mapping[int, float]) -> FloatArray:
    """The errors at all widths, (full + 1,), from those at a few widths below `full`.

    Log-linear between the measured widths in the number of channels that are cut; towards the dense
    width with an exponent of 1 to 3, below the measured widths with one of at least 1.
    """
    widths = np.array(sorted(measured, reverse=True))
    errors = np.array([measured[width] for width in widths.tolist()])
    y = np.log(np.maximum.accumulate(np.maximum(errors, _LEAST)))
    x = np.log(full - widths)
    slopes = np.diff(y) / np.diff(x) if len(x) > 1 else np.ones(1)
    cut = np.log(np.arange(full, 0, -1))  # of widths 0 to full - 1
    found = np.interp(cut, x, y)
    near, far = cut < x[0], cut > x[-1]
    found[near] = y[0] + np.clip(slopes[0], _GENTLE, _STEEP) * (cut[near] - x[0])
    found[far] = y[-1] + max(slopes[-1], _GENTLE) * (cut[far] - x[-1])
    return np.append(np.exp(found), 0.0)


def _widths(group: ChannelGroup, keeps: Sequence[float]) -> list[int]:
    """The widths at which a group is measured; a single channel cannot be cut."""
    return sorted({min(max(1, round(keep * group.width)), group.width - 1) for keep in keeps} - {0})


def masked(
    group: ChannelGroup, kept: IntArray, inverses: Inverses, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Replacements, in dense shapes, for the tensors behind a group that alone is cut to `kept`."""
    changed: dict[str, Tensor] = {}
    gone = np.setdiff1d(np.arange(group.width), kept)
    for slot in group.with_role("in"):
        weight = changed.get(slot.tensor, tensors[slot.tensor]).clone()
        places = slot.places(gone)
        layer = inverses.moments.layers.get(slot.tensor)
        if layer is not None and slot.dim == layer.input_dim:
            inputs = np.setdiff1d(np.arange(weight.shape[layer.input_dim]), places)
            has_place = bool(layer.bias) or layer.norm is not None
            dense = layer.upright(tensors[slot.tensor])
            new, shift = refit(inverses, layer, dense, inputs, centred=has_place)
            layer.upright(weight)[:, torch.from_numpy(inputs)] = new.to(weight)
            if layer.bias:
                changed[layer.bias] = tensors[layer.bias] + shift.to(weight)
            elif layer.norm is not None:
                changed[layer.norm.mean] = tensors[layer.norm.mean] - shift.to(weight)
        changed[slot.tensor] = weight.index_fill(slot.dim, torch.from_numpy(places), 0.0)
    return changed
