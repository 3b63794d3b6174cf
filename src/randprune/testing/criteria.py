"""What every criterion must do, checked on two tiny networks in about a second."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from randprune.criteria.base import Criterion
from randprune.criteria.scoring import score, score_all
from randprune.errors import DataError
from randprune.graph.trace import trace
from randprune.lineage import named_tensors
from randprune.recovery import DenseStatistics
from randprune.space import Slot, Space
from randprune.testing.networks import IMAGE_SHAPE, Normed, Plain, labelled_images, seeded

_TOLERANCE = 1e-4
"""Of the largest score in a group: what rounding in another order may change."""


def check_criterion(
    criterion: Criterion, *, informed: bool = True, scale_power: int | None = None
) -> None:
    """Check a criterion against its contract (`randprune.criteria.base.Criterion`).

    Args:
        criterion: the object; a frozen dataclass in the package itself.
        informed: whether scores depend on the network; False for a control such as `random`, of
            which only the form is checked.
        scale_power: how the scores of a group grow with the filters that produce it, where that is
            simple: 1 if doubling all filters doubles the scores, 2 if it quadruples them, 0 if it
            leaves them; None where nothing is promised.

    Raises:
        AssertionError: says which rule is broken, and how.
    """
    check_declaration(criterion)
    model, space = _traced(Normed)
    scores = check_form(criterion, model, space)
    check_untouched(criterion, model, space, scores)
    check_shared(criterion, model, space, scores)
    if informed:
        check_dead_channels(criterion, model, space)
        check_renumbered(criterion, model, space, scores)
    model, space = _traced(Plain)
    scores = check_form(criterion, model, space)
    if scale_power is not None:
        check_scale(criterion, model, space, scores, scale_power)


@cache
def _traced(make: Callable[[], nn.Module]) -> tuple[nn.Module, Space]:
    """A seeded network in evaluation mode with its space; shared, so checks edit copies only."""
    model = seeded(make).eval()
    return model, trace(model, torch.zeros(1, *IMAGE_SHAPE))


def check_declaration(criterion: Criterion) -> None:
    """A name, what it needs, and a `repr` that rebuilds the object."""
    assert isinstance(criterion, Criterion), (
        f"{criterion!r} lacks one of name, needs, scores: it is no Criterion."
    )
    assert criterion.name, f"{criterion!r} has no name."
    known = {"weights", "moments", "activations", "gradients", "outputs"}
    assert criterion.needs <= known, (
        f"{criterion.name} needs {sorted(criterion.needs - known)}; known are {sorted(known)}."
    )
    kind = type(criterion)
    rebuilt = eval(repr(criterion), {kind.__name__: kind})
    assert repr(rebuilt) == repr(criterion), f"The repr of {criterion.name} does not rebuild it."


def check_form(criterion: Criterion, model: nn.Module, space: Space) -> list[Tensor]:
    """One finite float tensor (width,) a group; without data an error where data are needed."""
    if criterion.needs - {"weights"}:
        try:
            score(model, space, criterion)
        except DataError:
            pass
        else:
            raise AssertionError(f"{criterion.name} declares needs, but gave scores without data.")
    scores = score(model, space, criterion, labelled_images())
    for group, values in zip(space.groups, scores, strict=True):
        where = f"{criterion.name} gave group {group.name}"
        assert isinstance(values, Tensor), f"{where} {type(values).__name__}, not a tensor."
        assert values.is_floating_point(), f"{where} {values.dtype}, not floating point."
        assert values.shape == (group.width,), f"{where} shape {tuple(values.shape)}."
        assert bool(torch.isfinite(values).all()), f"{where} values that are not finite."
        assert not values.requires_grad, f"{where} scores that carry gradients."
    return scores


def check_untouched(
    criterion: Criterion, model: nn.Module, space: Space, scores: list[Tensor]
) -> None:
    """The caller's network and torch's generator stay bit-identical, also after an error.

    Neither do training flags and gradients change the scores, which come out the same to the bit.
    """
    model = copy.deepcopy(model).train()
    next(iter(model.children())).eval()
    parameters = list(model.parameters())
    parameters[0].grad = torch.full_like(parameters[0], 0.5)
    parameters[-1].requires_grad_(False)
    before = _everything(model)
    again = score(model, space, criterion, labelled_images())
    assert _everything(model) == before, (
        f"{criterion.name} changed the caller's network or generator."
    )
    assert all(torch.equal(a, b) for a, b in zip(scores, again, strict=True)), (
        f"{criterion.name} gave other scores when it was asked again."
    )
    if not criterion.needs - {"weights"}:
        return
    try:
        score(model, space, criterion, _Breaking())
    except _Broken:
        assert _everything(model) == before, (
            f"{criterion.name} left the caller's network changed when the data broke off."
        )
        return
    raise AssertionError(f"{criterion.name} needs data, but did not read them to the end.")


def check_shared(
    criterion: Criterion, model: nn.Module, space: Space, scores: list[Tensor]
) -> None:
    """The same scores where passes over the data are shared with other criteria."""
    others = [name for name in ("l1", "taylor", "chip") if name != criterion.name]
    shared = DenseStatistics(model, space)
    data = labelled_images()
    together = score_all(model, space, [*others, criterion], data, shared=shared)
    beside = f"{criterion.name} beside {', '.join(others)}"
    _assert_close(together[criterion.name], scores, space, beside)
    later = score(model, space, criterion, data, shared=shared)
    _assert_close(later, scores, space, f"{criterion.name} with passes that were shared before")


def check_dead_channels(criterion: Criterion, model: nn.Module, space: Space) -> None:
    """Higher = keep: a channel that is zero and that nobody reads has the lowest score."""
    model = copy.deepcopy(model)
    dead = [group.width // 2 for group in space.groups]
    tensors = named_tensors(model)
    with torch.no_grad():
        for group, channel in zip(space.groups, dead, strict=True):
            for slot in group.slots:
                index = torch.from_numpy(slot.index[channel])
                fill = 1.0 if slot.tensor.endswith("running_var") else 0.0
                tensors[slot.tensor].index_fill_(slot.dim, index, fill)
    scores = score(model, space, criterion, labelled_images())
    for group, channel, values in zip(space.groups, dead, scores, strict=True):
        others = torch.cat([values[:channel], values[channel + 1 :]])
        lowest = bool(values[channel] <= others.min()) and bool(values[channel] < others.max())
        assert lowest, (
            f"{criterion.name}: channel {channel} of group {group.name} does nothing, but scores "
            f"{float(values[channel]):.4g} among {others.tolist()}. Higher must mean keep."
        )


def check_renumbered(
    criterion: Criterion, model: nn.Module, space: Space, scores: list[Tensor]
) -> None:
    """Channels in another order in the same network get the same scores in that order."""
    data = labelled_images()
    generator = torch.Generator().manual_seed(5)
    orders = [torch.randperm(group.width, generator=generator) for group in space.groups]
    moved = copy.deepcopy(model)
    tensors = named_tensors(moved)
    with torch.no_grad():
        for group, order in zip(space.groups, orders, strict=True):
            for slot in group.slots:
                _renumber(tensors[slot.tensor], slot, order)
    images = data[0][0]
    with torch.no_grad():
        same = torch.allclose(model(images), moved(images), atol=1e-4)
    assert same, "The check itself is wrong: renumbering changed what the network computes."
    after = score(moved, space, criterion, data)
    wanted = [values[order] for values, order in zip(scores, orders, strict=True)]
    _assert_close(after, wanted, space, f"{criterion.name} after renumbering the channels")


def check_scale(
    criterion: Criterion, model: nn.Module, space: Space, scores: list[Tensor], power: int
) -> None:
    """Doubling all filters that produce a group multiplies its scores by 2 ** power.

    `model` needs to be homogeneous, as `Plain` is: no norms, no biases.
    """
    for number, group in enumerate(space.groups):
        louder = copy.deepcopy(model)
        with torch.no_grad():
            for slot in group.with_role("out"):
                named_tensors(louder)[slot.tensor].mul_(2.0)
        after = score(louder, space, criterion, labelled_images())
        factor = 2.0**power
        _assert_close(
            [after[number]],
            [scores[number] * factor],
            space,
            f"{criterion.name} of group {group.name} with its filters doubled (factor {factor})",
        )


def _renumber(tensor: Tensor, slot: Slot, order: Tensor) -> None:
    index = torch.from_numpy(slot.index)
    moved = tensor.index_select(slot.dim, index[order].reshape(-1))
    tensor.index_copy_(slot.dim, index.reshape(-1), moved)


def _assert_close(got: Sequence[Tensor], wanted: Sequence[Tensor], space: Space, what: str) -> None:
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        gap = float((a.double() - b.double()).abs().max())
        limit = _TOLERANCE * float(b.abs().max())
        name = space.groups[number].name if len(got) == len(space.groups) else "it"
        assert gap <= limit, (
            f"{what}: scores of {name} differ by {gap:.3g} (allowed {limit:.3g}): {a.tolist()} "
            f"instead of {b.tolist()}."
        )


def _everything(model: nn.Module) -> dict[str, Any]:
    """All that a caller could notice on a network."""
    state = {
        name: tensor.detach().numpy().tobytes() for name, tensor in named_tensors(model).items()
    }
    rest: dict[str, Any] = {"generator": torch.random.get_rng_state().numpy().tobytes()}
    for name, module in model.named_modules():
        hooks = [len(vars(module)[key]) for key in sorted(vars(module)) if key.endswith("_hooks")]
        rest[f"{name}:module"] = (module.training, sorted(vars(module)), hooks)
    for name, parameter in model.named_parameters():
        grad = None if parameter.grad is None else parameter.grad.numpy().tobytes()
        rest[f"{name}:parameter"] = (id(parameter), parameter.requires_grad, grad)
    return {**state, **rest}


class _Broken(Exception):
    """What the breaking data raise."""


class _Breaking:
    """Data that yield one batch and then break off."""

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One sound batch."""
        yield labelled_images()[0]
        raise _Broken
