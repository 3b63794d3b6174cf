"""Widen a network: the same graph with more channels in every group that can be cut.

Pruning from scratch searches widths around the original ones: `widen` makes the network that is
large enough for all of them, and `cut` then makes any of them.

Method. Every axis of every tensor grows by its slots' multiplicity for each new channel, which is
what `cut` would take away again. Where the new positions lie on an axis (behind a concat, a channel
shuffle, a flatten) follows from the forward, so the result is traced: its space says where every
channel lies, old ones first. The two spaces must fit: cutting the wide network back to the first
channels gives the original one, tensor by tensor; groups for which they do not are left as they
were, with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from randprune.cost import Budget
from randprune.errors import InvalidInputError, RandpruneError, UnsupportedModelError, quoted
from randprune.graph.program import in_mode, private_copy
from randprune.graph.slicing import grow_channels, kept_positions
from randprune.graph.trace import trace
from randprune.lineage import WidenStep, named_tensors, plan_of, remember_step
from randprune.space import ChannelGroup, IntArray, Selection, Space

Factor = float | Mapping[str, float]


def widen(
    model: nn.Module, space: Space, factor: Factor = 1.5, *, round_to: int = 1, seed: int = 0
) -> nn.Module:
    """A new, wider network with the same graph; the caller's stays untouched.

    The old channels come first in every group and keep their weights, so that cutting the result
    back to the original widths gives the original network bit for bit. New weights start as their
    layer's `reset_parameters` draws them; where there is none, they repeat the old ones.
    `widening_of(wide)` has the traced space, and which groups had to stay and why.

    Args:
        model: the network that was traced.
        space: its space.
        factor: new width over old one, of all groups or by group name (others stay), at least 1.
        round_to: new widths are multiples of this number, where a group grows at all.
        seed: of the new weights.

    Raises:
        InvalidInputError: a factor that means nothing, or a network of another space.
        UnsupportedModelError: the wide network does not run, whichever groups stay.
    """
    if space.as_graph:
        raise InvalidInputError(
            "Widening needs a network whose module can be cut; this space was traced with "
            "as_graph=True. Trace it without."
        )
    asked = _wide_widths(space, factor, round_to)
    widths, stayed = _that_run(model, space, asked)
    network = grow_channels(private_copy(model), space, widths)
    _draw(network, seed)
    wide = _traced(network, space)
    odd = _misfits(space, wide, widths)
    if odd:
        # Their channels lie elsewhere in the wide network: give them up, and look once more.
        stayed |= dict.fromkeys(odd, "its channels cannot be told apart in a wider network")
        names = [group.name for group in space.groups]
        for name in odd:
            widths[names.index(name)] = space.groups[names.index(name)].width
        network = grow_channels(private_copy(model), space, widths)
        _draw(network, seed)
        wide = _traced(network, space)
        if odd := _misfits(space, wide, widths):
            raise UnsupportedModelError(
                f"The groups of the widened {space.model} do not correspond to those of the "
                f"original one, first {odd[0]!r}. Leave it out: factor={{group: factor, ...}}."
            )
    _put_old(model, network, space, wide)
    return remember_step(model, network, WidenStep(space, wide, stayed))


def widening_of(wide: nn.Module) -> WidenStep:
    """How `widen` made this network: its space (`wide`), the original one, and what had to stay.

    Raises:
        InvalidInputError: the network does not come from `widen`.
    """
    plan = plan_of(wide)
    steps = [step for step in plan.steps if isinstance(step, WidenStep)] if plan else []
    if not steps:
        raise InvalidInputError(
            f"This {type(wide).__name__} was not widened. Call randprune.widen on it first."
        )
    return steps[-1]


def widen_again(model: nn.Module, step: WidenStep) -> nn.Module:
    """The wide network of a recorded step without values: what `load` puts its tensors into."""
    network = grow_channels(private_copy(model), step.space, step.wide.widths)
    return remember_step(model, network, step)


def wide_budget(original: Space, wide: Space, budget: Budget) -> Budget:
    """A budget relative to the original network, as one of the wide space: the same limits.

    Raises:
        InvalidInputError: more is asked than the wide network has.
    """
    share = original.cost(budget.metric).dense / wide.cost(budget.metric).dense
    return replace(budget, ratio=budget.ratio * share, tolerance=budget.tolerance * share)


def _wide_widths(space: Space, factor: Factor, round_to: int) -> IntArray:
    names = {group.name for group in space.groups}
    if isinstance(factor, Mapping):
        if unknown := sorted(set(factor) - names):
            raise InvalidInputError(
                f"The 'factor' parameter of widen names no group {unknown[0]!r}. "
                f"Groups are: {', '.join(sorted(names)[:8])}, ..."
            )
        factors = [factor.get(group.name, 1.0) for group in space.groups]
    else:
        factors = [factor] * len(space.groups)
    bad = [f for f in factors if isinstance(f, bool) or not math.isfinite(f) or f < 1.0]
    if bad:
        raise InvalidInputError(
            f"The 'factor' parameter of widen must be at least 1. Got {quoted(bad[0])} instead."
        )
    if isinstance(round_to, bool) or round_to < 1:
        raise InvalidInputError(
            "The 'round_to' parameter of widen must be an integer of at least 1. "
            f"Got {quoted(round_to)} instead."
        )
    grown = [
        width if f == 1.0 else max(width, round_to * math.floor(f * width / round_to + 0.5))
        for width, f in zip(space.widths.tolist(), factors, strict=True)
    ]
    return np.array(grown, dtype=np.int64)


def _that_run(model: nn.Module, space: Space, asked: IntArray) -> tuple[IntArray, dict[str, str]]:
    """The widths at which the wide network runs, and why the other groups stay."""
    problem = _problem(model, space, asked)
    if not problem:
        return asked.copy(), {}
    widths, stayed = asked.copy(), {}
    for g, group in enumerate(space.groups):
        alone = space.widths
        alone[g] = asked[g]
        if reason := _problem(model, space, alone):
            widths[g] = group.width
            stayed[group.name] = f"the network does not run with more of its channels: {reason}"
    if rest := _problem(model, space, widths):
        raise UnsupportedModelError(
            f"The widened {space.model} does not run: {rest}. Widen fewer groups: "
            "factor={group: factor, ...}."
        )
    return widths, stayed


def _problem(model: nn.Module, space: Space, widths: IntArray) -> str:
    """Why the wide network does not run on the traced inputs; "" where it does."""
    network = in_mode(grow_channels(private_copy(model), space, widths))
    with torch.no_grad():
        try:
            network(*_example(network, space))
        except Exception as error:  # whatever a forward raises
            return next(iter(str(error).splitlines()), "") or type(error).__name__
    return ""


def _example(model: nn.Module, space: Space) -> tuple[torch.Tensor, ...]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(
        torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        for shape, dtype in space.inputs
    )


def _traced(network: nn.Module, space: Space) -> Space:
    """The space of the wide network; frozen by name as in the original one."""
    try:
        return trace(network, _example(network, space), allow=space.allow, freeze=_named(space))
    except RandpruneError as error:
        raise UnsupportedModelError(
            f"The widened {space.model} cannot be traced: {error} Widen fewer groups: "
            "factor={group: factor, ...}."
        ) from error


def _named(space: Space) -> list[str]:
    """The patterns that the original was frozen by."""
    prefix = "named in freeze ("
    reasons = {f.reason for f in space.frozen if f.reason.startswith(prefix)}
    return sorted(reason.removeprefix(prefix).removesuffix(")") for reason in reasons)


def _misfits(space: Space, wide: Space, widths: IntArray) -> list[str]:
    """Groups whose first channels are not the original ones; all, where the groups differ."""
    names = [group.name for group in space.groups]
    if [group.name for group in wide.groups] != names:
        found = {group.name for group in wide.groups}
        return [name for name in names if name not in found] or names
    pairs = list(zip(space.groups, wide.groups, widths.tolist(), strict=True))
    odd = [ours.name for ours, theirs, width in pairs if not _alike(ours, theirs, width)]
    if odd:
        return odd
    first = tuple(np.arange(group.width, dtype=np.int64) for group in space.groups)
    removed = kept_positions(wide, Selection(first))
    return [ours.name for ours, theirs, _ in pairs if not _reduces(ours, theirs, removed)]


def _alike(ours: ChannelGroup, theirs: ChannelGroup, width: int) -> bool:
    """The wide group has the expected width and the same slots."""
    shapes = (
        [(s.tensor, s.dim, s.role, s.index.shape[1]) for s in g.slots] for g in (ours, theirs)
    )
    return theirs.width == width and len({tuple(shape) for shape in shapes}) == 1


def _reduces(
    ours: ChannelGroup, theirs: ChannelGroup, removed: Mapping[str, Mapping[int, IntArray]]
) -> bool:
    """The first channels lie where the original's lie once the positions `removed` have gone."""
    none = np.zeros(0, dtype=np.int64)
    for old, new in zip(ours.slots, theirs.slots, strict=True):
        gone = removed.get(new.tensor, {}).get(new.dim, none)
        places = new.index[: ours.width]
        # A position moves down by the number of removed ones before it.
        if not np.array_equal(places - np.searchsorted(gone, places), old.index):
            return False
    return True


