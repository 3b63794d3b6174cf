"""`trace`: a module and example inputs in, a `Space` out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from randprune.errors import InvalidInputError, UnsupportedModelError, WeightsError, quoted
from randprune.graph.emit import doubled, export_for_emission
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.exits import OutputChoice, chosen_outputs, reasons_for
from randprune.graph.grouping import build_costs, frozen_channels, group_channels
from randprune.graph.program import Inputs, Program, as_inputs, export_program
from randprune.graph.propagate import Propagation, propagate, unknown_operators
from randprune.graph.slicing import counting_layers
from randprune.graph.trial import failing_groups, failing_in_graph
from randprune.graph.within import parts_of
from randprune.lineage import named_tensors
from randprune.space import FrozenChannels, IntArray, Space

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
    outputs: OutputChoice | None = None,
    within: str | Iterable[str] = (),
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
        outputs: selects the outputs that are read, such as ``lambda outputs: outputs[0]``; channels
            that reach only the others may go. Default: all outputs keep their channels.
        within: names of submodules, such as ``("backbone", "head")``: only they are traced and
            cut, for networks that cannot be exported as a whole. One forward pass of the whole
            network shows what they are given. Channels that leave them stay, except where one of
            them alone reads what another returns. Costs are those of these parts.

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
    within = _names(within, "within")
    unknown_kinds = sorted(set(allow) - set(ALLOWED))
    if unknown_kinds:
        raise InvalidInputError(
            f"The 'allow' parameter of trace must be among {', '.join(ALLOWED)}. "
            f"Got {quoted(unknown_kinds[0])} instead."
        )
    check_finite(model)
    if within:
        _check_alone(as_graph, outputs)
        return _trace_parts(model, inputs, within, freeze, strict, allow, trial)
    if as_graph and not all(isinstance(x, torch.Tensor) for x in inputs):
        raise InvalidInputError(
            "With as_graph=True the network's inputs must be tensors: a graph is emitted for their "
            "shapes alone. Wrap the network so that it takes only tensors, or trace it as a module."
        )
    return _trace(_Subject(model, model, inputs, outputs), freeze, strict, as_graph, allow, trial)


def _check_alone(as_graph: bool, outputs: OutputChoice | None) -> None:
    for name, given in (("as_graph", as_graph), ("outputs", outputs is not None)):
        if given:
            raise InvalidInputError(
                f"The 'within' and {name!r} parameters of trace exclude each other: what leaves "
                "the parts is found by running the network, and its modules are cut in place."
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """What is exported, `network`, of which whole `model`, and what stays as it is.

    `leaving`: why each output leaf keeps its channels; None: `choose` says which ones count.
    `held`: name of a tensor -> why it stays.
    """

    model: nn.Module
    network: nn.Module
    inputs: tuple[Any, ...]
    choose: OutputChoice | None = None
    leaving: tuple[str | None, ...] | None = None
    held: Mapping[str, str] = field(default_factory=dict)

    def outputs(self, program: Program) -> tuple[int, ...] | None:
        """Numbers of the output leaves that count; None: all."""
        if self.leaving is not None:
            return tuple(n for n, reason in enumerate(self.leaving) if reason is not None)
        return None if self.choose is None else chosen_outputs(program, self.choose)

    def exits(self, program: Program) -> tuple[str | None, ...] | None:
        """Why each output leaf of a program keeps its channels; None: all are outputs."""
        if self.leaving is not None:
            return self.leaving
        if self.choose is None:
            return None
        try:
            numbers = chosen_outputs(program, self.choose)
        except InvalidInputError:
            return None  # in training mode a network may return something else: all of it counts
        spec = program.output_spec
        return reasons_for(numbers, 1 if spec is None else spec.num_leaves)


def _trace_parts(
    model: nn.Module,
    inputs: tuple[Any, ...],
    within: tuple[str, ...],
    freeze: Iterable[str],
    strict: bool,
    allow: Collection[str],
    trial: bool,
) -> Space:
    """The space of named submodules; its inputs are those of the whole network."""
    parts = parts_of(model, inputs, within)
    subject = _Subject(model, parts.network, parts.inputs, leaving=parts.leaving, held=parts.held)
    space = _trace(subject, freeze, strict, False, allow, trial)
    return replace(space, within=within, outputs=None, inputs=_shapes(inputs))


def _trace(
    subject: _Subject,
    freeze: Iterable[str],
    strict: bool,
    as_graph: bool,
    allow: Collection[str],
    trial: bool,
) -> Space:
    model, inputs = subject.network, subject.inputs
    if as_graph:
        exported = export_for_emission(
            model, inputs, frozenset(allow), free_batch=False, exits=subject.exits
        )
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
            exits=subject.exits,
        )
    outputs = subject.outputs(program)
    if strict and program.unknown:
        raise UnsupportedModelError(
            f"No rule for {unknown_operators(program)[0]} (node {program.unknown[0].name}; "
            f"{len(program.unknown)} such nodes). Register one with randprune.graph.rules.rule, or "
            "trace with strict=False to freeze the channels that reach it."
        )
    _freeze_by_name(found, model, freeze)
    _freeze_held(found, subject.held)
    template = _Template(subject, program, state, as_graph, tuple(sorted(allow)), outputs)
    space = template.fill(found)
    if trial and space.groups:
        exact = not space.inexact
        if as_graph:
            emission = export_for_emission(model, inputs, frozenset(allow), exits=subject.exits)
            verdict = failing_in_graph(emission, space, exact)
        else:
            verdict = failing_groups(model, space, inputs, exact)
        for number, reason in verdict.failed.items():
            found.labels.freeze(_labels_of(found, space, number), reason)
        for number, slots in verdict.numbers.items():
            for slot in slots:
                labels = _labels_of(found, space, number)[:, : slot.index.shape[1]]
                found.context.numbered[slot.tensor] = labels.reshape(-1)
        if verdict.failed or verdict.numbers:
            space = template.fill(found)
    return space


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """Everything about a space but its labels, which change when groups are frozen later."""

    subject: _Subject
    program: Program
    state: dict[str, torch.Tensor]
    as_graph: bool
    allow: tuple[str, ...]
    outputs: tuple[int, ...] | None

    def fill(self, found: Propagation) -> Space:
        """The space of these labels."""
        grouping = group_channels(found)
        return Space(
            groups=grouping.groups,
            frozen=(*frozen_channels(found), *self._unseen(found)),
            costs=build_costs(found, grouping, self._parameters()),
            as_graph=self.as_graph,
            model=type(self.subject.model).__name__,
            inputs=_shapes(self.subject.inputs),
            allow=self.allow,
            inexact=tuple(dict.fromkeys(found.context.inexact)),
            outputs=self.outputs,
        )

    def _unseen(self, found: Propagation) -> Iterator[FrozenChannels]:
        """Weights that no forward pass reads: they are never cut."""
        seen = {axis.tensor for axis in found.axes} | set(self.program.tensors.values())
        for name, weight in self.subject.network.named_parameters():
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
            return {name: tuple(p.shape) for name, p in self.subject.network.named_parameters()}
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


def _shapes(inputs: tuple[Any, ...]) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shape and dtype of every tensor among the inputs."""
    return tuple(
        (tuple(x.shape), str(x.dtype).removeprefix("torch."))
        for x in tree_leaves(inputs)
        if isinstance(x, torch.Tensor)
    )


def _names(given: Iterable[str], parameter: str) -> tuple[str, ...]:
    """One name or several as a tuple."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(name, str) for name in found):
        raise InvalidInputError(
            f"The {parameter!r} parameter of trace must be names. Got {quoted(given)} instead."
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


def _freeze_held(found: Propagation, held: Mapping[str, str]) -> None:
    """Freeze the tensors that something outside of what is traced has too."""
    for axis in found.axes:
        if axis.tensor in held:
            vector = np.arange(axis.start, axis.start + axis.size, dtype=np.int64)
            found.labels.freeze(vector, held[axis.tensor])


def _labels_of(found: Propagation, space: Space, number: int) -> IntArray:
    """The labels of a group's channels, (width, multiplicity), on the axis where most lie."""
    starts = {(axis.tensor, axis.dim): axis.start for axis in found.axes}
    slot = max(space.groups[number].slots, key=lambda slot: slot.index.shape[1])
    return starts[(slot.tensor, slot.dim)] + slot.index
