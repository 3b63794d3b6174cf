"""What a recovery is: a weight update of a cut network without labels.

It edits the network that it is given in place (the pruned copy, never the caller's dense one) and
returns it. What several recoveries of one dense network need, such as moments, is made once and
kept in the context's `shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import nn

from randprune.errors import DataError
from randprune.graph.call import network_inputs
from randprune.graph.trees import count_of, joined, part_of
from randprune.recovery.batch_norm import closed_form, recalibrate
from randprune.recovery.dense import DenseStatistics
from randprune.recovery.distill import HELD, LOOKS, Schedule, distill
from randprune.recovery.inverses import RIDGE
from randprune.recovery.least_squares import repair
from randprune.recovery.sequential import Options, SequentialRepair, images_within
from randprune.recovery.statistics import Moments, reference_replay
from randprune.registry import Registry
from randprune.space import Selection, Space

Need = Literal["moments", "data"]

DISTILL_IMAGES = 2000
SEQUENTIAL_IMAGES = 1000
SEQUENTIAL_MIB = 4096


@dataclass(frozen=True, slots=True)
class RecoveryContext:
    """What recoveries may look at.

    Attributes:
        shared: the dense network, and what several recoveries need of it, made once.
        selection: what the cut network keeps.
        batches: a callable that starts a pass over the calibration data, yielding batches that
            `randprune.graph.call` finds the network's inputs in; None where no data was given.
    """

    shared: DenseStatistics
    selection: Selection
    batches: Callable[[], Iterable[Any]] | None

    @property
    def model(self) -> nn.Module:
        """The dense network; left untouched."""
        return self.shared.model

    @property
    def space(self) -> Space:
        """Its channel groups."""
        return self.shared.space

    def data(self) -> Iterable[Any]:
        """One pass over the calibration data."""
        if self.batches is None:
            raise DataError("This recovery needs images: give `data`, e.g. a calibration split.")
        return self.batches()

    def moments(self) -> Moments:
        """Second moments of the dense network, collected once."""
        known = self.shared.moments
        return self.shared.collect(self.data()) if known is None else known

    def inputs(self, count: int) -> tuple[Any, ...]:
        """The network's inputs of the first `count` samples, or of all where there are fewer."""
        parts: list[tuple[Any, ...]] = []
        for batch in self.data():
            parts.append(network_inputs(self.model, batch))
            if sum(map(count_of, parts)) >= count:
                break
        if not parts:
            raise DataError("No calibration images: the data is empty.")
        first: tuple[Any, ...] = part_of(joined(parts), slice(count))
        return first


@dataclass(frozen=True, slots=True)
class Passes:
    """Images that a repair sends through a network: forward, and backward."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)


@runtime_checkable
class Recovery(Protocol):
    """A weight update without labels. Constructors only store arguments.

    A recovery that looks at data may also have `passes(calibration)`, the `Passes` of one network
    where there are so many calibration images; by default each is sent forward once.
    """

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What it looks at; anything requires data unless `shared` holds it already."""
        ...

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """`small` itself, edited in place."""
        ...


recoveries: Registry[Recovery] = Registry("recovery", "randprune.recoveries")


@recoveries.register("least_squares")
@dataclass(frozen=True)
class LeastSquares:
    """Least-squares weights from moments; no forward pass per network."""

    ridge: float = RIDGE
    name: ClassVar[str] = "least_squares"
    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """See `randprune.recovery.least_squares.repair`."""
        context.moments()
        shared = context.shared
        return repair(
            small, context.model, context.space, context.selection, shared.inverses(self.ridge),
            tensors=shared.reference,
        )  # fmt: skip


@recoveries.register("bn")
@dataclass(frozen=True)
class MeasuredNorm:
    """Batch-norm statistics measured on the calibration data."""

    name: ClassVar[str] = "bn"
    needs: ClassVar[frozenset[Need]] = frozenset({"data"})

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """See `randprune.recovery.batch_norm.recalibrate`."""
        return recalibrate(small, context.data())


@recoveries.register("bn_closed_form")
@dataclass(frozen=True)
class ClosedFormNorm:
    """Batch-norm statistics computed from moments; meant for networks not repaired otherwise."""

    name: ClassVar[str] = "bn_closed_form"
    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """See `randprune.recovery.batch_norm.closed_form`."""
        return closed_form(small, context.space, context.selection, context.moments())


@recoveries.register("sequential")
@dataclass(frozen=True)
class Sequential:
    """Layer after layer on data.

    Args:
        images: most calibration images; fewer where they would not fit into `limit_mib`.
        limit_mib: memory for the values of both networks.
        options: of the fit.
    """

    images: int = SEQUENTIAL_IMAGES
    limit_mib: int = SEQUENTIAL_MIB
    options: Options = field(default_factory=Options)
    name: ClassVar[str] = "sequential"
    needs: ClassVar[frozenset[Need]] = frozenset({"data"})

    def passes(self, calibration: int) -> Passes:
        """The images that it walks over."""
        return Passes(min(self.images, calibration))

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """See `randprune.recovery.sequential.SequentialRepair`."""
        shared = context.shared
        if self not in shared.sequential:
            replay = reference_replay(context.model, context.space, context.inputs(2))
            inputs = context.inputs(min(self.images, images_within(replay, self.limit_mib)))
            free = replay if replay.fixed_batch in (None, count_of(inputs)) else None
            shared.sequential[self] = SequentialRepair(
                context.model, context.space, inputs, self.options, free
            )
        return shared.sequential[self](small, context.selection)


@recoveries.register("sequential_draft")
@dataclass(frozen=True)
class SequentialDraft(Sequential):
    """Layer after layer on few windows of few images: quick enough for every candidate.

    What it leaves ranks candidates as the full repair does, which least squares from dense moments
    does not.
    """

    images: int = 250
    options: Options = field(default_factory=lambda: Options(32, ridge=0.1, rounds=0))
    name: ClassVar[str] = "sequential_draft"


@recoveries.register("distill")
@dataclass(frozen=True)
class Distill:
    """A few hundred steps towards the dense network's outputs: a short training, without labels.

    Args:
        images: most calibration images.
        schedule: of the training.
    """

    images: int = DISTILL_IMAGES
    schedule: Schedule = field(default_factory=Schedule)
    name: ClassVar[str] = "distill"
    needs: ClassVar[frozenset[Need]] = frozenset({"data"})

    def passes(self, calibration: int) -> Passes:
        """The dense outputs, the looks at held-out images, and the steps."""
        images = min(self.images, calibration)
        trained = self.schedule.steps * min(self.schedule.batch, images)
        return Passes(images + round((LOOKS + 1) * HELD * images) + trained, trained)

    def apply(self, small: nn.Module, context: RecoveryContext) -> nn.Module:
        """See `randprune.recovery.distill.distill`."""
        inputs = context.inputs(self.images)
        return distill(small, context.model, inputs, self.schedule)
