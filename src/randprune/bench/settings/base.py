"""One benchmark at work in one process: its recipe, its session, and what its setting decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from randprune.bench.keys import ProposalKey
from randprune.bench.meter import Meter
from randprune.bench.recipe import BenchRecipe
from randprune.bench.results import Spent
from randprune.bench.units import Prepared
from randprune.cost import FloatArray
from randprune.graph.program import in_mode
from randprune.jobs.candidates import Maker
from randprune.jobs.opening import images_of_recipe, network_of
from randprune.jobs.quality import Quality
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.space import IntArray, Selection
from randprune.training import Teacher, TrainRecipe


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A proposed network as it is kept for training and for the test.

    Attributes:
        quality: on the search images; None where it was not looked at.
        charged: what its row is charged besides the proposal, by stage.
    """

    network: nn.Module
    quality: Quality | None
    charged: Mapping[str, Spent]


class BenchJob(ABC):
    """What all units of a benchmark share within a process.

    Attributes:
        recipe: of the benchmark.
        session: of the network that all others are cut from.
        device: where networks are evaluated and trained.
        tests_untrained: whether networks say anything on the test set before they are trained here.
        trainings: what people call several trainings, such as "fine-tunings".
        prepared: whether this process has what `prepare` made.
    """

    tests_untrained: ClassVar[bool]
    trainings: ClassVar[str]

    def __init__(self, recipe: BenchRecipe, work: Path, device: str | None = None) -> None:
        """Open the session; `work` is the folder for what lasts until the run ends."""
        self.recipe = recipe
        self.session = self.open(recipe, work)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.session.device = self.device
        self.session.threads = 1  # as the processes run
        self.prepared = False

    @abstractmethod
    def open(self, recipe: BenchRecipe, work: Path) -> Session:
        """The session of the recipe's network."""

    @property
    @abstractmethod
    def preparing(self) -> str:
        """What people read while `prepare` is at work."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of the network."""
        return ()

    def unseal(self) -> None:
        """Load the test images, which nothing holds that proposes or trains.

        Called for the final evaluation alone, after all proposals and trainings are recorded.
        """
        session = self.session
        if session.data.is_sealed:
            session.data = session.data.unsealed(images_of_recipe(self.recipe))

    # -- preparation ---------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> Prepared:
        """Make and keep what all other units read; what an earlier process kept stays.

        What it costs is in the session's ledger.
        """

    def read_prepared(self) -> None:
        """Take what `prepare` has made in another process; called once, before any other unit."""
        return

    # -- proposals -----------------------------------------------------------------------------

    @property
    def predict(self) -> Callable[[IntArray], FloatArray] | None:
        """Configurations (N, G) -> predicted quality (N,); None where nothing predicts."""
        return None

    @abstractmethod
    def scores(self, criterion: str, draw: int) -> Sequence[Tensor]:
        """What ranks the channels in a row, one (width,) tensor a group, higher = keep."""

    @abstractmethod
    def maker(self, scores: Sequence[Tensor]) -> Maker:
        """Makes the candidates of a row."""

    @abstractmethod
    def chosen(self, selection: Selection) -> Selection:
        """Which channels stay of what a method proposed."""

    @abstractmethod
    def charge(self, meter: Meter, *, predicted: bool) -> None:
        """Charge a row with what all rows share, and with the tables where it has predictions."""

    @abstractmethod
    def rescored(self, key: ProposalKey, selection: Selection, meter: Meter) -> list[Tensor]:
        """See `Task.rescore`."""

    @abstractmethod
    def finished(
        self, key: ProposalKey, small: nn.Module, selection: Selection, meter: Meter
    ) -> Finished:
        """What is kept of the cut network."""

    # -- trainings -----------------------------------------------------------------------------

    def start(self, network: nn.Module, seed: int) -> nn.Module:
        """What the training of a proposed network with this seed starts from."""
        return network

    def teacher(self, recipe: TrainRecipe) -> Teacher | None:
        """Whom trainings by this recipe learn from besides the labels."""
        return None


def dense_network(recipe: BenchRecipe, seeds: Seeds) -> nn.Module:
    """The dense network of a recipe, in evaluation mode: with its weights, or to be trained."""
    return in_mode(network_of(recipe.network, seeds.seed("initial weights")))


def seeds_of(recipe: BenchRecipe) -> Seeds:
    """Where everything random in a benchmark comes from."""
    return Seeds(f"bench/{recipe.seed}")
