"""Repair layer by layer on data: each layer is fitted to what the repaired network really feeds it.

The dense and the cut network are walked side by side over the same images. When a layer of the cut
network is reached, all before it are final. Its weights are refitted by least squares so that they
turn its actual inputs into what the dense network has at this place:

- *residual-aware*: where the output is added to a shortcut that does not depend on the layer, the
  target is the dense sum minus the actual shortcut, so that a block also undoes errors that
  arrived through its shortcut (He et al., "Channel pruning for accelerating very deep neural
  networks", ICCV 2017, for the last layer of each block);
- *rectifier-aware*: where ReLU (or another clamp) follows, errors that it swallows do not count.
  The nonlinear least-squares problem is solved by majorisation: targets below zero are replaced by
  the prediction as long as that is below zero too, and the linear problem is solved again (after
  Zhang et al., "Accelerating very deep convolutional networks", TPAMI 2016).

Also layers that lost no inputs are refitted, since their inputs have changed. The ridge pulls
towards the weights that were there before, best those of `randprune.recovery.least_squares`. Each
layer's ridge is the one with the least error on a fifth of the images, before all are fitted: late
layers of a depthwise network read a thousand columns at 7 x 7 places that look alike, and a weak
ridge leaves them worse than they were on images that were not fitted.

Known shortcomings: all images are held in memory at once (`images_within` says how many fit);
a layer with too few rows for its columns leans on the ridge; the last linear layer is refitted only
where it lost inputs, since otherwise it fits the calibration images' outputs too closely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.execute import Execution
from randprune.graph.layers import norm_behind
from randprune.graph.program import Inputs, as_inputs, evaluation_mode
from randprune.graph.steps import Step
from randprune.graph.trees import count_of, floating_leaves, map_tensors, part_of
from randprune.lineage import named_tensors
from randprune.recovery.collect import FULL_COLUMNS, POSITIONS
from randprune.recovery.least_squares import (
    Kept,
    add_to_bias,
    kept_of,
    takes_bias,
)
from randprune.recovery.patches import input_rows, output_rows, sample_positions
from randprune.recovery.regression import Regression, check_ridge
from randprune.recovery.replay import Layer, Replay, add_bias, detached_tensors, replay_for
from randprune.recovery.statistics import channels_last, reference_replay, reference_tensors
from randprune.space import Selection, Space

RIDGES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
CLEARLY = 0.05
"""A stronger ridge than the first has to lower the error on held-out images by this share."""
ROUNDS = 2
HELD = 0.2
"""Share of the images on which a layer's ridge is chosen; the last ones."""

_FLOATS = 1 << 26
"""Most numbers in the matrix of a layer's inputs (256 MiB); wide layers sample fewer places."""
_KEPT = 1 << 26
"""Most numbers of the dense network's that are kept for the next cut network (256 MiB)."""
_CLAMPS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


@dataclass(frozen=True, slots=True)
class Options:
    """How the fit is done.

    Args:
        positions: places per image and layer at which windows are sampled.
        ridge: relative to the mean variance of a layer's inputs; None: chosen for each layer by
            the error on images that were held out.
        rounds: solutions with rectified targets after the linear one; 0 leaves it linear.
        residual: aim at the sum with the shortcut instead of the layer's own output.
        seed: of the places.
        full_columns: wider layers keep the weights that they have.
    """

    positions: int = POSITIONS
    ridge: float | None = None
    rounds: int = ROUNDS
    residual: bool = True
    seed: int = 0
    full_columns: int = FULL_COLUMNS

    def __post_init__(self) -> None:
        if self.ridge is not None:
            check_ridge(self.ridge)
        if self.positions < 1 or self.rounds < 0:
            raise InvalidInputError(
                "Sequential repair needs at least 1 position and 0 rounds. Got "
                f"positions={self.positions!r}, rounds={self.rounds!r} instead."
            )


@dataclass(frozen=True, slots=True)
class _Tail:
    """What follows a layer: its norm, the sum with a shortcut, and the clamp, as far as present.

    `end` is the last node before the clamp; `low`, `high` are the clamp's limits.
    """

    end: Node
    shortcut: Node | None
    low: float
    high: float

    @property
    def clamped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


