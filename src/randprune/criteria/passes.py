"""One walk over the scoring data for everything that criteria want to know about it.

A criterion describes what it collects as an `Observer` and requests it. The pass runs when the
first result is asked for, and feeds all observers that were requested until then: one forward for
all that look at activations, one backward for all that look at gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.criteria.base import ScoringContext
from randprune.errors import DataError, RandpruneError
from randprune.graph.observers import Observer
from randprune.graph.sites import ChannelGraph, Site

__all__ = ["Observer", "check_labels", "check_outputs", "collected", "request", "thinned"]

# Values that a backward pass keeps, in bytes: larger batches go through in pieces.
KEPT_BYTES = 1 << 30


Found = TypeVar("Found", bound=Observer)


def request(context: ScoringContext, key: Hashable, make: Callable[[], Observer]) -> None:
    """Ask for an observer to be fed in the next pass; nothing where `key` was asked for before."""
    observers = context.shared.observers
    if key not in observers.waiting and key not in observers.done:
        observers.waiting[key] = make()


def collected(context: ScoringContext, key: Hashable, make: Callable[[], Found]) -> Found:
    """The observer requested under `key`, or one requested now, after its pass.

    Raises:
        DataError: no images, labels that the network has no output for, outputs or a loss that
            are not finite.
        UnsupportedModelError: the network's graph shows no sites (see `ChannelGraph`).
    """
    observers = context.shared.observers
    if key not in observers.done:
        request(context, key, make)
        # Taken off first: what a pass that failed has fed must not be fed again.
        waiting = dict(observers.waiting)
        observers.waiting.clear()
        failed = _run(context, list(waiting.values()))
        observers.done.update({k: failed.get(id(o), o) for k, o in waiting.items()})
    found = observers.done[key]
    if isinstance(found, RandpruneError):
        raise found
    return found  # type: ignore[return-value]


def thinned(context: ScoringContext, images: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """About `images` images with their labels, in batches, taken evenly from the data."""
    for batch, labels, first in _batches(context):
        rows = _rows(first, len(batch), images, context.images)
        if len(rows):
            yield batch[rows], labels[rows]


def _run(context: ScoringContext, observers: list[Observer]) -> dict[int, RandpruneError]:
    """Feed the observers; the errors of those that gave up, by the observer's id."""
    failed: dict[int, RandpruneError] = {}
    names = frozenset().union(*(observer.tensors for observer in observers))
    count = 0
    for images, labels, first in _batches(context):
        count += len(images)
        rows = [_rows(first, len(images), o.images, context.images) for o in observers]
        graph = context.graph(len(images))
        if not names and graph.fixed_batch is None:
            wanted = torch.unique(torch.cat(rows))
            images, labels = images[wanted], labels[wanted]
            rows = [torch.searchsorted(wanted, r) for r in rows]
        if not len(images):
            continue
        where = f"images {first} to {first + len(images) - 1}"
        feed = _feeder(observers, rows, failed, where)
        if names:
            found = _backward(graph, images, labels, names, feed, where)
            for observer in observers:
                if observer.tensors:
                    observer.gradients({name: found[name] for name in observer.tensors})
        else:
            with torch.no_grad():
                logits = graph.run(images, visit=partial(feed, slice(0, len(images))))
            check_outputs(logits, where)
    if not count:
        raise DataError(
            "The scoring data holds no images. Give at least one batch of (images, labels), better "
            "a few hundred images."
        )
    return failed


