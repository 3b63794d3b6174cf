"""What is collected in one pass of the dense network over data: activations and gradients."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from randprune.errors import RandpruneError
from randprune.graph.sites import Site


class Observer:
    """What one criterion collects in a pass; override what it looks at.

    Attributes:
        images: how many images are enough; they are taken evenly from the data. None: all.
        tensors: names of the parameters whose gradients `gradients` gets.
        reads_sites: whether `read` is called.
    """

    images: int | None = None
    tensors: frozenset[str] = frozenset()
    reads_sites: bool = False

    def read(self, site: Site, values: Tensor, weight: Tensor) -> None:
        """At a site: what the layer reads (B, ...), channels along `site.axis`, and its weight."""

    def gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """After a batch: the gradients of its mean cross-entropy by name of the parameter."""


@dataclass(frozen=True, slots=True, eq=False)
class Observers:
    """The observers of one network and one set of data, by the key that they were requested under.

    Attributes:
        waiting: those that the next pass feeds.
        done: those that a pass has fed, or the error that ended it for them.
    """

    waiting: dict[Hashable, Observer] = field(default_factory=dict)
    done: dict[Hashable, Observer | RandpruneError] = field(default_factory=dict)