class SequentialRepair:
    """Repairs cut versions of one dense network on one set of images.

    Args:
        model: the dense network that was traced; left untouched.
        space: its channel groups.
        inputs: of the network, such as images (N, C, H, W) float32, normalised; a few hundred to
            a few thousand samples.
        options: how the fit is done.
        replay: the dense network's replay where there is one already.
    """

    def __init__(
        self,
        model: nn.Module,
        space: Space,
        inputs: Inputs,
        options: Options | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.space = space
        self.options = Options() if options is None else options
        self.inputs: tuple[Any, ...] = map_tensors(channels_last, as_inputs(inputs))
        self.count = count_of(self.inputs)
        self.dense = reference_tensors(model, space)
        self.replay = reference_replay(model, space, inputs) if replay is None else replay
        self.goals: dict[tuple[Node, Node], tuple[Tensor, Tensor]] = {}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.dense.items()}

    def __call__(self, small: nn.Module, selection: Selection) -> nn.Module:
        """`small` itself, refitted in place; it must be the dense network cut to `selection`.

        Raises:
            UnsupportedModelError: the cut network's graph differs from the dense one's.
        """
        self.space.check_selection(selection)
        with torch.no_grad():
            layers = self.replay.layers.values()
            _Pass(self, small, kept_of(self.space, selection, layers, self.shapes)).run()
        return small

    def graph_of(self, small: nn.Module) -> Replay:
        """The dense network's replay where it also computes the cut one, else one of its own."""
        free = self.replay.fixed_batch is None
        probe = part_of(self.inputs, slice(2)) if free else self.inputs
        with torch.no_grad(), evaluation_mode(small):
            expected = small(*probe)
        try:
            got = self.replay.run(detached_tensors(small), probe).outputs()
            if _close(got, list(floating_leaves(expected).values())):
                return self.replay
        except (RuntimeError, KeyError):
            pass  # a literal shape in the graph: export the cut network itself
        own = replay_for(small, self.inputs)
        if _operators(own) != _operators(self.replay):
            raise UnsupportedModelError(
                "Sequential repair walks the dense and the cut network side by side, and their "
                "graphs differ. Use recovery 'least_squares' for this network."
            )
        return own