def _draw(network: nn.Module, seed: int) -> None:
    """New numbers in every layer that knows how to draw them, from a generator of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def _put_old(model: nn.Module, network: nn.Module, space: Space, wide: Space) -> None:
    """Write the original's numbers to the first channels; repeat them where nothing was drawn."""
    old = named_tensors(model)
    sources = _sources(space, wide)
    first = tuple(np.arange(group.width, dtype=np.int64) for group in space.groups)
    removed = kept_positions(wide, Selection(first))
    drawn = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if callable(getattr(module, "reset_parameters", None))
        for name in [*module._parameters, *module._buffers]
    }
    with torch.no_grad():
        # Each tensor once, under the name that the space calls it by: its first one.
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            given = old[name].detach()
            if given.shape == tensor.shape:
                tensor.copy_(given)
            elif name in drawn:
                kept = (
                    np.setdiff1d(np.arange(size), removed[name].get(dim, []))
                    for dim, size in enumerate(tensor.shape)
                )
                tensor[tuple(map(torch.from_numpy, np.ix_(*kept)))] = given
            else:
                for dim, (places, origins) in sources[name].items():
                    source = np.full(tensor.shape[dim], -1, dtype=np.int64)
                    source[places] = origins
                    # Positions of no group keep their order in what the groups leave free.
                    source[source < 0] = np.setdiff1d(np.arange(given.shape[dim]), origins)
                    given = given.index_select(dim, torch.from_numpy(source).to(given.device))
                tensor.copy_(given)


def _sources(space: Space, wide: Space) -> dict[str, dict[int, tuple[IntArray, IntArray]]]:
    """Tensor -> axis -> positions of all groups' channels in it, and which old ones they repeat."""
    parts: dict[str, dict[int, list[tuple[IntArray, IntArray]]]] = {}
    for ours, theirs in zip(space.groups, wide.groups, strict=True):
        repeated = np.arange(theirs.width) % ours.width
        for old, new in zip(ours.slots, theirs.slots, strict=True):
            pair = (new.index.reshape(-1), old.index[repeated].reshape(-1))
            parts.setdefault(old.tensor, {}).setdefault(old.dim, []).append(pair)
    return {
        tensor: {
            dim: (np.concatenate([p for p, _ in pairs]), np.concatenate([o for _, o in pairs]))
            for dim, pairs in dims.items()
        }
        for tensor, dims in parts.items()
    }
