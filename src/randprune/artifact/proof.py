"""Whether a stranger's file is the cut of a known network, and what else was done to it.

Three things are checked. The file's steps, repeated on the dense network's own weights, are exact
cuts: every tensor is a selection of the dense one's, and the oracle of `randprune.verify` proves
that the cut network computes what the masked dense one does. The file's network has the same
tensors in the same shapes. And where its values differ from the exact cut's, they lie where a
repair without training writes: weights and biases of convolutions and linear layers that feel the
cut, and the statistics of batch norms. Scales and shifts of norms, and layers before the first cut,
are changed by training only.

Known shortcomings: weights that a repair may write can hold anything; how far they are from the
dense ones is reported, not judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from randprune.artifact.file import unpack
from randprune.artifact.header import ArtifactHeader
from randprune.artifact.rebuild import (
    ModelSource,
    add_parameters,
    dense_network,
    example_inputs,
    rebuild,
)
from randprune.errors import ArtifactError, RandpruneError, VerificationError
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trace import trace
from randprune.lineage import CutStep, named_tensors
from randprune.surgery import cut, verify
from randprune.zoo.weights import load_weights

_STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})

Verdict = Literal["exact", "repaired", "changed"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor whose values are not those of the exact cut.

    Attributes:
        tensor: its name.
        relative: ||file - cut|| / ||cut||, infinite where the cut's are all zero.
        largest: max |file - cut|.
        repair: whether a repair without training writes there.
    """

    tensor: str
    relative: float
    largest: float
    repair: bool


@dataclass(frozen=True, slots=True)
class Check:
    """What `check` found.

    Attributes:
        verdict: "exact", every value is the dense network's; "repaired", other values only where
            a repair writes; "changed", also elsewhere, as training does.
        channels: how many channels of all groups the cuts left, and of how many.
        error: the oracle's, max |difference| / max |dense output|, over all cuts.
        same_space: whether tracing the dense network here gives the groups of the file's first cut.
            Otherwise it was traced with frozen layers or by another version; the proof holds.
        tensors: how many the network has.
        dtypes: tensors that are stored in another dtype than the dense network's.
        differences: the tensors that differ, the largest relative difference first.
    """

    verdict: Verdict
    channels: tuple[int, int]
    error: float
    same_space: bool
    tensors: int
    dtypes: tuple[str, ...]
    differences: tuple[Difference, ...]


def check(
    path: str | os.PathLike[str],
    dense: nn.Module | str | os.PathLike[str],
    model: ModelSource | None = None,
) -> Check:
    """Proof that the file's network is an exact cut of the dense one, and what differs in value.

    Args:
        path: the file, perhaps a stranger's.
        dense: the dense network with its weights (left untouched), or a file with its weights.
        model: the dense architecture as in `load`, where `dense` is a file; default: by the name in
            the artefact.

    Raises:
        ArtifactError: a damaged or forged file, one of another architecture, or one of a widened
            network, whose new channels no dense network has.
        WeightsError: the dense weights do not fit.
        VerificationError: the file's steps are no exact cuts.
    """
    file = Path(path)
    header, tensors = unpack(file)
    if not all(isinstance(step, CutStep) for step in header.steps):
        raise ArtifactError(
            f"The network in {file} was widened before it was cut: its new channels are not the "
            "dense network's, and there is nothing to compare them with."
        )
    network = dense_network(header, dense if isinstance(dense, nn.Module) else model, file)
    if not isinstance(dense, nn.Module):
        load_weights(network, Path(dense))
    in_mode(network)
    found = rebuild(header, tensors, network, file)
    exact, error = _exact_cut(header, network, file)
    pairs = _matched(named_tensors(exact), named_tensors(found), file)
    written = _repairable(header, exact)
    dtypes, differences = [], []
    for name, (cut_one, stored) in pairs.items():
        if cut_one.dtype != stored.dtype:
            dtypes.append(name)
        if not torch.equal(cut_one.to(stored.dtype), stored):
            differences.append(_difference(name, cut_one, stored, name in written))
    foreign = any(not difference.repair for difference in differences)
    return Check(
        verdict="changed" if foreign else "repaired" if differences else "exact",
        channels=_channels(header),
        error=error,
        same_space=_same_space(header, network),
        tensors=len(pairs),
        dtypes=tuple(dtypes),
        differences=tuple(sorted(differences, key=lambda d: (d.repair, -d.relative, d.tensor))),
    )


