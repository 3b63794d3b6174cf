"""What was cut from a network, or added to it, remembered on the network itself.

`cut` and `widen` leave a `CutPlan` on the module that they return, so that `save` needs nothing but
the module.
The plan is a plain attribute, no tensor and no submodule: it is in no state dict, and it survives
`copy.deepcopy`, `.to(...)`, training and pickling. A pickled network carries it as text, so that
it loads where randprune is not installed. A `torch.fx.GraphModule` copies only what lies in its
`meta`, so there it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from randprune.errors import ArtifactError, InvalidInputError
from randprune.space import Selection, Space

Shapes = Mapping[str, tuple[int, ...]]

_ATTRIBUTE = "_randprune_plan"
_FORMAT = 1


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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `step_from_json` reads."""
        return {
            "space": self.space.to_json(),
            "selection": self.selection.to_json(),
            "as_graph": self.as_graph,
            "gained": lists_of(self.gained),
        }


@dataclass(frozen=True, slots=True, eq=False)
class WidenStep:
    """One application of `widen`.

    Attributes:
        space: of the network that was widened.
        wide: of the network that came out.
        stayed: groups that had to stay as they were -> why.
        gained: as in `CutStep`.
    """

    space: Space
    wide: Space
    stayed: Mapping[str, str] = field(default_factory=dict)
    gained: Shapes = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `step_from_json` reads."""
        return {
            "space": self.space.to_json(),
            "wide": self.wide.to_json(),
            "stayed": dict(self.stayed),
            "gained": lists_of(self.gained),
        }


Step = CutStep | WidenStep


def step_from_json(document: Mapping[str, Any]) -> Step:
    """The step that `to_json` of either class wrote."""
    space, gained = Space.from_json(document["space"]), shapes_of(document["gained"])
    if "wide" in document:
        return WidenStep(space, Space.from_json(document["wide"]), document["stayed"], gained)
    selection = Selection.from_json(document["selection"])
    return CutStep(space, selection, bool(document["as_graph"]), gained)


@dataclass(frozen=True, slots=True, eq=False)
class CutPlan:
    """How a network came from its dense architecture.

    Attributes:
        steps: what was done, in order; more than one where a network was widened and then cut, or
            cut again.
        dense: shape of every tensor of the dense network, by qualified name.
        cut: shape of every tensor right after the last step.
    """

    steps: tuple[Step, ...]
    dense: Shapes
    cut: Shapes

    @property
    def selection(self) -> Selection:
        """What the last step kept: everything, where that was a widening."""
        last = self.steps[-1]
        return last.selection if isinstance(last, CutStep) else last.wide.dense

    def gained(self, network: nn.Module) -> Shapes:
        """Shape of every tensor that the network has beyond those that the last step left."""
        return {name: s for name, s in tensor_shapes(network).items() if name not in self.cut}

    def __deepcopy__(self, memo: dict[int, Any]) -> CutPlan:
        return self  # immutable: copies of a network may share it

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.to_text(),)  # a pickle of builtin types alone

    def to_text(self) -> str:
        """One line of JSON that `plan_from_text` reads."""
        steps = [step.to_json() for step in self.steps]
        tensors = {"dense": lists_of(self.dense), "cut": lists_of(self.cut)}
        return json.dumps({"randprune": _FORMAT, "steps": steps, **tensors})


def plan_from_text(text: str) -> CutPlan:
    """The plan that `to_text` wrote.

    Raises:
        ArtifactError: the text is no plan, or of another version.
    """
    try:
        document = json.loads(text)
        if document["randprune"] != _FORMAT:
            raise ValueError(f"format {document['randprune']}, this version reads {_FORMAT}")
        steps = tuple(step_from_json(step) for step in document["steps"])
        return CutPlan(steps, shapes_of(document["dense"]), shapes_of(document["cut"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"What the network says about its cuts cannot be read: {error}. Load it from the "
            "file that was saved after the cut."
        ) from error


def remember_step(dense: nn.Module, changed: nn.Module, step: Step) -> nn.Module:
    """`changed` itself, with the plan that leads to it; continues the plan of `dense`, if any."""
    before = plan_of(dense)
    if before:
        step = replace(step, gained=before.gained(dense))
    plan = CutPlan(
        steps=(*before.steps, step) if before else (step,),
        dense=before.dense if before else tensor_shapes(dense),
        cut=tensor_shapes(changed),
    )
    _keep(changed, plan)
    return changed


def plan_of(model: nn.Module) -> CutPlan | None:
    """The plan that `cut` or `widen` left on the network; None for an unchanged one."""
    found = getattr(model, "meta", {}).get(_ATTRIBUTE) if _is_graph(model) else None
    found = model.__dict__.get(_ATTRIBUTE) if found is None else found
    if isinstance(found, str):  # from a pickle
        found = plan_from_text(found)
        _keep(model, found)
    return found if isinstance(found, CutPlan) else None


def _keep(model: nn.Module, plan: CutPlan) -> None:
    if isinstance(model, torch.fx.GraphModule):
        model.meta[_ATTRIBUTE] = plan
    else:
        object.__setattr__(model, _ATTRIBUTE, plan)


def selection_of(network: nn.Module) -> Selection:
    """What the last step that made the network kept.

    Raises:
        InvalidInputError: it is an unchanged network.
    """
    plan = plan_of(network)
    if plan is None:
        raise InvalidInputError(
            f"This {type(network).__name__} was not cut. Call randprune.cut on it first."
        )
    return plan.selection


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, also non-persistent buffers, under all names that it has."""
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def tensor_shapes(model: nn.Module) -> Shapes:
    """The shape of every parameter and buffer, by qualified name."""
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}


def lists_of(shapes: Shapes) -> dict[str, list[int]]:
    """Shapes as JSON holds them."""
    return {name: list(shape) for name, shape in shapes.items()}


def shapes_of(lists: Mapping[str, list[int]]) -> Shapes:
    """The shapes that `lists_of` wrote."""
    return {name: tuple(shape) for name, shape in lists.items()}


def _is_graph(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule)
