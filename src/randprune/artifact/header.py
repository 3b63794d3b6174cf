"""What a file says about its network: the header, written and read back, every value checked.

Reading checks what can be told from the document alone: kinds, ranges, and sizes that would exhaust
the memory. Whether a cut fits the network is checked when it is repeated (`rebuild`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from randprune.artifact import documents as doc
from randprune.errors import ArtifactError
from randprune.lineage import Shapes, Step, WidenStep, lists_of, step_from_json

FORMAT = 1

DTYPES = frozenset(
    {
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    }
)
_ROLES = ("out", "in", "pass")

# Far above any network's, far below any machine's.
MOST_STEPS = 1_000
MOST_GROUPS = 4_096  # a cost has a matrix of groups x groups
MOST_COSTS = 16
MOST_PLACES = 1 << 24  # of all channels in all tensors, over all steps
MOST_INPUTS = 64
MOST_OUTPUTS = 1 << 16
MOST_INPUT_ELEMENTS = 1 << 27


@dataclass(frozen=True, slots=True)
class ArtifactHeader:
    """What a file says about its network, tensors aside.

    Attributes:
        model: name of the dense architecture for `randprune.zoo.models.build_model`, "" if unknown.
        options: what `build_model` gets besides the name, such as ``{"num_classes": 100}``.
        class_name: of the network that was saved.
        versions: of randprune and torch that wrote the file.
        steps: the cuts and widenings that lead from the dense network to this one; empty for a
            dense network.
        dense: shape of every tensor of the dense network.
        gained: shape of every tensor that came after the last cut, such as a convolution's bias.
        aliases: other names of a stored tensor -> the name it is stored under.
        strides: of the tensors that do not lie in memory in the default order, by name.
        metadata: whatever was given to `save`, JSON-ready.
        digest: sha256 of the header and all tensors.
    """

    model: str
    options: Mapping[str, Any]
    class_name: str
    versions: Mapping[str, str]
    steps: tuple[Step, ...]
    dense: Shapes
    gained: Shapes = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    strides: Shapes = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the first space, "" for a dense network."""
        return self.steps[0].space.fingerprint if self.steps else ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, without the digest; `from_json` gives an equal header back."""
        return {
            "format": FORMAT,
            "model": self.model,
            "options": dict(self.options),
            "class": self.class_name,
            "versions": dict(self.versions),
            "fingerprint": self.fingerprint,
            "cuts": [step.to_json() for step in self.steps],
            "dense": lists_of(self.dense),
            "gained": lists_of(self.gained),
            "aliases": dict(self.aliases),
            "strides": lists_of(self.strides),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ArtifactHeader:
        """The header that `to_json` wrote, with every value of it checked.

        Raises:
            ArtifactError: a value is missing, of another kind, or larger than any network's.
        """
        cuts = doc.sequence(doc.part(document, "cuts", "it"), "'cuts'", MOST_STEPS)
        _check_places(cuts)
        header = cls(
            model=doc.name(doc.part(document, "model", "it"), "'model'"),
            options=doc.mapping(doc.part(document, "options", "it"), "'options'"),
            class_name=doc.name(doc.part(document, "class", "it"), "'class'"),
            versions=doc.texts(doc.part(document, "versions", "it"), "'versions'"),
            steps=tuple(_step(step, f"cut {number}") for number, step in enumerate(cuts)),
            dense=doc.shapes(doc.part(document, "dense", "it"), "'dense'"),
            gained=doc.shapes(doc.part(document, "gained", "it"), "'gained'"),
            aliases=doc.texts(doc.part(document, "aliases", "it"), "'aliases'"),
            strides=doc.shapes(document.get("strides", {}), "'strides'"),
            metadata=doc.mapping(doc.part(document, "metadata", "it"), "'metadata'"),
            digest=doc.text(document.get("digest", ""), "'digest'"),
        )
        if document.get("fingerprint") != header.fingerprint:
            raise ArtifactError(
                f"its fingerprint is {document.get('fingerprint')!r}, that of its first cut is "
                f"{header.fingerprint!r}"
            )
        return header


def _check_places(cuts: list[Any]) -> None:
    """Raise before lists are made that no memory holds: a run of places is only three numbers."""
    total = 0
    for step in cuts:
        for key in ("space", "wide"):
            if key in doc.mapping(step, "a cut"):
                total += _check_space(step[key], f"'{key}' of a cut")
    if total > MOST_PLACES:
        raise ArtifactError(f"its cuts name {total:,} places of channels, {MOST_PLACES:,} at most")


def _step(document: Mapping[str, Any], where: str) -> Step:
    """One step, its space known to be sound."""
    doc.part(document, "space", where)
    doc.shapes(doc.part(document, "gained", where), f"'gained' of {where}")
    if "wide" in document:
        doc.texts(doc.part(document, "stayed", where), f"'stayed' of {where}")
    else:
        doc.flag(doc.part(document, "as_graph", where), f"'as_graph' of {where}")
        selection = doc.mapping(doc.part(document, "selection", where), f"selection of {where}")
        doc.text(doc.part(selection, "fingerprint", where), f"fingerprint of {where}")
        for kept in doc.sequence(doc.part(selection, "kept", where), f"'kept' of {where}"):
            for channel in doc.sequence(kept, f"'kept' of {where}"):
                doc.whole(channel, f"a kept channel of {where}")
    step = step_from_json(document)
    if isinstance(step, WidenStep):
        _check_widening(step, where)
    else:
        step.space.check_selection(step.selection)
    return step


def _check_widening(step: WidenStep, where: str) -> None:
    """The wide space has the groups of the original one, with the same slots, none narrower."""
    names = [group.name for group in step.space.groups]
    if names != [group.name for group in step.wide.groups]:
        raise ArtifactError(f"{where} widens a network to one with other groups")
    for ours, theirs in zip(step.space.groups, step.wide.groups, strict=True):
        slots = [
            [(slot.tensor, slot.dim, slot.index.shape[1]) for slot in group.slots]
            for group in (ours, theirs)
        ]
        if slots[0] != slots[1] or theirs.width < ours.width:
            raise ArtifactError(f"{where} does not widen group {ours.name!r}")


def _check_space(value: Any, where: str) -> int:
    """Raise unless `Space.from_json` can take the document; how many places it would make."""
    space = doc.mapping(value, where)
    for key in ("fingerprint", "model"):
        doc.name(doc.part(space, key, where), f"{key!r} of {where}")
    doc.flag(doc.part(space, "as_graph", where), f"'as_graph' of {where}")
    for key in ("allow", "inexact"):
        for entry in doc.sequence(doc.part(space, key, where), f"{key!r} of {where}"):
            doc.text(entry, f"{key!r} of {where}")
    for entry in doc.sequence(space.get("outputs", []), f"'outputs' of {where}", MOST_OUTPUTS):
        doc.whole(entry, f"'outputs' of {where}")
    for entry in doc.sequence(space.get("within", []), f"'within' of {where}", MOST_INPUTS):
        doc.name(entry, f"'within' of {where}")
    _check_inputs(doc.part(space, "inputs", where), f"'inputs' of {where}")
    groups = doc.sequence(doc.part(space, "groups", where), f"'groups' of {where}", MOST_GROUPS)
    places, widths = 0, []
    for group in groups:
        found = doc.mapping(group, f"a group of {where}")
        called = doc.name(doc.part(found, "name", where), f"the name of a group of {where}")
        width = doc.whole(doc.part(found, "width", where), f"the width of {called!r}", 1)
        slots = doc.sequence(doc.part(found, "slots", where), f"'slots' of {called!r}")
        if not slots:
            raise ArtifactError(f"group {called!r} of {where} lies nowhere")
        for key in ("sizes", "numbers"):
            slots = slots + doc.sequence(found.get(key, []), f"{key!r} of {called!r}")
        places += sum(_check_slot(slot, width, f"a slot of {called!r}") for slot in slots)
        widths.append(width)
    for frozen in doc.sequence(doc.part(space, "frozen", where), f"'frozen' of {where}"):
        _check_frozen(frozen, f"'frozen' of {where}")
    costs = doc.mapping(doc.part(space, "costs", where), f"'costs' of {where}")
    if len(costs) > MOST_COSTS:
        raise ArtifactError(f"{where} has {len(costs)} costs, {MOST_COSTS} at most")
    for called, cost in costs.items():
        _check_cost(cost, widths, f"cost {called!r} of {where}")
    return places


def _check_inputs(value: Any, where: str) -> None:
    elements = 0
    for entry in doc.sequence(value, where, MOST_INPUTS):
        pair = doc.sequence(entry, where, 2)
        if len(pair) != 2 or pair[1] not in DTYPES:
            raise ArtifactError(f"{where} must be pairs of a shape and a dtype, one is {entry!r}")
        elements += math.prod(doc.shape(pair[0], where))
    if elements > MOST_INPUT_ELEMENTS:
        raise ArtifactError(f"{where} have {elements:,} elements, {MOST_INPUT_ELEMENTS:,} at most")


def _check_slot(value: Any, width: int, where: str) -> int:
    slot = doc.mapping(value, where)
    doc.name(doc.part(slot, "tensor", where), f"the tensor of {where}")
    doc.whole(doc.part(slot, "dim", where), f"'dim' of {where}", 0, 64)
    if doc.part(slot, "role", where) not in _ROLES:
        raise ArtifactError(f"the role of {where} must be one of {', '.join(_ROLES)}")
    places = 0
    for entry in doc.sequence(doc.part(slot, "index", where), f"'index' of {where}"):
        run = doc.sequence(entry, f"'index' of {where}", 3)
        if len(run) != 3:
            raise ArtifactError(f"'index' of {where} must be runs of three numbers")
        start = doc.whole(run[0], f"a place of {where}")
        step = doc.whole(run[1], f"a step of {where}", -doc.LARGEST)
        count = doc.whole(run[2], f"a count of {where}", 1)
        doc.whole(start + step * (count - 1), f"a place of {where}")
        places += count
    if places == 0 or places % width:
        raise ArtifactError(f"{where} has {places} places for {width} channels")
    return places


def _check_frozen(value: Any, where: str) -> None:
    entry = doc.sequence(value, where, 6)
    if len(entry) != 6:
        raise ArtifactError(f"{where} must have six values each")
    for index in (0, 1, 5):
        doc.text(entry[index], where)
    for index in (2, 3, 4):
        doc.whole(entry[index], where)


def _check_cost(value: Any, widths: list[int], where: str) -> None:
    cost = doc.mapping(value, where)
    for key in ("name", "unit"):
        doc.text(doc.part(cost, key, where), f"{key!r} of {where}")
    doc.number(doc.part(cost, "constant", where), f"'constant' of {where}")
    if doc.part(cost, "full", where) != widths:
        raise ArtifactError(f"{where} is not that of the groups' widths")
    linear = doc.sequence(doc.part(cost, "linear", where), where, len(widths))
    for entry in linear:
        doc.number(entry, f"'linear' of {where}")
    for term in doc.sequence(doc.part(cost, "quadratic", where), where):
        if len(doc.sequence(term, where, 3)) != 3:
            raise ArtifactError(f"'quadratic' of {where} must be triples")
        for group in term[:2]:
            doc.whole(group, f"a group of {where}", 0, len(widths) - 1)
        doc.number(term[2], f"'quadratic' of {where}")
    if len(linear) != len(widths):
        raise ArtifactError(f"{where} must have a linear part for each group")
