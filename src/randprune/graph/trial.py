"""Trial cuts: find the groups whose cut network does not run, or computes something else.

Numbers of channels that are baked into a module's forward (a literal view, a chunk size, a pad)
are invisible to labels. All groups are cut at once; only on failure are the culprits searched.

Numbers are compared in float64 where the forward runs in it: there rounding is far below any wrong
channel, so that nothing passes here which `verify` refuses later for other channels. (A head that
goes while the forward still divides into two changed float32 outputs by as little as 1e-4.)
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from randprune.graph.emit import Emission
from randprune.graph.exits import counted
from randprune.graph.numbers import candidate_numbers
from randprune.graph.oracle import (
    mask_consumers,
    random_like,
    random_selection,
    randomise_scales,
    relative_error,
)
from randprune.graph.program import in_mode, private_copy
from randprune.graph.slicing import remove_channels
from randprune.space import ChannelGroup, Selection, Slot, Space

# In float64; `verify` allows 1e-4, of other channels, for which a wrong cut may show much more.
_TOLERANCE = 1e-7
# Where the forward does not run in float64: what `verify` allows, which rounding may come near.
_ROUNDED_TOLERANCE = 1e-4
# Inputs of so many values show what a forward does in one draw.
_MANY = 4096
# Groups of so few channels are tried more than once.
_NARROW = 16
# Of these, all cuts are tried.
_LISTED = 3
_LIBRARIES = (Path(torch.__file__).resolve().parent, Path(__file__).resolve().parents[1])


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """The inputs of one forward pass."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cut network is wrong; `module` is where its forward pass stopped, if it did."""

    reason: str
    module: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What is cut and compared.

    `cutter(space, selection)` gives a private network: the cut one, or the dense one where all is
    kept. `model`: the dense module, whose attributes may be set; None for emitted graphs.
    `numbers`: also compare outputs with the oracle's (not where the space is inexact).
    `exact`: networks and inputs are run in float64.
    """

    cutter: Callable[[Space, Selection], nn.Module]
    model: nn.Module | None
    space: Space
    calls: list[Call]
    numbers: bool
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What a trial found: groups that cannot be cut, and why; attributes that count a group."""

    failed: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, tuple[Slot, ...]] = field(default_factory=dict)


def failing_groups(
    model: nn.Module, space: Space, inputs: tuple[Any, ...], numbers: bool = True
) -> Verdict:
    """What cannot be cut in this module, and which of its numbers have to be set with a cut.

    Args:
        model: the dense network, left untouched.
        numbers: also compare outputs with the oracle's (False where the space is inexact).
    """
    calls = [Call(draw) for draw in _draws(model, inputs)]
    exact = _runs_exactly(private_copy(model), calls[0])
    trial = Trial(_module_cutter(model), model, space, calls, numbers, exact)
    active = {g for g, group in enumerate(space.groups) if group.width > 1}
    if not active or _attempt(trial, active) is None:
        return Verdict()
    # Where some outputs do not count, what a submodule returns may not count either.
    inside = _inside_modules(model, trial, active) if space.outputs is None else Verdict()
    trial = replace(trial, space=_numbered(space, inside.numbers))
    rest = _search(trial, active - inside.failed.keys())
    return Verdict(inside.failed | rest.failed, inside.numbers | rest.numbers)


def failing_in_graph(emission: Emission, space: Space, numbers: bool = True) -> Verdict:
    """Every group whose emitted network is wrong, and why."""
    calls = [Call(random_like(emission.inputs, seed=1))]
    exact = _runs_exactly(emission.network(space, space.dense), calls[0])
    trial = Trial(emission.network, None, space, calls, numbers, exact)
    return _search(trial, {g for g, group in enumerate(space.groups) if group.width > 1})


def _module_cutter(model: nn.Module) -> Callable[[Space, Selection], nn.Module]:
    return lambda space, selection: remove_channels(private_copy(model), space, selection)


def _search(trial: Trial, active: set[int]) -> Verdict:
    """Cut everything that is left, and give up one culprit after another until it works."""
    verdict = Verdict()
    while active:
        failure = _attempt(trial, active)
        if failure is None:
            break
        culprits = _culprits(trial, active, failure)
        for number, found in culprits.items():
            slots = _counted_by(trial, number, found) if number not in verdict.numbers else ()
            if slots:
                verdict.numbers[number] = slots
                trial = replace(trial, space=_numbered(trial.space, {number: slots}))
            else:
                verdict.failed[number] = found.reason
        active = active - verdict.failed.keys()
    return verdict


def _counted_by(trial: Trial, number: int, failure: Failure) -> tuple[Slot, ...]:
    """Attributes with which the group can be cut after all; empty where there are none."""
    if trial.model is None:
        return ()
    for slots in candidate_numbers(trial.model, trial.space.groups[number], failure.module):
        attempt = replace(trial, space=_numbered(trial.space, {number: slots}))
        if _attempt(attempt, {number}) is None:
            return slots
    return ()