def _batches(context: ScoringContext) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(images, labels, number of the first image)."""
    assert context.batches is not None
    first = 0
    for images, labels in context.batches():
        yield images, labels, first
        first += len(images)


def _rows(first: int, count: int, wanted: int | None, total: int | None) -> Tensor:
    """Places in a batch of the images that are wanted, evenly over the data where known."""
    number = torch.arange(first, first + count)
    if wanted is None or (total is not None and wanted >= total):
        return torch.arange(count)
    if total is None:
        return torch.nonzero(number < wanted)[:, 0]
    return torch.nonzero((number + 1) * wanted // total > number * wanted // total)[:, 0]


Feed = Callable[[slice, Site, Tensor, Tensor], None]


def _feeder(
    observers: list[Observer], rows: list[Tensor], failed: dict[int, RandpruneError], where: str
) -> Feed:
    """A function that hands a piece of the batch to those who want images of it."""
    readers = [(o, chosen) for o, chosen in zip(observers, rows, strict=True) if o.reads_sites]

    def feed(piece: slice, site: Site, values: Tensor, weight: Tensor) -> None:
        values, weight = values.detach(), weight.detach()
        if readers and not bool(torch.isfinite(values).all()):
            raise DataError(
                f"What layer {site.layer} reads is NaN or infinite on {where} of the scoring data. "
                "Check the images and their normalisation."
            )
        for observer, chosen in readers:
            inside = chosen[(chosen >= piece.start) & (chosen < piece.stop)] - piece.start
            if not len(inside) or id(observer) in failed:
                continue
            some = values
            if len(inside) < piece.stop - piece.start:
                # An image may take several places of the axis (windows of attention).
                split = torch.unflatten(values, site.batch_axis, (piece.stop - piece.start, -1))
                some = split.index_select(site.batch_axis, inside.to(values.device))
                some = some.flatten(site.batch_axis, site.batch_axis + 1)
            try:
                observer.read(site, some, weight)
            except RandpruneError as error:
                failed[id(observer)] = error

    return feed


def _backward(
    graph: ChannelGraph,
    images: Tensor,
    labels: Tensor,
    names: frozenset[str],
    feed: Feed,
    where: str,
) -> dict[str, Tensor]:
    """Gradients of the mean loss of the batch, collected over pieces that fit into memory."""
    leaves = {name: graph.tensors[name].clone().requires_grad_() for name in sorted(names)}
    fits = max(1, KEPT_BYTES // max(graph.bytes_per_image, 1))
    size = len(images) if graph.fixed_batch else min(len(images), fits)
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    for start in range(0, len(images), size):
        piece = slice(start, min(start + size, len(images)))
        with torch.enable_grad():
            logits = graph.run(
                images[piece],
                tensors=leaves,
                visit=partial(feed, piece),
            )
            check_outputs(logits, where)
            check_labels(logits, labels[piece], where)
            loss = F.cross_entropy(logits, labels[piece], reduction="sum") / len(labels)
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                total[name] += gradient
    for name, gradient in total.items():
        if not bool(torch.isfinite(gradient).all()):
            raise DataError(
                f"The gradient of the loss by {name} is not finite on {where}. Check the "
                "normalisation of the images and the weights."
            )
    return total


def check_outputs(logits: Tensor, where: str) -> None:
    """Raise `DataError` unless the outputs are finite logits (B, classes, ...)."""
    if logits.ndim < 2:
        raise DataError(
            f"The network's first output has shape {tuple(logits.shape)}. Criteria that look at "
            "data need one row of logits per image, (B, classes)."
        )
    if not bool(torch.isfinite(logits).all()):
        raise DataError(
            f"The network's outputs are NaN or infinite on {where} of the scoring data, so that "
            "there is no loss. Check the normalisation of the images and the weights."
        )


def check_labels(logits: Tensor, labels: Tensor, where: str) -> None:
    """Raise `DataError` unless there is one label within 0..classes-1 for every row of logits."""
    classes = logits.shape[1]
    if labels.shape != logits[:, 0].shape or labels.is_floating_point():
        raise DataError(
            f"The loss needs int64 labels of shape {tuple(logits[:, 0].shape)}. Got {labels.dtype} "
            f"of shape {tuple(labels.shape)} with {where} instead."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"Labels must lie within 0..{classes - 1}, the outputs of the network. Got "
            f"{low}..{high} with {where}. Give the labels as class numbers, or a network with more "
            "outputs."
        )
