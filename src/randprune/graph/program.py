"""A module as a flat ATen graph with parameter names.

`torch.export` in evaluation mode, undecomposed where every operator has a rule of ours (which takes
half of the time away); else operators without one are decomposed where torch knows how.
In-place operators stay: they tie and freeze like their functional forms, and an emitted graph
runs them in the same order.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import SUPPORTED_NODES, TreeSpec, tree_leaves, tree_map

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph import rules_contraction, rules_elementwise, rules_movement, rules_norm
from randprune.graph.rules import describe, operator_name, rule_for
from randprune.graph.trees import shown

_RULE_FAMILIES = (rules_contraction, rules_elementwise, rules_movement, rules_norm)

Inputs = torch.Tensor | Sequence[Any]

EXPORTING = threading.RLock()
"""Held while `torch.export` runs: it patches torch for the whole process, so two exports at once
break each other. Other threads may run networks meanwhile, with kernels that round differently."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The exported graph and what its placeholders stand for.

    `tensors`: placeholder -> name of the parameter or buffer; `constants`: placeholder -> value of
    other tensors that the forward holds; `folded`: name -> value of tensors computed from
    parameters alone (`randprune.graph.fold`), which replace their originals.
    """

    module: GraphModule
    tensors: dict[str, str]
    constants: dict[str, torch.Tensor]
    folded: dict[str, torch.Tensor]
    output_spec: TreeSpec | None

    @property
    def graph(self) -> Graph:
        return self.module.graph

    @property
    def unknown(self) -> tuple[Node, ...]:
        """Nodes whose operator has no rule."""
        return tuple(_without_rule(self.graph))


def as_inputs(example_inputs: Inputs) -> tuple[Any, ...]:
    """The positional inputs of the network as a tuple; raises where there is no tensor."""
    if any(isinstance(x, torch.Tensor) and x.is_nested for x in tree_leaves(example_inputs)):
        raise InvalidInputError(
            "The 'example_inputs' parameter holds a nested tensor, which has no shape to trace. "
            "Give a plain tensor, padded where lengths differ."
        )
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    if isinstance(example_inputs, (list, tuple)) and any(
        isinstance(x, torch.Tensor) for x in tree_leaves(example_inputs)
    ):
        return tuple(example_inputs)
    raise InvalidInputError(
        "The 'example_inputs' parameter must be a tensor, or a tuple with the positional inputs of "
        "the network (a dict of tensors is one of them: ({'image': ...},)). "
        f"Got {type(example_inputs).__name__} instead."
    )


def in_mode(model: nn.Module, training: bool = False) -> nn.Module:
    """`model` itself, switched; many networks override `train` and forget to return themselves."""
    model.train(training)
    return model


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own training flag restored after."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def export_program(
    model: nn.Module,
    inputs: tuple[Any, ...],
    dynamic_batch: bool = False,
    training: bool = False,
) -> Program:
    """Export a copy of the model, in evaluation mode unless `training`.

    Raises:
        UnsupportedModelError: the forward pass fails on these inputs or cannot be exported.
    """
    name = type(model).__name__
    frozen_copy = in_mode(private_copy(model), training)
    with torch.no_grad():
        try:
            _make_known(frozen_copy(*inputs))
        except Exception as error:
            shapes = [tuple(x.shape) if isinstance(x, torch.Tensor) else shown(x) for x in inputs]
            # An image without the axis of the batch is the commonest mistake.
            single = isinstance(inputs[0], torch.Tensor) and inputs[0].ndim == 3
            example = (1, *inputs[0].shape) if single else (1, 3, 224, 224)
            raise InvalidInputError(
                f"{name} does not run on the example inputs {shapes}: {_first_line(error)}. "
                f"Give one batch of the shape that the network expects, e.g. {example}."
            ) from error
    shapes_arg: Any = None
    if dynamic_batch:
        auto = torch.export.Dim.AUTO
        shapes_arg = tree_map(
            lambda x: {0: auto} if isinstance(x, torch.Tensor) and x.ndim else None, inputs
        )
    try:
        with EXPORTING, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(frozen_copy, inputs, dynamic_shapes=shapes_arg)
            if _without_rule(exported.graph):
                exported = _decompose_unknown(exported.run_decompositions({}))
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} cannot be exported by torch.export: {_first_line(error)}. "
            "Its forward must not branch on tensor values; trace the part of the network "
            "that holds the convolutions, or rewrite that branch."
        ) from error
    _refuse_open_sizes(exported.graph, name)
    return _program(exported, _first_names(frozen_copy))


def _make_known(outputs: Any) -> None:
    """Let torch's export look into dataclasses that a network returns; the rest it knows."""
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type | Mapping):
        if type(outputs) not in SUPPORTED_NODES:
            torch.export.register_dataclass(type(outputs))
        for field in dataclasses.fields(outputs):
            _make_known(getattr(outputs, field.name))
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            _make_known(value)
    elif isinstance(outputs, tuple | list):
        for value in outputs:
            _make_known(value)