def _numbered(space: Space, numbers: Mapping[int, tuple[Slot, ...]]) -> Space:
    """The space whose groups also count in these attributes."""
    groups = tuple(
        replace(group, numbers=(*group.numbers, *numbers.get(g, ())))
        for g, group in enumerate(space.groups)
    )
    return replace(space, groups=groups)


def _draws(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Random inputs for the comparison: one example of the batch, several draws of small ones.

    Half of several draws are larger than the others.
    """
    single = random_like(inputs, seed=1, batch=1)
    batch: int | None = 1
    try:
        with torch.no_grad():
            in_mode(private_copy(model))(*single)
    except Exception:
        batch = None  # the first axis is no batch, or its size is a constant of the forward
    elements = sum(x.numel() for x in tree_leaves(single) if isinstance(x, torch.Tensor))
    if elements > _MANY:
        return [random_like(inputs, 0, batch)]
    few = [random_like(inputs, seed, batch) for seed in range(8)]
    # Of few and small values, none may reach what bounds them, such as a clamp.
    return few[:4] + [tree_map_only(torch.Tensor, _larger, draw) for draw in few[4:]]


def _larger(value: torch.Tensor) -> torch.Tensor:
    return value * 4 if value.is_floating_point() else value


def _inside_modules(model: nn.Module, trial: Trial, active: set[int]) -> Verdict:
    """Failures of groups that live inside one submodule, found by running that submodule alone.

    Together this costs about one forward pass, however many blocks fail.
    """
    space = trial.space
    dense = in_mode(private_copy(model))
    randomise_scales(dense, dense, space, space.dense)
    called = _record(dense, trial.calls[0], None)
    homes: dict[str, set[int]] = defaultdict(set)
    for number in sorted(active):
        home = _home(space.groups[number])
        while home and home not in called:
            home = home.rpartition(".")[0]
        if home:
            homes[home].add(number)
    recorded = _record(dense, trial.calls[0], set(homes))
    verdict = Verdict()
    for home, inside in homes.items():
        part, order = _subspace(space, inside, home)
        module = dense.get_submodule(home)
        within = Trial(
            _module_cutter(module), module, part, [recorded[home]], trial.numbers, trial.exact
        )
        found = _search(within, set(range(len(order))))
        verdict.failed.update({order[g]: reason for g, reason in found.failed.items()})
        for g, slots in found.numbers.items():
            verdict.numbers[order[g]] = tuple(
                replace(slot, tensor=f"{home}.{slot.tensor}") for slot in slots
            )
    return verdict


def _record(model: nn.Module, call: Call, names: set[str] | None) -> dict[str, Call]:
    """The first call of every submodule (of `names`, with copies of its inputs)."""
    seen: dict[str, Call] = {}

    def recorder(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if name not in seen:
                copied = names is not None
                seen[name] = Call(
                    tree_map(_clone, args) if copied else (),
                    tree_map(_clone, kwargs) if copied else {},
                )

        return hook

    hooks = [
        module.register_forward_pre_hook(recorder(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and (names is None or name in names)
    ]
    try:
        with torch.no_grad():
            model(*call.args, **call.kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _clone(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _home(group: ChannelGroup) -> str:
    """The innermost module that holds all of a group's tensors."""
    paths = [slot.tensor.split(".")[:-1] for slot in (*group.slots, *group.sizes)]
    common = paths[0]
    for path in paths[1:]:
        same = [a == b for a, b in zip(common, path, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return ".".join(common)


def _subspace(space: Space, numbers: set[int], home: str) -> tuple[Space, list[int]]:
    """The given groups as a space of the submodule `home`, and their numbers in the whole."""
    order = sorted(numbers)
    cut = len(home) + 1
    groups = tuple(
        replace(
            space.groups[g],
            slots=tuple(replace(s, tensor=s.tensor[cut:]) for s in space.groups[g].slots),
            sizes=tuple(replace(s, tensor=s.tensor[cut:]) for s in space.groups[g].sizes),
        )
        for g in order
    )
    return Space(groups=groups, frozen=(), costs={}), order


def _attempt(trial: Trial, groups: set[int]) -> Failure | None:
    """Cut the groups to some of their channels; why that is wrong, None where it is right."""
    widths = trial.space.widths
    tried = [random_selection(widths, seed=7, groups=groups)]
    # Few channels may be, by chance, those that a wrong forward reads: mostly the first ones.
    tried += _narrow_cuts(widths, {g for g in groups if widths[g] <= _NARROW})
    failures = (_compare(trial, Selection(kept)) for kept in tried)
    return next((failure for failure in failures if failure is not None), None)


def _narrow_cuts(widths: np.ndarray, groups: set[int]) -> list[tuple[np.ndarray, ...]]:
    """Kept channels of cuts that together leave narrow groups few of them to hide behind.

    Groups of up to `_LISTED` channels go through everything that can be kept of them, others
    through their last channels and two draws.
    """
    few = random_selection(widths, seed=8, low=0.2, high=0.4, groups=groups)
    more = random_selection(widths, seed=9, groups=groups)
    choices = {
        g: _proper_subsets(widths[g])
        if widths[g] <= _LISTED
        else [np.arange(widths[g] - len(few[g]), widths[g]), few[g], more[g]]
        for g in groups
    }
    rounds = max(map(len, choices.values()), default=0)
    return [
        tuple(
            choices[g][turn % len(choices[g])] if g in choices else np.arange(width)
            for g, width in enumerate(widths)
        )
        for turn in range(rounds)
    ]


def _proper_subsets(width: int) -> list[np.ndarray]:
    sizes = range(1, width)
    return [np.array(kept) for size in sizes for kept in combinations(range(width), size)]


def _compare(trial: Trial, selection: Selection) -> Failure | None:
    space = trial.space
    small = in_mode(trial.cutter(space, selection))
    dense = in_mode(trial.cutter(space, space.dense))
    randomise_scales(dense, small, space, selection)
    mask_consumers(dense, space, selection)
    if trial.exact:
        small, dense = small.double(), dense.double()
    path: list[str] = []
    hooks = [
        module.register_forward_pre_hook(_entering(path, name))
        for name, module in small.named_modules()
    ] + [module.register_forward_hook(_leaving(path)) for module in small.modules()]
    try:
        with torch.no_grad():
            got = [counted(small(*c.args, **c.kwargs), space.outputs) for c in _copies(trial)]
    except Exception as error:
        where = _source_line(error)
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else repr(error)
        return Failure(f"its forward holds a constant: {reason}{where}", path[-1] if path else "")
    finally:
        for hook in hooks:
            hook.remove()
    if not trial.numbers:
        return None
    with torch.no_grad():
        expected = [counted(dense(*c.args, **c.kwargs), space.outputs) for c in _copies(trial)]
    if not relative_error(expected, got) <= (_TOLERANCE if trial.exact else _ROUNDED_TOLERANCE):
        return Failure("cutting it changes what the forward computes (a constant slice or view)")
    return None


def _copies(trial: Trial) -> list[Call]:
    """Fresh inputs: a forward may write into its own."""
    copies = [Call(tree_map(_clone, c.args), tree_map(_clone, c.kwargs)) for c in trial.calls]
    return [_in_float64(call) for call in copies] if trial.exact else copies


def _in_float64(call: Call) -> Call:
    def cast(value: torch.Tensor) -> torch.Tensor:
        return value.double() if value.is_floating_point() else value

    return Call(
        tree_map_only(torch.Tensor, cast, call.args),
        tree_map_only(torch.Tensor, cast, call.kwargs),
    )


def _runs_exactly(network: nn.Module, call: Call) -> bool:
    """Whether the forward takes float64; one that holds float32 tensors of its own does not."""
    exact = _in_float64(Call(tree_map(_clone, call.args), tree_map(_clone, call.kwargs)))
    try:
        with torch.no_grad():
            in_mode(network.double())(*exact.args, **exact.kwargs)
    except Exception:  # whatever a forward raises; what is wrong besides is found in its own dtype
        return False
    return True


def _culprits(trial: Trial, active: set[int], failure: Failure) -> dict[int, Failure]:
    """One or more groups of `active` that fail, found by where it stopped, else by halving."""
    suspects = _near(trial.space, active, failure.module) if failure.module else set()
    pool = sorted(active)
    if suspects and suspects != active:
        alone = _attempt(trial, suspects)
        if alone is not None:
            pool = sorted(suspects)
            failure = alone
    while len(pool) > 1:
        half = set(pool[: len(pool) // 2])
        first = _attempt(trial, half)
        if first is not None:
            pool, failure = sorted(half), first
            continue
        rest = set(pool) - half
        second = _attempt(trial, rest)
        if second is None:
            # Only their combination fails: giving up the smaller half settles it.
            fewer = min((half, rest), key=len)
            return dict.fromkeys(fewer, failure)
        pool, failure = sorted(rest), second
    return dict.fromkeys(pool, failure)


def _near(space: Space, active: set[int], module: str) -> set[int]:
    """Groups that have channels inside the module where the forward stopped."""
    prefix = f"{module}." if module else ""
    return {
        g for g in active if any(slot.tensor.startswith(prefix) for slot in space.groups[g].slots)
    }


def _entering(path: list[str], name: str) -> Any:
    def hook(module: nn.Module, arguments: Any) -> None:
        path.append(name)

    return hook


def _leaving(path: list[str]) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        path.pop()

    return hook


def _source_line(error: BaseException) -> str:
    """The model's own line that failed, without machine paths."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _is_a_library(Path(f.filename))]
    if not own or not own[-1].line:
        return ""
    return f" at `{own[-1].line.strip()[:120]}`"


def _is_a_library(source: Path) -> bool:
    # By the packages' own folders: a user's folder may well be called randprune or torch.
    return any(source.resolve().is_relative_to(folder) for folder in _LIBRARIES)
