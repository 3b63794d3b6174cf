"""What a traced network can lose: channel groups, where their channels live, and what is frozen.

A `Space` is an immutable plan. It holds no tensors and no module, so that searching, costing and
storing never touch the network; `randprune.surgery.cut` applies a `Selection` to a module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from randprune.cost import Cost, QuadraticCost
from randprune.errors import ArtifactError, InvalidInputError, quoted

__all__ = ["ChannelGroup", "FrozenChannels", "IntArray", "Role", "Selection", "Slot", "Space"]

IntArray = npt.NDArray[np.int64]
Role = Literal["out", "in", "pass"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The places that one group's channels occupy along one axis of one parameter or buffer.

    `index` is int64 (width, multiplicity): row j lists the positions of channel j along `dim`
    (several where a linear layer reads flattened images, a grouped conv ties its groups, ...).
    `role`: "out", the layer produces these channels (a filter); "in", it consumes them, and a cut
    channel contributes nothing through these weights; "pass", one number per channel that is
    neither (batch norm, bias, layer scale).

    Examples:
        >>> slot = Slot("head.weight", 1, np.array([[0, 1], [2, 3], [4, 5]]), "in")
        >>> slot.places(np.array([0, 2]))
        array([0, 1, 4, 5])
    """

    tensor: str
    dim: int
    index: IntArray
    role: Role

    def places(self, channels: IntArray) -> IntArray:
        """Positions along `dim` of the given channels, sorted, int64 (channels * multiplicity,)."""
        return np.sort(self.index[channels].reshape(-1))


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Channels that occupy the same places and therefore are ranked and cut in one pool.

    Channel j of the group is row j of every slot's index; cutting it removes all of its places.
    `sizes` are places in layers that own no tensor there but keep a number of channels, such as
    batch norm without parameters: `tensor` then names the layer. `numbers` are whole numbers that
    a module's forward reads, such as the `c` of ``x.split((self.c, self.c), 1)``: `tensor` then
    names the attribute, and each row of `index` says how much a channel counts in it.

    Examples:
        >>> rows = np.arange(4)[:, None]
        >>> slots = (Slot("a.weight", 0, rows, "out"), Slot("b.weight", 1, rows, "in"))
        >>> group = ChannelGroup("a", 4, slots)
        >>> [slot.tensor for slot in group.with_role("in")]
        ['b.weight']
    """

    name: str
    width: int
    slots: tuple[Slot, ...]
    sizes: tuple[Slot, ...] = ()
    numbers: tuple[Slot, ...] = ()

    def with_role(self, role: Role) -> tuple[Slot, ...]:
        """The slots of one role, in trace order."""
        return tuple(slot for slot in self.slots if slot.role == role)


@dataclass(frozen=True, slots=True)
class FrozenChannels:
    """Channels of one layer that stay, and why.

    `tensor`, `dim`: the weight axis they lie on; `channels` of `width` positions are frozen.
    """

    layer: str
    tensor: str
    dim: int
    channels: int
    width: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Which channels each group keeps: sorted int64 arrays, one a group, in the space's order."""

    kept: tuple[IntArray, ...]
    fingerprint: str = ""

    @property
    def widths(self) -> IntArray:
        """How many channels each group keeps, int64 (G,)."""
        return np.array([len(k) for k in self.kept], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[IntArray]:
        return iter(self.kept)

    def __getitem__(self, group: int) -> IntArray:
        return self.kept[group]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Selection)
            and len(self.kept) == len(other.kept)
            and all(np.array_equal(a, b) for a, b in zip(self.kept, other.kept, strict=True))
        )

    def __hash__(self) -> int:
        return hash(tuple(k.tobytes() for k in self.kept))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` gives the same selection back."""
        return {"kept": [k.tolist() for k in self.kept], "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Selection:
        """The selection that `to_json` wrote."""
        kept = tuple(np.array(k, dtype=np.int64) for k in document["kept"])
        return cls(kept, document.get("fingerprint", ""))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Space:
    """All configurations of one traced network.

    Attributes:
        groups: the prunable channel groups, in the order in which the network produces them.
        frozen: what stays, with the reason.
        costs: exact cost polynomials by name ("macs", "params", "activations").
        as_graph: True where some groups can be cut only in the emitted graph
            (`trace(..., as_graph=True)`); `cut` then returns a `torch.fx.GraphModule`.
        model: the class name of the traced network, for messages.
        inputs: shape and dtype of each example input, as (shape, dtype name).
        allow: kinds of operations over channels that were opted into (`trace(..., allow=...)`).
        inexact: where those operations' meaning changes when their channels are cut.
        outputs: numbers of the output leaves that count (`trace(..., outputs=...)`), whose channels
            stay; None: all of them.
        within: the submodules that were traced (`trace(..., within=...)`), whose costs these are;
            empty: the whole network.

    Examples:
        >>> rows = np.arange(4)[:, None]
        >>> slots = (Slot("a.weight", 0, rows, "out"), Slot("b.weight", 1, rows, "in"))
        >>> space = Space(groups=(ChannelGroup("a", 4, slots),), frozen=(), costs={})
        >>> space.widths
        array([4])
        >>> space.dense.kept
        (array([0, 1, 2, 3]),)
        >>> Space.from_json(space.to_json()).fingerprint == space.fingerprint
        True
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenChannels, ...]
    costs: Mapping[str, Cost]
    as_graph: bool = False
    model: str = ""
    inputs: tuple[tuple[tuple[int, ...], str], ...] = ()
    allow: tuple[str, ...] = ()
    inexact: tuple[str, ...] = ()
    outputs: tuple[int, ...] | None = None
    within: tuple[str, ...] = ()
    _cache: dict[str, str] = field(init=False, default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """The groups, what is frozen and the dense costs, on a page at most."""
        costs = ", ".join(f"{name} {cost.dense:,.0f}" for name, cost in self.costs.items())
        groups = [f"  {g.name}: {g.width} channels, {len(g.slots)} slots" for g in self.groups]
        frozen = [f"  {f.layer}: {f.channels} of {f.width} stay, {f.reason}" for f in self.frozen]
        return "\n".join(
            [
                f"Space of {self.model or 'a network'}: {len(groups)} channel groups, "
                f"{int(self.widths.sum()):,} channels; {costs or 'no costs'}",
                *_at_most(groups, 24, "groups"),
                *(["Frozen:"] if frozen else []),
                *_at_most(frozen, 12, "frozen"),
            ]
        )

    @property
    def widths(self) -> IntArray:
        """The dense width of each group, int64 (G,)."""
        return np.array([group.width for group in self.groups], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.groups)

    def cost(self, name: str) -> Cost:
        """The cost called `name`, a callable (..., G) integer widths -> (...) float64."""
        try:
            return self.costs[name]
        except KeyError:
            known = ", ".join(sorted(self.costs))
            raise InvalidInputError(
                f"The 'name' parameter of Space.cost must be one of {known}. "
                f"Got {quoted(name)} instead."
            ) from None

    def group(self, name: str) -> ChannelGroup:
        """The group called `name`."""
        for group in self.groups:
            if group.name == name:
                return group
        raise InvalidInputError(f"No channel group is called {name!r}; `inspect` lists them.")

    @property
    def dense(self) -> Selection:
        """The selection that keeps every channel."""
        kept = tuple(np.arange(group.width, dtype=np.int64) for group in self.groups)
        return Selection(kept, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of the groups and their places: equal for equal architectures, in any process."""
        if "fingerprint" not in self._cache:
            digest = hashlib.sha256()
            for group in self.groups:
                digest.update(f"G{group.name}:{group.width}".encode())
                for slot in group.slots:
                    digest.update(f"S{slot.tensor}:{slot.dim}:{slot.role}".encode())
                    digest.update(np.ascontiguousarray(slot.index, dtype="<i8").tobytes())
            self._cache["fingerprint"] = digest.hexdigest()[:16]
        return self._cache["fingerprint"]

    def check_widths(self, widths: npt.ArrayLike) -> IntArray:
        """`widths` as int64 (G,), or an error that names the first group that does not fit."""
        try:
            array = np.asarray(widths)
        except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors elsewhere
            array = np.array(None)
        if array.shape != (len(self.groups),) or not np.issubdtype(array.dtype, np.integer):
            raise InvalidInputError(
                f"A configuration of this space must be {len(self.groups)} integers. "
                f"Got shape {array.shape}, dtype {array.dtype} instead."
            )
        for group, width in zip(self.groups, array.tolist(), strict=True):
            if not 1 <= width <= group.width:
                raise InvalidInputError(
                    f"Group {group.name!r} must keep between 1 and {group.width} channels. "
                    f"Got {width} instead."
                )
        return array.astype(np.int64)

    def check_selection(self, selection: Selection) -> Selection:
        """`selection` itself, or an error that names the first group that does not fit."""
        if not isinstance(selection, Selection):
            raise InvalidInputError(
                "The 'selection' parameter must be a Selection, as `select` returns it. "
                f"Got {type(selection).__name__} instead."
            )
        sound = isinstance(selection.kept, tuple | list) and all(map(_is_positions, selection.kept))
        if not sound:
            raise InvalidInputError(
                "The kept channels of a Selection must be one array of integers (n,) for each "
                f"group. Got {selection.kept!r:.100} instead."
            )
        if len(selection) != len(self.groups):
            raise InvalidInputError(
                f"The selection has {len(selection)} groups, the space {len(self.groups)}."
            )
        if selection.fingerprint and selection.fingerprint != self.fingerprint:
            raise InvalidInputError(
                f"The selection was made for space {selection.fingerprint}, "
                f"this one is {self.fingerprint}. Trace the same network again."
            )
        for group, kept in zip(self.groups, selection, strict=True):
            inside = kept.size > 0 and kept[0] >= 0 and kept[-1] < group.width
            if not inside or np.any(kept[1:] <= kept[:-1]):
                raise InvalidInputError(
                    f"Group {group.name!r}: kept channels must be sorted, distinct and within "
                    f"0..{group.width - 1}, at least one. Got {kept.tolist()[:8]}..."
                )
        return selection

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with groups, frozen parts and costs (exact)."""
        part: dict[str, Any] = {} if self.outputs is None else {"outputs": list(self.outputs)}
        if self.within:
            part["within"] = list(self.within)
        return {
            **part,
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "model": self.model,
            "as_graph": self.as_graph,
            "allow": list(self.allow),
            "inexact": list(self.inexact),
            "inputs": [[list(shape), dtype] for shape, dtype in self.inputs],
            "groups": [
                {
                    "name": group.name,
                    "width": group.width,
                    "slots": [_slot_to_json(slot) for slot in group.slots],
                    "sizes": [_slot_to_json(slot) for slot in group.sizes],
                    **_numbers_to_json(group),
                }
                for group in self.groups
            ],
            "frozen": [
                [f.layer, f.tensor, f.dim, f.channels, f.width, f.reason] for f in self.frozen
            ],
            "costs": {
                name: cost.to_json()
                for name, cost in self.costs.items()
                if isinstance(cost, QuadraticCost)
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str) -> Space:
        """The space that `to_json` wrote; raises `ArtifactError` where the hash does not match."""
        if isinstance(document, str):
            return cls.from_json(json.loads(document))
        if document.get("format") != _FORMAT:
            raise ArtifactError(
                f"Space format {document.get('format')!r} is unknown to this version ({_FORMAT})."
            )
        space = cls(
            groups=tuple(
                ChannelGroup(
                    g["name"],
                    g["width"],
                    tuple(_slot_from_json(slot, g["width"]) for slot in g["slots"]),
                    tuple(_slot_from_json(slot, g["width"]) for slot in g.get("sizes", ())),
                    tuple(_slot_from_json(slot, g["width"]) for slot in g.get("numbers", ())),
                )
                for g in document["groups"]
            ),
            frozen=tuple(FrozenChannels(*f) for f in document["frozen"]),
            costs={n: QuadraticCost.from_json(c) for n, c in document["costs"].items()},
            as_graph=document["as_graph"],
            model=document["model"],
            inputs=tuple((tuple(shape), dtype) for shape, dtype in document["inputs"]),
            allow=tuple(document["allow"]),
            inexact=tuple(document["inexact"]),
            outputs=tuple(document["outputs"]) if "outputs" in document else None,
            within=tuple(document.get("within", ())),
        )
        if space.fingerprint != document["fingerprint"]:
            raise ArtifactError(
                f"The stored space does not match its fingerprint {document['fingerprint']}: "
                "the file was altered. Write it again from the network."
            )
        return space


def _numbers_to_json(group: ChannelGroup) -> dict[str, Any]:
    """Few groups have any: absent where there is none."""
    return {"numbers": [_slot_to_json(s) for s in group.numbers]} if group.numbers else {}


def _is_positions(kept: Any) -> bool:
    return isinstance(kept, np.ndarray) and kept.ndim == 1 and kept.dtype.kind in "iu"


def _slot_to_json(slot: Slot) -> dict[str, Any]:
    return {
        "tensor": slot.tensor,
        "dim": slot.dim,
        "role": slot.role,
        "index": _pack(slot.index),
    }


def _slot_from_json(document: Mapping[str, Any], width: int) -> Slot:
    index = _unpack(document["index"], width)
    return Slot(document["tensor"], document["dim"], index, document["role"])


def _pack(index: IntArray) -> list[list[int]]:
    """Runs [start, step, count] of the flattened index: short for the regular ones that occur."""
    flat = index.reshape(-1).tolist()
    runs: list[list[int]] = []
    position = 0
    while position < len(flat):
        start, step, count = flat[position], 1, 1
        if position + 1 < len(flat):
            step = flat[position + 1] - start
            while position + count < len(flat) and flat[position + count] == start + step * count:
                count += 1
        runs.append([start, step, count])
        position += count
    return runs


def _unpack(runs: Sequence[Sequence[int]], width: int) -> IntArray:
    flat = [start + step * i for start, step, count in runs for i in range(count)]
    return np.array(flat, dtype=np.int64).reshape(width, -1)


def _at_most(lines: list[str], count: int, attribute: str) -> list[str]:
    """The first lines, and how many more there are under which attribute."""
    more = len(lines) - count
    return lines if more <= 0 else [*lines[:count], f"  ... and {more} more, see .{attribute}"]