def _exact_cut(header: ArtifactHeader, network: nn.Module, path: Path) -> tuple[nn.Module, float]:
    """The dense network after the file's cuts, its values its own, and the oracle's error."""
    exact, worst = network, 0.0
    try:
        for step in header.steps:
            assert isinstance(step, CutStep)
            exact = add_parameters(exact, step.gained)
            small = cut(exact, step.space, step.selection, as_graph=step.as_graph)
            if len(step.space):
                inputs = example_inputs(step.space)
                worst = max(worst, verify(exact, small, step.space, step.selection, inputs))
            exact = in_mode(small)
        return add_parameters(exact, header.gained), worst
    except VerificationError as error:
        raise VerificationError(
            f"The network in {path} is not an exact cut of the dense one. {error}"
        ) from error
    except Exception as error:  # a forged step can break a network anywhere
        kind = "" if isinstance(error, RandpruneError) else f"{type(error).__name__}: "
        raise ArtifactError(f"The cuts in {path} cannot be repeated: {kind}{error}") from error


def _matched(
    exact: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path
) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors of both networks by name; the same names and shapes, or an error."""
    if odd := sorted(exact.keys() ^ found.keys()):
        raise ArtifactError(f"The network in {path} and the exact cut disagree about {odd[0]!r}.")
    for name, tensor in exact.items():
        if tensor.shape != found[name].shape:
            raise ArtifactError(
                f"{name} has shape {tuple(found[name].shape)} in {path}, the exact cut has "
                f"{tuple(tensor.shape)}."
            )
    return {name: (t.detach().cpu(), found[name].detach()) for name, t in exact.items()}


def _difference(name: str, exact: Tensor, stored: Tensor, repair: bool) -> Difference:
    a, b = stored.double(), exact.double()
    gap, scale = float((a - b).norm()), float(b.norm())
    relative = gap / scale if scale > 0 else float("inf")
    return Difference(name, relative, float((a - b).abs().max()), repair)


def _channels(header: ArtifactHeader) -> tuple[int, int]:
    """Channels after all cuts, and before the first: of the groups that the cuts know."""
    if not header.steps:
        return 0, 0
    last = header.steps[-1]
    assert isinstance(last, CutStep)
    return int(last.selection.widths.sum()), int(header.steps[0].space.widths.sum())


def _same_space(header: ArtifactHeader, network: nn.Module) -> bool:
    if not header.steps:
        return True
    space = header.steps[0].space
    bare = add_parameters(network, header.steps[0].gained)
    try:
        traced = trace(bare, example_inputs(space), as_graph=space.as_graph, allow=space.allow)
    except RandpruneError:
        return False
    return traced.fingerprint == space.fingerprint


def _repairable(header: ArtifactHeader, exact: nn.Module) -> frozenset[str]:
    """The tensors that a repair may write, found by disturbing the layers that lost inputs.

    Weights with fewer inputs than before are changed at random; the layers whose own inputs then
    change feel the cut too.
    """
    lost = {
        slot.tensor
        for step in header.steps
        if isinstance(step, CutStep)
        for group, kept in zip(step.space.groups, step.selection, strict=True)
        if len(kept) < group.width
        for slot in group.with_role("in")
    }
    if not lost:
        return frozenset()
    plain, disturbed = private_copy(exact), private_copy(exact)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in named_tensors(disturbed).items():
            if name in lost:
                tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor))
    inputs = _random_inputs(header)
    before, after = _inputs_of(plain, inputs), _inputs_of(disturbed, inputs)
    written = set(lost)
    for name, module in exact.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        own = [*module._parameters, *module._buffers]
        feels = f"{prefix}weight" in lost or not _alike(before.get(name), after.get(name))
        if isinstance(module, _ConvNd | nn.Linear) and feels:
            written |= {f"{prefix}{key}" for key in own}
        elif isinstance(module, _NormBase):  # measured anew wherever they are
            written |= {f"{prefix}{key}" for key in own if key in _STATISTICS}
    return frozenset(written)


def _random_inputs(header: ArtifactHeader) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(x.shape, generator=generator).to(x.dtype) if x.is_floating_point() else x
        for x in example_inputs(header.steps[0].space)
    )


def _inputs_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The first tensor that each layer reads in one pass, by the layer's name."""
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():

        def note(_: nn.Module, arguments: tuple[object, ...], name: str = name) -> None:
            first = next((x for x in arguments if isinstance(x, Tensor)), None)
            if first is not None and name not in seen:
                seen[name] = first.detach().clone()

        module.register_forward_pre_hook(note)
    with torch.no_grad():
        in_mode(network)(*inputs)
    return seen


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
