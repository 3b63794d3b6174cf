"""The setting without a trained network: widths are searched with shared weights, then trained.

The space is that of the widened network; the dense network is one of its configurations. Every
network keeps the first channels of each group, and is trained from random weights that its training
seed draws. What shared weights say of a configuration is its score on the search images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from randprune.bench.keys import ProposalKey
from randprune.bench.meter import Meter, spent_of
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DENSE, DenseRecord
from randprune.bench.results import SHARED, Spent
from randprune.bench.settings.base import BenchJob, Finished, dense_network, seeds_of
from randprune.bench.units import Prepared
from randprune.errors import InvalidInputError
from randprune.graph.program import in_mode
from randprune.jobs.candidates import Slices
from randprune.jobs.opening import images_of_recipe, open_widened
from randprune.jobs.session import Session
from randprune.jobs.shared_weights import kept_slices, shared_cost, train_shared
from randprune.space import Selection
from randprune.supernet import first_channels, initialise
from randprune.widening import widening_of
from randprune.zoo.weights import weights_hash


class ScratchJob(BenchJob):
    """The widened network, and its trained shared weights."""

    tests_untrained: ClassVar[bool] = False
    trainings: ClassVar[str] = "trainings from random weights"

    def open(self, recipe: BenchRecipe, work: Path) -> Session:
        """Of the widened network with random weights, drawn as everywhere from scratch."""
        seeds = seeds_of(recipe)
        original = initialise(dense_network(recipe, seeds), seeds.seed("initial weights"))
        session = open_widened(
            recipe,
            recipe.widened_by,
            original,
            images_of_recipe(recipe).sealed(),
            wide_seed=seeds.seed("wide"),
            rules=recipe.proposals,
            seeds=seeds,
            work=work,
        )
        in_mode(session.network)
        return session

    @property
    def preparing(self) -> str:
        """Names the epochs."""
        epochs = self.recipe.shared_by.epochs
        return f"Training shared weights for {epochs} {'epoch' if epochs == 1 else 'epochs'}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Which groups could not be widened, and why."""
        stayed = widening_of(self.session.network).stayed.items()
        return tuple(f"Group {name} keeps its width: {why}" for name, why in stayed)

    # -- units ---------------------------------------------------------------------------------

    def prepare(self) -> Prepared:
        """Train the shared weights."""
        session = self.session
        slices = train_shared(session, self.recipe.shared_by)
        _ = session.exact_judge, session.quick_judge
        original = session.original.space
        return Prepared(
            dense=DenseRecord(
                macs=original.cost("macs").dense, params=int(original.cost("params").dense)
            ),
            weights_hash=weights_hash(slices.shared),
            ledger=(),
        )

    # -- proposals -----------------------------------------------------------------------------

    @cached_property
    def slices(self) -> Slices:
        """Makes candidates of the trained shared weights."""
        return kept_slices(self.session)

    def scores(self, criterion: str, draw: int) -> Sequence[Tensor]:
        """The first channels are the best ones; there is nothing to choose."""
        widths = (group.width for group in self.session.space.groups)
        return [-torch.arange(width, dtype=torch.float32) for width in widths]

    def maker(self, scores: Sequence[Tensor]) -> Slices:
        """Slices of the shared weights, whatever the scores."""
        return self.slices

    def chosen(self, selection: Selection) -> Selection:
        """The first channels at the widths that the method proposes."""
        return first_channels(self.session.space, selection.widths)

    def charge(self, meter: Meter, *, predicted: bool) -> None:
        """Nothing: who compared configurations is charged with the shared weights at the end."""

    def rescored(self, key: ProposalKey, selection: Selection, meter: Meter) -> list[Tensor]:
        """Not without a criterion."""
        raise InvalidInputError(
            "Channels are not scored from scratch: every network keeps the first ones of each "
            "group. Use task.evaluate, or a benchmark of the setting 'pretrained'."
        )

    def finished(
        self, key: ProposalKey, small: nn.Module, selection: Selection, meter: Meter
    ) -> Finished:
        """The untrained network, with what the shared weights say of it.

        The training of the shared weights is charged to who compared configurations with them;
        what they say of a single one decides nothing.
        """
        if key.row.label == DENSE:
            return Finished(small, None, {})
        alone = self.slices.make(selection.widths).network
        quality = self.session.exact_judge.quality(alone, str(key))
        return Finished(small, quality, self._charged(meter))

    def _charged(self, meter: Meter) -> dict[str, Spent]:
        compared = len(meter.ledger.candidates()) > 1
        return {SHARED: spent_of(shared_cost(self.session))} if compared else {}

    # -- trainings -----------------------------------------------------------------------------

    def start(self, network: nn.Module, seed: int) -> nn.Module:
        """The same network with random weights of this seed."""
        return initialise(network, seed)
