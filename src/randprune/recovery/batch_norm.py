"""Batch-norm statistics of a cut network: measured on data, or computed from second moments.

The running mean and variance of a cut network are those of the dense one, although what its layers
put out has changed. Measuring them anew (He et al., "AutoML for Model Compression"; Li et al.,
"EagleEye", ECCV 2020) needs forward passes. Without data, mean and variance of a layer y = W x + b
follow from the moments of x: W mean + b and diag(W S W'), as if x came from the dense network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from randprune.errors import DataError
from randprune.graph.call import network_inputs
from randprune.lineage import named_tensors
from randprune.recovery.least_squares import check_moments, kept_of
from randprune.recovery.statistics import Moments
from randprune.space import Selection, Space


def recalibrate(small: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """`small` itself, with batch-norm statistics averaged over the batches.

    Every batch counts the same (cumulative average), in the order given; all else is in evaluation
    mode. Networks without batch norm come back as they are, and the data are not touched.

    Args:
        small: the cut network; its running statistics are edited in place.
        batches: what `randprune.graph.call` finds the network's inputs in.

    Raises:
        DataError: no batches, or statistics that are not finite.
    """
    norms = [m for m in small.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return small
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise DataError("No batches to measure batch-norm statistics on: the data is empty.")
    with _measuring(small, norms), torch.no_grad():
        for batch in itertools.chain([first], remaining):
            small(*network_inputs(small, batch))
    for norm in norms:
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None and not bool(torch.isfinite(statistic).all()):
                raise DataError(
                    "Batch-norm statistics of the cut network are not finite on the calibration "
                    "images: check the normalisation of the images, or use a recovery without 'bn'."
                )
    return small


def closed_form(
    small: nn.Module, space: Space, selection: Selection, moments: Moments
) -> nn.Module:
    """`small` itself, with the batch norms behind cut layers recomputed from moments.

    Layers that lose no inputs keep their statistics, as do those whose moments are between
    channels only. Exact (up to the sampling of rows) where the layer's inputs are those of the
    dense network.

    Args:
        small: the cut network, repaired or not; its running statistics are edited in place.
        space: the dense network's channel groups.
        selection: what `small` keeps.
        moments: of the dense network.

    Raises:
        InvalidInputError: the moments belong to another network.
    """
    check_moments(moments, space)
    tensors = named_tensors(small)
    kept = kept_of(space, selection, moments.layers.values(), moments.shapes)
    for name, layer in moments.layers.items():
        inputs = kept[name].inputs if name in kept else None
        site = moments.site(layer)
        if inputs is None or layer.norm is None or site.per_channel:
            continue
        weight = layer.upright(tensors[name].detach())
        matrix = weight.double().reshape(layer.groups, -1, len(inputs) * layer.taps)
        keep = moments.columns(layer, inputs)
        covariance = site.covariance[:, keep][:, :, keep].double()
        mean = torch.einsum("grc,gc->gr", matrix, site.mean[:, keep]).reshape(-1)
        variance = torch.einsum("grc,gcd,grd->gr", matrix, covariance, matrix).reshape(-1)
        if layer.bias:
            mean += tensors[layer.bias].detach()
        tensors[layer.norm.mean].detach().copy_(mean)
        tensors[layer.norm.variance].detach().copy_(variance.clamp_min(0.0))
    return small


@contextmanager
def _measuring(small: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Evaluation mode but for the given norms, which start a cumulative average."""
    flags = [(module, module.training) for module in small.modules()]
    counters = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    counts = [None if count is None else count.clone() for _, _, count in counters]
    small.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for (norm, momentum, tracked), count in zip(counters, counts, strict=True):
            norm.momentum = momentum
            if tracked is not None and count is not None:
                tracked.copy_(count)
        for module, flag in flags:
            module.training = flag
