"""What was cut from a network, remembered on the network itself.

`cut` leaves a `CutPlan` on the module that it returns, so that `save` needs nothing but the module.
The plan is a plain attribute, no tensor and no submodule: it is in no state dict, and it survives
`copy.deepcopy`, `.to(...)`, training and pickling. A `torch.fx.GraphModule` copies only what lies
in its `meta`, so there it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from randprune.space import Selection, Space

Shapes = Mapping[str, tuple[int, ...]]

_ATTRIBUTE = "_randprune_plan"


@dataclass(frozen=True, slots=True, eq=False)
class CutStep:
    """One application of `cut`.

    Attributes:
        space: of the network that was cut.
        selection: what was kept.
        as_graph: whether the graph was emitted.
        gained: shape of every tensor that the network had gained since the cut before, such as
            the bias that a recovery gives to a convolution.
    """

    space: Space
    selection: Selection
    as_graph: bool
    gained: Shapes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class CutPlan:
    """How a network came from its dense architecture.

    Attributes:
        steps: the cuts, in order; more than one where a cut network was cut again.
        dense: shape of every tensor of the dense network, by qualified name.
        cut: shape of every tensor right after the last cut.
    """

    steps: tuple[CutStep, ...]
    dense: Shapes
    cut: Shapes

    def gained(self, network: nn.Module) -> Shapes:
        """Shape of every tensor that the network has beyond those that the last cut left."""
        return {name: s for name, s in tensor_shapes(network).items() if name not in self.cut}

    def __deepcopy__(self, memo: dict[int, Any]) -> CutPlan:
        return self  # immutable: copies of a network may share it


def remember_cut(dense: nn.Module, small: nn.Module, step: CutStep) -> nn.Module:
    """`small` itself, with the plan that leads to it; continues the plan of `dense`, if any."""
    before = plan_of(dense)
    if before:
        step = replace(step, gained=before.gained(dense))
    plan = CutPlan(
        steps=(*before.steps, step) if before else (step,),
        dense=before.dense if before else tensor_shapes(dense),
        cut=tensor_shapes(small),
    )
    if isinstance(small, torch.fx.GraphModule):
        small.meta[_ATTRIBUTE] = plan
    else:
        object.__setattr__(small, _ATTRIBUTE, plan)
    return small


def plan_of(model: nn.Module) -> CutPlan | None:
    """The plan that `cut` left on the network; None for a network that was never cut."""
    found = getattr(model, "meta", {}).get(_ATTRIBUTE) if _is_graph(model) else None
    found = model.__dict__.get(_ATTRIBUTE) if found is None else found
    return found if isinstance(found, CutPlan) else None


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, also non-persistent buffers, under all names that it has."""
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def tensor_shapes(model: nn.Module) -> Shapes:
    """The shape of every parameter and buffer, by qualified name."""
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}


def _is_graph(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule)
