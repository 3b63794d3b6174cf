"""What all units of a benchmark share within a process: images, network, space, folder, judges.

What differs between settings - networks that are cut from a trained one, or widths that are trained
from scratch - is in the classes of `randprune.bench.settings`.

Whatever takes time is made once, by the unit "prepare", and kept in the run's work folder; other
processes, and a resumed run, read it there.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from randprune.atomic import write_file
from randprune.bench.keys import ProposalKey
from randprune.bench.recipe import BenchRecipe
from randprune.bench.units import Prepared
from randprune.cost import Budget
from randprune.evaluate import Engine, Evaluator
from randprune.executors import Tell
from randprune.graph.program import in_mode
from randprune.graph.trace import trace
from randprune.jobs.judge import Judge
from randprune.jobs.kept import Kept
from randprune.search import reachable
from randprune.search.feasible import require_reachable
from randprune.space import IntArray, Space
from randprune.store import CostEntry, content_hash
from randprune.training import Teacher, TrainRecipe
from randprune.zoo.data import Data, in_memory, load_data
from randprune.zoo.models import build_model
from randprune.zoo.splits import Split
from randprune.zoo.weights import load_weights

if TYPE_CHECKING:
    from randprune.bench.propose import Bench


class Lab(ABC):
    """The shared things of one benchmark in one process, made or read when first used."""

    tests_untrained: ClassVar[bool]
    """Whether networks say anything on the test set before they are trained here."""
    trainings: ClassVar[str]
    """What people call several trainings: "fine-tunings"."""

    def __init__(self, recipe: BenchRecipe, work: Path, device: str | None = None) -> None:
        self.recipe = recipe
        self.kept = Kept(work)
        self.work = work
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.ledger: list[CostEntry] = []
        """What was spent since it was last emptied, besides what units count themselves."""

    def work_in(self, work: Path) -> None:
        """Keep what lasts in this folder from now on."""
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.kept = work, Kept(work)

    def seed(self, *purpose: str | int) -> int:
        """A seed in [0, 2**31) for one purpose: independent between purposes and recipe seeds."""
        words = "/".join(map(str, ("bench", self.recipe.seed, *purpose)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "little") >> 1

    def file(self, kind: str, key: object) -> str:
        """The name under which the thing of this kind and key is kept."""
        return f"{kind}-{content_hash(key)}"

    # -- what a setting decides ----------------------------------------------------------------

    @property
    @abstractmethod
    def base(self) -> nn.Module:
        """The network that all others are cut from, in evaluation mode."""

    @property
    @abstractmethod
    def unprepared(self) -> nn.Module:
        """A network like `base` that is there before the preparation; its weights mean nothing."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """The channel groups of `base`; widths are theirs."""

    @property
    @abstractmethod
    def budget(self) -> Budget:
        """The recipe's budget, relative to `base`."""

    @property
    @abstractmethod
    def preparing(self) -> str:
        """What people read while `prepare` is at work."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of the network."""
        return ()

    @abstractmethod
    def prepare(self, tell: Tell) -> Prepared:
        """Make and keep what all other units read; what an earlier process kept stays."""

    @abstractmethod
    def bench(self, key: ProposalKey, tell: Tell) -> Bench[Any]:
        """Where one proposal is made."""

    def start(self, network: nn.Module, seed: int) -> nn.Module:
        """What the training of a proposed network with this seed starts from."""
        return network

    def teacher(self, recipe: TrainRecipe) -> Teacher | None:
        """Whom trainings by this recipe learn from besides the labels."""
        return None

    # -- images and network --------------------------------------------------------------------

    @cached_property
    def data(self) -> Data:
        """The images; the test set is opened by `test_evaluator` alone."""
        asked = self.recipe.images
        return load_data(
            asked.spec,
            calibration=asked.calibration,
            search=asked.search,
            seed=asked.seed,
            **asked.options,
        )

    @cached_property
    def search(self) -> Split:
        """The search images, decoded where they fit into memory."""
        return in_memory(self.data.search)

    @cached_property
    def untrained(self) -> nn.Module:
        """The dense network as it is given, in evaluation mode."""
        return in_mode(self.build())

    def build(self) -> nn.Module:
        """The dense network: with the recipe's weights, or to be trained first."""
        asked = self.recipe.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed("initial weights"))
            model = build_model(asked.spec, asked.num_classes, asked.in_channels, **asked.options)
        if asked.weights:
            load_weights(model, asked.weights)
        return model

    @cached_property
    def example(self) -> Tensor:
        """One normalised batch of one image."""
        return next(self.data.calibration.batches(1))[0].cpu()

    @cached_property
    def original(self) -> Space:
        """The channel groups of the dense network, which budgets and ratios refer to."""
        return self.trace(self.untrained)

    def trace(self, model: nn.Module) -> Space:
        """The channel groups of the dense network, or of one cut from it."""
        asked = self.recipe.network
        return trace(model, self.example, asked.freeze, as_graph=asked.as_graph, allow=asked.allow)

    @property
    def macs(self) -> float:
        """MACs of one image through the dense network."""
        return self.original.cost("macs").dense

    # -- the budget ----------------------------------------------------------------------------

    @property
    def limits(self) -> tuple[float, int]:
        """On widths: the least share of a group, and what they are multiples of."""
        return self.recipe.proposals.min_keep, self.recipe.proposals.round_to

    def ratio(self, widths: IntArray) -> float:
        """Share of the dense network's cost, in the budget's metric, at widths (G,)."""
        metric = self.recipe.budget.metric
        return float(self.space.cost(metric)(widths)) / self.original.cost(metric).dense

    def check_reachable(self) -> None:
        """Raise an InfeasibleBudgetError where no configuration meets the budget."""
        whole = self.budget.ratio / self.recipe.budget.ratio
        require_reachable(self.space, self.budget, *self.limits, whole=whole)

    def reachable(self) -> tuple[float, float]:
        """The lowest and the highest ratio that configurations have."""
        low, high = reachable(self.space, self.budget.metric, *self.limits)
        share = self.recipe.budget.ratio / self.budget.ratio
        return low * share, high * share

    # -- evaluation ----------------------------------------------------------------------------

    @cached_property
    def quick_judge(self) -> Judge:
        """Compares candidates on the search images with the fastest engine."""
        return self.judge(self.recipe.proposals.precision)

    @cached_property
    def exact_judge(self) -> Judge:
        """Measures networks on the search images in float32."""
        return self.judge("float32")

    def judge(self, precision: str) -> Judge:
        """Measures networks on the search images."""
        return Judge(self.evaluator(self.search, precision))

    @cached_property
    def test_evaluator(self) -> Evaluator:
        """Measures networks on the test set, which is opened here: for the final numbers alone."""
        test = in_memory(self.data.open_test(f"final numbers of {self.recipe.title}"))
        return self.evaluator(test, "float32")

    def evaluator(self, split: Split, precision: str) -> Evaluator:
        """An evaluator whose engine all processes of the run share, chosen by the first one."""
        name = f"engine-{precision}"
        if not self.has_document(name):
            found = Evaluator(
                split,
                precision=precision,  # type: ignore[arg-type]
                device=self.device,
                batch_size=self.recipe.proposals.batch_size,
            )
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as the processes will run it
            engine = found.engine_for(self.base)
            torch.set_num_threads(threads)
            self.keep_document(name, engine.document)
        return Evaluator(split, device=self.device, engine=Engine(**self.document(name)))

    # -- documents -----------------------------------------------------------------------------

    def has_document(self, name: str) -> bool:
        """Whether a JSON document is kept under `name`."""
        return (self.work / f"{name}.json").exists()

    def document(self, name: str) -> dict[str, Any]:
        """The JSON document kept under `name`."""
        found: dict[str, Any] = json.loads((self.work / f"{name}.json").read_text())
        return found

    def keep_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a JSON document under `name`."""
        write_file(self.work / f"{name}.json", json.dumps(document).encode())
