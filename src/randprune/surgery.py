"""Choose channels, cut them out of a copy of the network, and prove that the cut is right."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from randprune.cost import FloatArray
from randprune.errors import InvalidInputError, VerificationError, quoted
from randprune.graph.entrance import check_space, plain_module
from randprune.graph.exits import counted
from randprune.graph.oracle import (
    all_zero,
    mask_consumers,
    random_like,
    randomise_scales,
    relative_error,
)
from randprune.graph.program import Inputs, as_inputs, evaluation_mode, private_copy
from randprune.graph.slicing import kept_positions, narrow_tensor, remove_channels
from randprune.graph.within import parts_of
from randprune.lineage import CutStep, remember_step
from randprune.space import Selection, Space


def select(
    space: Space, scores: Sequence[torch.Tensor | npt.ArrayLike], widths: npt.ArrayLike
) -> Selection:
    """The `widths[g]` highest-scoring channels of each group, sorted by position.

    Args:
        space: the traced network.
        scores: one (width,) array a group, higher = keep; ties go to the lower channel number.
        widths: how many channels each group keeps, integers (G,).

    Raises:
        InvalidInputError: wrong number, length or value of scores or widths.

    Examples:
        >>> from torch import nn
        >>> from randprune import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> example = torch.ones(1, 3, 8, 8)
        >>> space = trace(net, example)
        >>> select(space, [[0.1, 0.9, 0.2, 0.8]], [2]).kept
        (array([1, 3]),)
    """
    if not isinstance(space, Space):
        raise InvalidInputError(
            "The 'space' parameter of select must be a Space, as `trace` returns it. "
            f"Got {type(space).__name__} instead."
        )
    widths = space.check_widths(widths)
    count = len(scores) if isinstance(scores, Sized) and not isinstance(scores, str | dict) else -1
    if count != len(space.groups):
        raise InvalidInputError(
            f"The 'scores' parameter of select must have one entry for each of the "
            f"{len(space.groups)} groups. Got {type(scores).__name__ if count < 0 else count} "
            "instead."
        )
    kept = []
    for group, score, width in zip(space.groups, scores, widths.tolist(), strict=True):
        values = _numbers(score, group.name)
        if values.shape != (group.width,) or not np.isfinite(values).all():
            raise InvalidInputError(
                f"The scores of group {group.name!r} must be {group.width} finite numbers. "
                f"Got shape {values.shape}, {int((~np.isfinite(values)).sum())} not finite."
            )
        order = np.argsort(-values, kind="stable")
        kept.append(np.sort(order[:width]).astype(np.int64))
    return Selection(tuple(kept), space.fingerprint)


def _numbers(score: Any, group: str) -> FloatArray:
    """One group's scores as float64."""
    try:
        values = torch.as_tensor(score).detach()
        if values.is_complex():
            raise TypeError("complex numbers have no order")
        return values.double().cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"The scores of group {group!r} must be numbers, a (width,) array. "
            f"Got {type(score).__name__}: {str(error).splitlines()[0]}."
        ) from error


def cut(
    model: nn.Module, space: Space, selection: Selection, *, as_graph: bool | None = None
) -> nn.Module:
    """A new, smaller network that keeps the selected channels; the caller's stays untouched.

    It remembers how it was cut (`randprune.lineage`), so that `save` needs nothing else.

    Args:
        model: the network that was traced.
        space: its space.
        selection: what each group keeps.
        as_graph: emit the network from its exported graph with recomputed constants, instead of
            cutting the module. Default: as the space was traced.

    Raises:
        InvalidInputError: the selection or the network does not belong to the space.

    Examples:
        >>> from torch import nn
        >>> from randprune import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> example = torch.ones(1, 3, 8, 8)
        >>> space = trace(net, example)
        >>> small = cut(net, space, select(space, [[0.1, 0.9, 0.2, 0.8]], [2]))
        >>> small[0].weight.shape, small[2].weight.shape
        (torch.Size([2, 3, 3, 3]), torch.Size([2, 2, 3, 3]))
        >>> net[0].weight.shape
        torch.Size([4, 3, 3, 3])
    """
    model = plain_module(model, "cut")
    check_space(model, space, "cut")
    space.check_selection(selection)
    step = CutStep(space, selection, space.as_graph if as_graph is None else as_graph)
    if step.as_graph:
        from randprune.graph.emit import emit  # torch.fx emission is needed by few networks

        return remember_step(model, emit(model, space, selection), step)
    return remember_step(model, remove_channels(private_copy(model), space, selection), step)