def _refuse_open_sizes(graph: Graph, name: str) -> None:
    """Raise where a tensor is as large as the values of another say: it has no fixed cost."""
    for node in graph.nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, (tuple, list)) else [values]:
            sizes = value.shape if isinstance(value, torch.Tensor) else ()
            if any(isinstance(s, torch.SymInt) and s.node.hint is None for s in sizes):
                raise UnsupportedModelError(
                    f"{name} cannot be traced: {describe(node)} gives a tensor whose size depends "
                    "on values, so that no cost can be stated. Trace the part of the network that "
                    "holds the convolutions."
                )


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of that very tensor."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy, or an error that says what prevents it."""
    # Tensors that a forward left behind (old-style weight_norm) cannot be copied as they are.
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and value.grad_fn is not None
    }
    try:
        return copy.deepcopy(model, dict(computed))
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied ({_first_line(error)}), and randprune never "
            "edits the caller's network. Remove hooks or cached activations that hold graphs."
        ) from error


# Unrolled over time these would fill the graph with thousands of nodes.
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu", "quantized_lstm"})


def operator_name_of(operator: torch._ops.OpOverload) -> str:
    """The operator's name without namespace and overload."""
    return str(operator.overloadpacket).rpartition(".")[2]


def _decompose_unknown(exported: ExportedProgram) -> ExportedProgram:
    unknown = {
        node.target
        for node in _without_rule(exported.graph)
        if isinstance(node.target, torch._ops.OpOverload)
    }
    if not unknown:
        return exported
    table = torch.export.default_decompositions()
    known = {
        op: table[op] for op in unknown if op in table and operator_name_of(op) not in _RECURRENT
    }
    return exported.run_decompositions(known) if known else exported


def _program(exported: ExportedProgram, first_names: dict[str, str]) -> Program:
    tensors: dict[str, str] = {}
    constants: dict[str, torch.Tensor] = {}
    for spec in exported.graph_signature.input_specs:
        argument = getattr(spec.arg, "name", None)
        if argument is None:
            continue
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            assert spec.target is not None
            tensors[argument] = first_names.get(spec.target, spec.target)
        elif spec.kind is not InputKind.USER_INPUT:
            held = exported.constants.get(spec.target or "")
            if isinstance(held, torch.Tensor):
                constants[argument] = held.detach().clone()
    spec_out = exported.call_spec.out_spec
    return Program(exported.graph_module, tensors, constants, {}, spec_out)


def _without_rule(graph: Graph) -> list[Node]:
    return [
        node
        for node in graph.nodes
        if node.op == "call_function" and rule_for(node) is None and not _is_plumbing(node)
    ]


def _is_plumbing(node: Node) -> bool:
    """Tuple access, shape arithmetic and assertions, which carry no channels."""
    name = operator_name(node)
    if name == "getitem" or name.startswith(("sym_", "_assert")):
        return True
    return not isinstance(node.target, torch._ops.OpOverload) and not isinstance(
        node.target, torch._ops.HigherOrderOperator
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
