"""Replace weights that a forward computes from parameters by their values.

A weight-standardised convolution normalises its kernel over the input channels in every forward
pass, so that cutting an input channel would change all others. In an emitted graph the kernel is
computed once and becomes a parameter of its own, which can be cut exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node

from randprune.graph.execute import ExecutableGraph, Execution
from randprune.graph.program import Program
from randprune.graph.rules import operator_name, rule_for

_MIXES = frozenset(
    {
        *("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
        *("mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm"),
        *("softmax", "layer_norm", "group_norm", "matmul", "mm", "mv", "linear", "dot"),
        *("_weight_norm", "_weight_norm_interface", "amax", "max", "conv2d", "instance_norm"),
    }
)
"""Operators after which a position of a weight depends on other positions."""


def fold_weights(program: Program, state: Mapping[str, torch.Tensor]) -> Program:
    """The program with every mixed weight as a tensor of its own; others stay as they are.

    Args:
        program: its graph is edited in place (it belongs to this trace alone).
        state: the network's parameters and buffers by name.
    """
    constant = _constant_nodes(program)
    mixed: set[Node] = set()
    for node in program.graph.nodes:
        if node in constant and node.op == "call_function":
            inputs = node.all_input_nodes
            mixes = operator_name(node) in _MIXES or rule_for(node) is None
            if inputs and (mixes or any(n in mixed for n in inputs)):
                mixed.add(node)
    roots = [
        node
        for node in program.graph.nodes
        if node in mixed
        and isinstance(node.meta.get("val"), torch.Tensor)
        and any(user not in constant for user in node.users)
    ]
    if not roots:
        return program
    run = Execution(graph := ExecutableGraph(program), graph.steps, state, {})
    run.pin(*roots)
    with torch.no_grad():
        values = {root: run.value(root) for root in roots}
    first = next(iter(program.graph.nodes))
    tensors, folded = dict(program.tensors), dict(program.folded)
    for root in roots:
        name = _name(program, root, folded)
        with program.graph.inserting_before(first):
            placeholder = program.graph.placeholder(f"folded_{root.name}")
        placeholder.meta["val"] = root.meta["val"]
        root.replace_all_uses_with(placeholder)
        tensors[placeholder.name] = name
        folded[name] = values[root].detach().clone()
    program.graph.eliminate_dead_code()
    return Program(program.module, tensors, program.constants, folded, program.output_spec)


def _constant_nodes(program: Program) -> set[Node]:
    constant: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in program.tensors or node.name in program.constants:
                constant.add(node)
        elif node.op == "call_function":
            inputs = node.all_input_nodes
            target = node.target
            writes = isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
            if inputs and not writes and all(n in constant for n in inputs):
                constant.add(node)
    return constant


def _name(program: Program, root: Node, folded: Mapping[str, torch.Tensor]) -> str:
    """The name of the parameter that the value stands for, marked as folded if that is in use."""
    shape = root.meta["val"].shape
    ancestors: list[Node] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.op == "placeholder" and node.name in program.tensors:
            ancestors.append(node)
        stack.extend(node.all_input_nodes)
    # The weight itself, not a vector beside it that is as long (spectral norm keeps two).
    primary = max(ancestors, key=lambda n: (n.meta["val"].shape == shape, n.meta["val"].numel()))
    name = program.tensors[primary.name]
    taken = name in folded or primary.meta["val"].shape != shape
    return f"{name}_folded_{root.name}" if taken else name