def verify(
    model: nn.Module,
    small: nn.Module,
    space: Space,
    selection: Selection,
    example_inputs: Inputs,
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> float:
    """Check that `small` is the network that `model` becomes without the channels cut.

    Two proofs: every tensor of `small` equals the selected part of the dense one, bit for bit; and
    with the consumers' weights of cut channels zeroed in a copy of the dense network, both give
    the same outputs on random inputs with randomised batch-norm statistics and scales.

    Returns:
        `max |difference| / max |dense output|`.

    Raises:
        VerificationError: a tensor or an output differs, or all outputs are zero.
        InvalidInputError: network, space and selection do not belong together.

    Examples:
        >>> from torch import nn
        >>> from randprune import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> example = torch.ones(1, 3, 8, 8)
        >>> space = trace(net, example)
        >>> selection = select(space, [[0.1, 0.9, 0.2, 0.8]], [2])
        >>> small = cut(net, space, selection)
        >>> verify(net, small, space, selection, example) < 1e-4
        True
    """
    model, small = plain_module(model, "verify"), plain_module(small, "verify", "small")
    check_space(model, space, "verify")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise InvalidInputError(
            "The 'tolerance' parameter of verify must be a number of at least 0. "
            f"Got {quoted(tolerance)} instead."
        )
    space.check_selection(selection)
    inputs = as_inputs(example_inputs)
    if space.as_graph or isinstance(small, torch.fx.GraphModule):
        from randprune.graph.emit import emit

        model = emit(model, space, space.dense)
    _check_tensors(model, small, space, selection)
    if space.within:
        _check_whole(small, inputs)
        parts = parts_of(model, inputs, space.within)
        model, small, inputs = parts.network, parts.of(small), parts.inputs
        space = replace(space, outputs=parts.outputs)
    # A second draw: by chance the first may leave a narrow layer silent.
    error = max(_error(model, small, space, selection, inputs, draw) for draw in (seed, seed + 1))
    if not error <= tolerance:
        raise VerificationError(
            f"The cut network differs from the masked dense one: relative error {error:.2e} "
            f"(tolerance {tolerance:.0e}) at widths {selection.widths.tolist()}."
        )
    return error


def _check_whole(small: nn.Module, inputs: tuple[object, ...]) -> None:
    """A network of which only parts were cut still runs as a whole."""
    whole = private_copy(small)
    try:
        with torch.no_grad(), evaluation_mode(whole):
            whole(*inputs)
    except Exception as error:  # whatever a forward raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VerificationError(
            f"The cut network does not run as a whole: {reason}. The network reads the number of "
            "a part's channels outside of that part; trace other parts, or freeze these channels."
        ) from error


def _error(
    model: nn.Module,
    small: nn.Module,
    space: Space,
    selection: Selection,
    inputs: tuple[object, ...],
    seed: int,
) -> float:
    """Relative difference of the outputs for one draw of inputs and per-channel numbers."""
    dense, reduced = private_copy(model), private_copy(small)
    randomise_scales(dense, reduced, space, selection, seed)
    mask_consumers(dense, space, selection)
    both = _outputs(dense, reduced, random_like(inputs, seed))
    expected, got = (counted(outputs, space.outputs) for outputs in both)
    if all_zero(expected):
        raise VerificationError(
            "All outputs of the masked dense network are zero, which proves nothing. Verify on "
            "other inputs, or with weights that are not all zero."
        )
    return relative_error(expected, got)


def _check_tensors(model: nn.Module, small: nn.Module, space: Space, selection: Selection) -> None:
    removed = kept_positions(space, selection)
    theirs = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in theirs:
            raise VerificationError(f"The cut network has no tensor {name!r}.")
        wanted = narrow_tensor(tensor.detach(), removed[name]) if name in removed else tensor
        got = theirs[name]
        if wanted.shape != got.shape:
            raise VerificationError(
                f"{name} has shape {tuple(got.shape)}, the selection needs {tuple(wanted.shape)}."
            )
        if got.is_meta:
            raise VerificationError(f"{name} of the cut network has no values (meta device).")
        if not torch.equal(wanted.detach(), got.detach().to(wanted.device)):
            raise VerificationError(
                f"{name} does not hold the selected channels of the dense network: a wrong channel "
                "was cut, or the weights were changed after the cut (verify before recovery)."
            )


def _outputs(
    dense: nn.Module, reduced: nn.Module, inputs: tuple[object, ...]
) -> tuple[object, object]:
    """Both networks' outputs, in float64 where their forward allows it."""

    def run(dtype: torch.dtype) -> tuple[object, object]:
        cast = tree_map_only(
            torch.Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs
        )
        with torch.no_grad(), evaluation_mode(dense), evaluation_mode(reduced):
            return dense.to(dtype)(*cast), reduced.to(dtype)(*cast)

    try:
        return run(torch.float64)
    except (RuntimeError, TypeError):
        pass  # a forward that holds float32 tensors of its own
    try:
        return run(torch.float32)
    except (RuntimeError, TypeError) as error:
        raise VerificationError(
            f"The cut network does not run: {str(error).splitlines()[0]}. Its space misses a place "
            "where the channels lie; trace the network again with this version."
        ) from error
