"""Which outputs of a network count: their channels stay, those of the others may go.

A detector in evaluation mode may return its feature maps beside the detections, for a loss that
only asks for their sizes. The user selects what is read; the space keeps the numbers of the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_unflatten

from randprune.errors import InvalidInputError
from randprune.graph.program import Program

OutputChoice = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """Stands for one output while the user selects: nothing can be computed with it."""

    number: int


def chosen_outputs(program: Program, choose: OutputChoice) -> tuple[int, ...]:
    """Numbers of the output leaves that `choose` selects, ascending.

    Raises:
        InvalidInputError: it selects nothing, or does something else than selecting.
    """
    spec = program.output_spec
    leaves = [Leaf(number) for number in range(1 if spec is None else spec.num_leaves)]
    whole = leaves[0] if spec is None else tree_unflatten(leaves, spec)
    try:
        selected = tree_leaves(choose(whole))
    except Exception as error:
        raise InvalidInputError(
            "The 'outputs' parameter of trace must be a function that selects among the network's "
            f"outputs, such as lambda outputs: outputs[0]. It failed: {error}."
        ) from error
    if not selected or not all(isinstance(leaf, Leaf) for leaf in selected):
        raise InvalidInputError(
            "The 'outputs' parameter of trace must be a function that selects among the network's "
            f"{len(leaves)} outputs. It returned {selected[:3]!r} instead."
        )
    return tuple(sorted({leaf.number for leaf in selected}))


def reasons_for(numbers: Sequence[int], leaves: int) -> tuple[str | None, ...]:
    """For each output leaf why its channels stay; None where it does not count."""
    return tuple("it defines the network's output" if n in numbers else None for n in range(leaves))


def counted(outputs: Any, numbers: Sequence[int] | None) -> Any:
    """The output leaves that count; all, in their structure, where `numbers` is None."""
    if numbers is None:
        return outputs
    leaves = tree_leaves(outputs)
    return [leaves[n] for n in numbers if n < len(leaves) and isinstance(leaves[n], Tensor)]
