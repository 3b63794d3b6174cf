"""`trace`: a module and example inputs in, a `Space` out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from randprune.errors import InvalidInputError, UnsupportedModelError, WeightsError
from randprune.graph.emit import doubled, export_for_emission
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.grouping import build_costs, frozen_channels, group_channels
from randprune.graph.program import Inputs, Program, as_inputs, export_program
from randprune.graph.propagate import Propagation, propagate, unknown_operators
from randprune.graph.slicing import counting_layers
from randprune.graph.trial import failing_groups, failing_in_graph
from randprune.lineage import named_tensors
from randprune.space import FrozenChannels, Space

ALLOWED = ("layer_norm", "group_norm", "softmax", "mean", "sum", "var", "std", "norm", "amax")


def trace(
    model: nn.Module,
    example_inputs: Inputs,
    freeze: Iterable[str] = (),
    strict: bool = False,
    *,
    as_graph: bool = False,
    allow: Collection[str] = (),
    trial: bool = True,
) -> Space:
    """The channel groups of a network: what can be cut, what it costs, what is frozen and why.

    Args:
        model: any module that `torch.export` accepts; left bit-identical. Of one that is wrapped
            by `torch.compile` or `nn.DataParallel`, the network inside is traced.
        example_inputs: one tensor, or a tuple of the positional inputs, which may be dicts or
            lists of tensors. Costs are counted for exactly these inputs: give a batch of one for
            costs per image.
        freeze: names of layers whose output channels stay (shell patterns such as ``"layer4.*"``).
        strict: raise instead of freezing where an operator has no rule.
        as_graph: also offer groups that can be cut only in the emitted graph, where constants of
            the forward (literal views, chunk sizes, pads) are recomputed.
        allow: operations over channels that may be cut although their meaning changes, e.g.
            ``("layer_norm",)``; the space lists them under `inexact`.
        trial: cut every group once and compare with the masked dense network, freezing what fails.

    Returns:
        A `Space`; equal architectures give equal fingerprints in every process.

    Raises:
        InvalidInputError: no network, one that does not run on these inputs, or a name that matches
            no layer.
        UnsupportedModelError: it cannot be exported, or `strict` and an operator has no rule.
        WeightsError: a parameter holds NaN or infinity, or has no values.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
        >>> space = trace(net, torch.zeros(1, 3, 8, 8))
        >>> [(group.name, group.width) for group in space.groups]
        [('0', 8)]
        >>> [frozen.layer for frozen in space.frozen]
        ['2']
        >>> [(slot.tensor, slot.dim, slot.role) for slot in space.groups[0].slots]
        [('0.weight', 0, 'out'), ('2.weight', 1, 'in'), ('0.bias', 0, 'pass')]
    """
    model = plain_module(model, "trace")
    check_network(model)
    inputs = as_inputs(example_inputs)
    if not all(x.is_meta for x in tree_leaves(inputs) if isinstance(x, torch.Tensor)):
        check_values(model)
    freeze, allow = _names(freeze, "freeze"), _names(allow, "allow")
    unknown_kinds = sorted(set(allow) - set(ALLOWED))
    if unknown_kinds:
        raise InvalidInputError(
            f"The 'allow' parameter of trace must be among {', '.join(ALLOWED)}. "
            f"Got {unknown_kinds[0]!r} instead."
        )
    check_finite(model)
    if as_graph and not all(isinstance(x, torch.Tensor) for x in inputs):
        raise InvalidInputError(
            "With as_graph=True the network's inputs must be tensors: a graph is emitted for their "
            "shapes alone. Wrap the network so that it takes only tensors, or trace it as a module."
        )
    if as_graph:
        exported = export_for_emission(model, inputs, frozenset(allow), free_batch=False)
        program, found, state = exported.program, exported.found, exported.state
    else:
        program, state = export_program(model, inputs), named_tensors(model)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        found = propagate(
            program,
            shapes,
            allow=allow,
            training=_training_program(model, program, inputs),
            counters=counting_layers(model),
        )
    if strict and program.unknown:
        raise UnsupportedModelError(
            f"No rule for {unknown_operators(program)[0]} (node {program.unknown[0].name}; "
            f"{len(program.unknown)} such nodes). Register one with randprune.graph.rules.rule, or "
            "trace with strict=False to freeze the channels that reach it."
        )
    _freeze_by_name(found, model, freeze)
    template = _Template(model, program, state, inputs, as_graph, tuple(sorted(allow)))
    space = template.fill(found)
    if trial and space.groups:
        exact = not space.inexact
        if as_graph:
            emission = export_for_emission(model, inputs, frozenset(allow))
            failed = failing_in_graph(emission, space, exact)
        else:
            failed = failing_groups(model, space, inputs, exact)
        if failed:
            for number, reason in failed.items():
                _freeze_group(found, space, number, reason)
            space = template.fill(found)
    return space


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """Everything about a space but its labels, which change when groups are frozen later."""

    model: nn.Module
    program: Program
    state: dict[str, torch.Tensor]
    inputs: tuple[Any, ...]
    as_graph: bool
    allow: tuple[str, ...]

    def fill(self, found: Propagation) -> Space:
        """The space of these labels."""
        grouping = group_channels(found)
        return Space(
            groups=grouping.groups,
            frozen=(*frozen_channels(found), *self._unseen(found)),
            costs=build_costs(found, grouping, self._parameters()),
            as_graph=self.as_graph,
            model=type(self.model).__name__,
            inputs=tuple(
                (tuple(x.shape), str(x.dtype).removeprefix("torch."))
                for x in tree_leaves(self.inputs)
                if isinstance(x, torch.Tensor)
            ),
            allow=self.allow,
            inexact=tuple(dict.fromkeys(found.context.inexact)),
        )

    def _unseen(self, found: Propagation) -> Iterator[FrozenChannels]:
        """Weights that no forward pass reads: they are never cut."""
        seen = {axis.tensor for axis in found.axes} | set(self.program.tensors.values())
        for name, weight in self.model.named_parameters():
            if name not in seen and weight.ndim > 1:
                yield FrozenChannels(
                    name.rpartition(".")[0] or name,
                    name,
                    0,
                    weight.shape[0],
                    weight.shape[0],
                    "no part of the forward pass that could be followed",
                )

    def _parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that the cut network will have."""
        if not self.as_graph:
            return {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        used = {
            self.program.tensors[node.name]
            for node in self.program.graph.nodes
            if node.op == "placeholder" and node.name in self.program.tensors and node.users
        }
        return {
            name: tuple(self.state[name].shape)
            for name in used
            if name in self.program.folded or isinstance(self.state[name], nn.Parameter)
        }


def _training_program(
    model: nn.Module, program: Program, inputs: tuple[Any, ...]
) -> Program | None:
    """The program in training mode, where parts of the network run only there.

    Auxiliary classifiers read channels of the main path: what they tie must not be cut apart.
    """
    used = {
        program.tensors[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.tensors and node.users
    }
    if all(name in used for name, _ in model.named_parameters()):
        return None
    try:
        return export_program(model, doubled(inputs), training=True)
    except (InvalidInputError, UnsupportedModelError):
        return None  # what no program shows is listed as frozen


def check_finite(model: nn.Module) -> None:
    """Raise `WeightsError` naming the first parameter or buffer with NaN or infinity."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if (
            tensor.is_floating_point()
            and not tensor.is_meta
            and not bool(torch.isfinite(tensor).all())
        ):
            bad = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(
                f"{name} holds {bad} values that are NaN or infinite, of {tensor.numel()}. "
                "Load a sound checkpoint."
            )


def _names(given: Iterable[str], parameter: str) -> tuple[str, ...]:
    """One name or several as a tuple."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(name, str) for name in found):
        raise InvalidInputError(
            f"The {parameter!r} parameter of trace must be names. Got {given!r} instead."
        )
    return found


def _freeze_by_name(found: Propagation, model: nn.Module, patterns: Iterable[str]) -> None:
    modules = [name for name, _ in model.named_modules()]
    for pattern in patterns:
        matched = {name for name in modules if name and fnmatchcase(name, pattern)}
        if not matched:
            raise InvalidInputError(
                f"The 'freeze' parameter of trace must name layers. {pattern!r} matches none; "
                f"the first layers are {', '.join(modules[1:6])}."
            )
        for axis in found.axes:
            layer = axis.tensor.rpartition(".")[0]
            inside = any(layer == name or layer.startswith(f"{name}.") for name in matched)
            role = found.context.role.get(axis.start, ("pass", 0))[0]
            if inside and role != "in":
                vector = np.arange(axis.start, axis.start + axis.size, dtype=np.int64)
                found.labels.freeze(vector, f"named in freeze ({pattern})")


def _freeze_group(found: Propagation, space: Space, number: int, reason: str) -> None:
    starts = {(axis.tensor, axis.dim): axis.start for axis in found.axes}
    slot = space.groups[number].slots[0]
    labels = starts[(slot.tensor, slot.dim)] + slot.index.reshape(-1)
    found.labels.freeze(labels, reason)