class _Pass:
    """One walk over both networks."""

    def __init__(
        self, repair: SequentialRepair, small: nn.Module, kept: Mapping[str, Kept]
    ) -> None:
        self.options = repair.options
        self.count = repair.count
        self.small = small
        self.kept = kept
        self.module_tensors = named_tensors(small)
        self.constants = _constants(small)
        self.tensors = detached_tensors(small)
        self.replay = repair.graph_of(small)
        self.dense_replay = repair.replay
        self.steps = self.replay.graph.steps
        self.twin = dict(zip(self.steps.at, repair.replay.graph.steps.at, strict=True))
        self.dense = repair.replay.run(repair.dense, repair.inputs)
        self.cut = self.replay.run(self.tensors, repair.inputs, self._fit)
        self.repair = repair
        self.place = {node: i for i, node in enumerate(self.steps.at)}
        self.under_way: list[Node] = []
        self.changed = self._changed()

    def run(self) -> None:
        """Walk over the cut network; every layer is fitted just before it is computed."""
        self.cut.finish()

    def _changed(self) -> set[Node]:
        """Nodes whose values differ from the dense network's: behind any cut layer."""
        changed: set[Node] = set()
        for step in self.steps.order:
            layer = self.replay.layers.get(step.node)
            fed = any(source in changed for source in step.sources)
            cut = layer is not None and self._inputs_cut(layer)
            if fed or cut:
                changed.add(step.node)
        return changed

    def _inputs_cut(self, layer: Layer) -> bool:
        return layer.weight in self.kept and self.kept[layer.weight].inputs is not None

    def _is_last(self, node: Node) -> bool:
        """Whether the layer's values reach an output with no further layer in between."""
        while (reader := self.steps.only_reader(node)) is not None:
            node = reader.node
            if node in self.replay.layers:
                return False
        return node in self.steps.outputs

    def _fit(self, node: Node, run: Execution) -> None:
        """Called just before a layer of the cut network is computed: replace its weights."""
        layer = self.replay.layers[node]
        if node not in self.changed or layer.weight in self.constants:
            return
        if not self._inputs_cut(layer) and self._is_last(node):
            return
        weight = layer.upright(self.tensors[layer.weight])
        columns = weight.shape[1] * layer.taps
        if columns > self.options.full_columns:
            return
        outputs = self.kept[layer.weight].outputs if layer.weight in self.kept else None
        rows = torch.arange(len(weight)) if outputs is None else torch.from_numpy(outputs)
        source = run.value(self.replay.source(node))
        if not self._same_places(node, layer, source):
            return
        # Computing the shortcut may fit its layers first; these must not wait for this one.
        self.under_way.append(node)
        tail = self._tail(node, layer)
        actual = run.value(tail.shortcut) if tail.shortcut is not None else None
        self.under_way.pop()
        places = self._places(node, layer, source)
        inputs = input_rows(layer, source, places)
        goal, plain = (part[:, rows] for part in self._goals(node, layer, tail.end, places))
        offset = torch.zeros_like(goal)
        if actual is not None:
            offset += output_rows(layer, actual, places)
        slope = torch.ones(len(rows))
        if layer.norm is not None:
            slope, shift = (part.float() for part in layer.norm.affine(self.tensors))
            offset += shift
        self._solve(layer, inputs, goal, plain, offset, slope, tail)

    def _places(self, node: Node, layer: Layer, source: Tensor) -> Tensor:
        """Where windows are sampled; the same for every cut network."""
        shape = layer.upright(self.repair.dense[layer.weight]).shape
        columns = shape[1] * layer.taps * layer.groups
        most = max(1, _FLOATS // (len(source) * columns))
        generator = torch.Generator().manual_seed(self.options.seed + self.place[node])
        return sample_positions(layer, source, min(self.options.positions, most), generator)

    def _goals(self, node: Node, layer: Layer, end: Node, places: Tensor) -> tuple[Tensor, Tensor]:
        """The dense network's values at the places, (N, channels) each: at `end`, and the layer's.

        Where these are kept for all layers, the dense network is not computed again.
        """
        behind, own = self.twin[end], self.twin[node]
        kept = self.repair.goals
        known = kept.get((own, behind))
        if known is not None:
            return known
        self.dense.pin(behind, own)
        goal, plain = (output_rows(layer, self.dense.value(n), places) for n in (behind, own))
        self.dense.release(behind, own)
        found = goal, plain
        if sum(a.numel() + b.numel() for a, b in [*kept.values(), found]) <= _KEPT:
            kept[own, behind] = found
        return found

    def _same_places(self, node: Node, layer: Layer, source: Tensor) -> bool:
        """Whether the layer reads a map of the dense size: channels may lie along its places."""
        value = self.dense_replay.source(self.twin[node]).meta["val"]
        before, after = value.shape, source.shape
        axes = range(1, len(before) - 1) if layer.geometry.linear else range(2, len(before))
        return all(int(before[axis]) == after[axis] for axis in axes)

    def _solve(
        self,
        layer: Layer,
        inputs: Tensor,
        goal: Tensor,
        plain: Tensor,
        offset: Tensor,
        slope: Tensor,
        tail: _Tail,
    ) -> None:
        """Fit slope * (W x + b) + offset to `goal`; channels with no slope to speak of to `plain`.

        Shapes: inputs (groups, N, columns), goal, plain and offset (N, rows), slope (rows,).
        """
        weight = layer.upright(self.tensors[layer.weight])
        usable = slope.abs() > 1e-3 * slope.abs().max()
        safe = torch.where(usable, slope, torch.ones_like(slope))
        target = torch.where(usable, (goal - offset) / safe, plain)
        bias = self._bias(layer, len(slope))
        free = takes_bias(self.small, layer)
        prior = weight.reshape(layer.groups, -1, inputs.shape[2])
        ridge = self.options.ridge
        regression = Regression(inputs, prior, RIDGES[0] if ridge is None else ridge, free=free)
        held = int(HELD * self.count) * (len(goal) // self.count)
        if ridge is None and held:
            importance = torch.where(usable, slope, torch.zeros_like(slope)).square()
            regression.choose(RIDGES, target, importance, held=held, clearly=CLEARLY)
        new, constant = regression.fit(target)
        if tail.clamped:
            for _ in range(self.options.rounds):
                output = regression.predict(new, constant).mul_(safe).add_(offset)
                aimed = clamped_target(goal, output, tail.low, tail.high).sub_(offset).div_(safe)
                new, constant = regression.fit(torch.where(usable, aimed, plain))
        self._write(layer, new.reshape(weight.shape), constant - bias)

    def _bias(self, layer: Layer, rows: int) -> Tensor:
        if layer.bias:
            return self.tensors[layer.bias].double()
        return torch.zeros(rows, dtype=torch.float64)

    def _write(self, layer: Layer, weight: Tensor, shift: Tensor) -> None:
        """Into the module and into the tensors that the walk uses; `weight` is upright."""
        weight = layer.upright(weight)
        self.module_tensors[layer.weight].detach().copy_(weight)
        self.tensors[layer.weight] = (
            weight.float().contiguous(memory_format=torch.channels_last)
            if weight.ndim == 4
            else weight.float().contiguous()
        )
        if not takes_bias(self.small, layer):
            return
        add_to_bias(self.small, self.module_tensors, layer, shift)
        if not layer.bias and layer.norm is None:
            node = self.replay.node_of[layer.weight]
            constant = shift.to(self.tensors[layer.weight])
            self.cut.amend[node] = partial(add_bias, constant, linear=layer.geometry.linear)

    def _tail(self, node: Node, layer: Layer) -> _Tail:
        end, shortcut = node, None
        if layer.norm is not None:
            behind = norm_behind(self.replay.graph, self.steps.at[node])
            assert behind is not None
            end = self._first_item(behind[0].node)
        if self.options.residual:
            found = self._sum(end)
            if found is not None:
                end, shortcut = found
        return _Tail(end, shortcut, *_clamp(self.steps.only_reader(end)))

    def _first_item(self, node: Node) -> Node:
        """The first item of a tuple-valued node, else the node itself."""
        readers = self.steps.readers.get(node, ())
        items = (r.node for r in readers if r.operator == "getitem" and r.args[1] == 0)
        return next(items, node)

    def _sum(self, end: Node) -> tuple[Node, Node] | None:
        """The sum that alone reads `end` and its other summand, where that can be had."""
        total = self.steps.only_reader(end)
        if total is None or total.operator != "add":
            return None
        sides = [side for side in total.args[:2] if side is not end]
        if len(sides) != 1 or not isinstance(sides[0], Node) or total.kwargs.get("alpha", 1) != 1:
            return None
        other = sides[0]
        shapes = [n.meta["val"].shape for n in (end, other, total.node)]
        if not shapes[0] == shapes[1] == shapes[2]:
            return None
        return None if self._needs_unfinished(other) else (total.node, other)

    def _needs_unfinished(self, node: Node) -> bool:
        """Whether a node's value needs a layer whose fit is under way."""
        first = min(self.place[n] for n in self.under_way)
        seen: set[Node] = set()
        stack = [node]
        while stack:
            current = stack.pop()
            if current in self.under_way:
                return True
            if current not in seen and self.place.get(current, -1) > first:
                seen.add(current)
                stack.extend(self.steps.at[current].sources)
        return False


def _constants(model: nn.Module) -> frozenset[str]:
    """Parameters that do not train beside others that do: a fixed projection is what it is."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        return frozenset()
    return frozenset(name for name, p in parameters.items() if not p.requires_grad)


def clamped_target(goal: Tensor, predicted: Tensor, low: float, high: float) -> Tensor:
    """Where the clamp swallows goal and prediction alike, the prediction is as good as the goal."""
    aimed = torch.where(goal <= low, torch.clamp(predicted, max=low), goal)
    if high < math.inf:
        aimed = torch.where(goal >= high, torch.clamp(predicted, min=high), aimed)
    return aimed


def images_within(replay: Replay, limit_mib: int) -> int:
    """How many images a walk over both networks can hold at once within a limit, at least 1.

    Counts the values that live together in the graph's order, for both networks, and as much again
    as the largest of them for windows and copies.
    """
    steps = replay.graph.steps
    nodes = (*replay.graph.inputs, *steps.at)
    sizes = {
        node: 4 * int(torch.tensor(node.meta["val"].shape[1:]).prod())
        for node in nodes
        if isinstance(node.meta.get("val"), Tensor) and node.meta["val"].ndim > 1
    }
    last = {source: step.node for step in steps.order for source in step.sources}
    live, peak = 0, 1
    for node in nodes:
        live += sizes.get(node, 0)
        peak = max(peak, 2 * live + 2 * sizes.get(node, 0))
        sources = steps.at[node].sources if node in steps.at else ()
        live -= sum(sizes.get(source, 0) for source in sources if last[source] is node)
    return max(1, (limit_mib << 20) // peak)


def _close(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether all outputs are equal up to rounding."""
    return len(got) == len(expected) and all(
        ours.shape == theirs.shape
        and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
        for ours, theirs in zip(got, expected, strict=True)
        if theirs.numel()
    )


def _operators(replay: Replay) -> list[str]:
    """What is called; parameters may differ, since a recovery may have added a bias."""
    return [step.operator for step in replay.graph.steps.order]


def _clamp(step: Step | None) -> tuple[float, float]:
    """The limits of a clamp; infinite for any other step."""
    if step is None:
        return -math.inf, math.inf
    if step.operator in _CLAMPS:
        return _CLAMPS[step.operator]
    names = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}.get(step.operator)
    if names is not None:
        low, high = (step.bound()[name] for name in names)
        if all(limit is None or isinstance(limit, int | float) for limit in (low, high)):
            return (-math.inf if low is None else low, math.inf if high is None else high)
    return -math.inf, math.inf
