"""What is known of one dense network: each thing is made when first asked for, and kept.

Criteria and recoveries of one network need the same things: its graph, what its layers read on some
images, the moments of that. One `DenseStatistics` holds them for as many calls as there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.graph.observers import Observers
from randprune.graph.program import in_mode, private_copy
from randprune.graph.sites import ChannelGraph, dense_tensors
from randprune.recovery.collect import collect_moments
from randprune.recovery.elimination import Elimination, eliminate
from randprune.recovery.inverses import RIDGE, Inverses
from randprune.recovery.sequential import SequentialRepair
from randprune.recovery.statistics import Moments, reference_tensors
from randprune.space import Space


class DenseStatistics:
    """Statistics of one dense network on one set of data, for `score`, `score_all` and `recover`.

    Args:
        model: the dense network that was traced; left untouched. Its weights must stay as they are
            as long as this is used.
        space: its channel groups.
        moments: where they are known already.

    Attributes:
        moments: second moments of what its layers read; None until somebody collects or sets them.
        observers: what criteria collect in passes over the data (`randprune.criteria.passes`).
        sequential: sequential repairs by what was asked for; each holds its images.
    """

    def __init__(self, model: nn.Module, space: Space, moments: Moments | None = None) -> None:
        self.model = model
        self.space = space
        self.moments = moments
        self.observers = Observers()
        self.sequential: dict[Hashable, SequentialRepair] = {}
        self._state = _versions(model)
        self._graphs: dict[int | None, ChannelGraph | None] = {}
        self._inverses: dict[float, Inverses] = {}
        self._eliminations: dict[float, list[Elimination]] = {}

    def check(self, model: nn.Module, space: Space) -> None:
        """Raise `InvalidInputError` unless this is about that network, as it is now."""
        if self.space.fingerprint != space.fingerprint or self._state != _versions(model):
            raise InvalidInputError(
                "The 'shared' parameter holds statistics of another network, or of this one "
                "before its weights were changed. Give a new DenseStatistics(model, space)."
            )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @cached_property
    def copy(self) -> nn.Module:
        """A copy of the network in evaluation mode, which nobody edits."""
        return in_mode(private_copy(self.model))

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer by name, detached, in the form in which it is cut."""
        return dense_tensors(self.copy, self.space)

    @cached_property
    def reference(self) -> Mapping[str, Tensor]:
        """The same in the memory order that walks over the graph take (`reference_tensors`)."""
        return reference_tensors(self.model, self.space)

    def graph(self, batch: int | None = None) -> ChannelGraph:
        """The network's graph with the sites where layers read channels, exported once.

        Args:
            batch: the size of the batches that will run through it, by default the traced one; it
                matters only to networks whose forward fixes a batch size.

        Raises:
            UnsupportedModelError: see `ChannelGraph`.
            InvalidInputError: the network does not run on batches of this size.
        """
        if None not in self._graphs:
            try:
                self._graphs[None] = ChannelGraph(self.copy, self.space)
            except InvalidInputError:  # its forward does not take a batch of two
                self._graphs[None] = None
        free = self._graphs[None]
        if free is not None and free.fixed_batch is None:
            return free
        size = batch or self.space.inputs[0][0][0]
        fixed = self._graphs.get(size)
        if fixed is None:
            fixed = self._graphs[size] = ChannelGraph(self.copy, self.space, size)
        return fixed

    def collect(self, batches: Iterable[Any]) -> Moments:
        """Collect second moments from one pass over the batches, and keep them."""
        self.moments = collect_moments(self.model, self.space, batches)
        return self.moments

    def inverses(self, ridge: float = RIDGE) -> Inverses:
        """Inverses of the damped covariances.

        Raises:
            InvalidInputError: there are no moments yet.
        """
        if self.moments is None:
            raise InvalidInputError(
                "Repairs and eliminations are computed from second moments, and none were "
                "collected yet. Call collect(batches) first, or set `moments`."
            )
        known = self._inverses.get(ridge)
        if known is None or known.moments is not self.moments:
            known = self._inverses[ridge] = Inverses(self.moments, ridge)
        return known

    def eliminations(self, ridge: float = RIDGE) -> list[Elimination]:
        """The greedy elimination of every group.

        Raises:
            InvalidInputError: there are no moments yet.
        """
        if ridge not in self._eliminations:
            inverses = self.inverses(ridge)
            self._eliminations[ridge] = eliminate(self.space, inverses, self.reference)
        return self._eliminations[ridge]


def statistics_of(
    model: nn.Module, space: Space, shared: DenseStatistics | None
) -> DenseStatistics:
    """`shared` where it is given and about this network, else new ones.

    Raises:
        InvalidInputError: `shared` is no `DenseStatistics`, or about another network.
    """
    if shared is None:
        return DenseStatistics(model, space)
    if not isinstance(shared, DenseStatistics):
        raise InvalidInputError(
            "The 'shared' parameter must be a DenseStatistics(model, space). "
            f"Got {type(shared).__name__} instead."
        )
    shared.check(model, space)
    return shared


def _versions(model: nn.Module) -> list[tuple[str, int, int]]:
    """What tells a network's weights from others and from what they were before.

    In-place changes count up a tensor's version. Ids are those of tensors that live, since the
    statistics hold the network.
    """
    state = [*model.named_parameters(), *model.named_buffers()]
    return [(n, id(t), 0 if t.is_inference() else t._version) for n, t in state]
