"""One job at work: what every phase needs, and how a phase finds what an earlier process did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.evaluate import Engine, Evaluator
from randprune.jobs.kept import Kept
from randprune.jobs.ledger import entry
from randprune.jobs.progress import Phase, Progress, phase
from randprune.recipe import OutputSection, PruneRecipe, SearchSection
from randprune.space import Selection, Space
from randprune.store import CostEntry, Run
from randprune.zoo.data import Data
from randprune.zoo.splits import Split


class JobRecipe(Protocol):
    """What the recipes of all jobs have."""

    @property
    def seed(self) -> int: ...

    @property
    def search(self) -> SearchSection: ...

    @property
    def output(self) -> OutputSection: ...


R = TypeVar("R", bound=JobRecipe, default=PruneRecipe)


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[R]):
    """What the phases of one job share. Everything that lasts is in `run` and in `work`.

    Attributes:
        recipe: what was asked.
        model: the caller's dense network; never modified.
        space: its channel groups.
        example: one normalised batch of one image, what the space was traced with.
        data: the images.
        budget: what a configuration may cost.
        run: the records.
        work: the folder for what is kept until the job ends (moments, networks, checkpoints).
        progress: who is told.
    """

    recipe: R
    model: nn.Module
    space: Space
    example: Tensor
    data: Data
    budget: Budget
    run: Run
    work: Path
    progress: Progress
    device: str | None = None
    _held: dict[str, Evaluator] = field(default_factory=dict, repr=False)

    def phase(
        self, name: str, text: str, *, total: int = 1, done: int = 0
    ) -> AbstractContextManager[Phase]:
        """Announce a phase; see `randprune.jobs.progress`."""
        return phase(self.progress, name, text, total=total, done=done)

    def seed(self, *purpose: str | int) -> int:
        """A seed in [0, 2**31) for one purpose: independent between purposes and job seeds."""
        words = "/".join(map(str, (self.recipe.seed, *purpose)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "little") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A numpy generator for one purpose."""
        return np.random.default_rng(self.seed(*purpose))

    # -- evaluation ----------------------------------------------------------------------------

    def evaluator(self, split: Split, part: str, precision: str) -> Evaluator:
        """The evaluator of a part of the data, the same engine in every process of the run.

        The engine is chosen by measuring, so a second process might choose another one and rank
        by numbers that differ in the last bits. What the first one chose is in the records.
        """
        key = f"engine/{precision}"
        if (name := f"{part}/{precision}") not in self._held:
            stored = self.run.get(key)
            engine = _engine(stored, self.device) if stored else None
            chosen = Evaluator(
                split,
                precision=precision,  # type: ignore[arg-type]
                device=self.device,
                engine=engine,
                batch_size=self.recipe.search.batch_size,
            )
            if stored is None:
                self.run.put(key, chosen.engine_for(self.model).document)
            self._held[name] = chosen
        return self._held[name]

    @property
    def kept(self) -> Kept:
        """What lasts until the job ends."""
        return Kept(self.work)

    # -- costs ---------------------------------------------------------------------------------

    def macs(self, selection: Selection | None = None) -> float:
        """MACs of one image through the dense network, or through one with this selection."""
        cost = self.space.cost("macs")
        return cost.dense if selection is None else float(cost(selection.widths))

    def entry(
        self,
        phase: str,
        key: str,
        *,
        seconds: float,
        candidates: int = 0,
        forward: Mapping[float, int] | None = None,
        backward: Mapping[float, int] | None = None,
    ) -> CostEntry:
        """A ledger entry of this job's device; see `randprune.jobs.ledger.entry`."""
        return entry(
            phase,
            key,
            seconds=seconds,
            device=self.device,
            candidates=candidates,
            forward=forward,
            backward=backward,
        )


def _engine(stored: Mapping[str, object], device: str | None) -> Engine | None:
    """The engine in the records, None where this machine has no such device."""
    try:
        engine = Engine(**stored)  # type: ignore[arg-type]
        torch.empty(0, device=engine.device)
    except (InvalidInputError, RuntimeError, AssertionError, TypeError):
        return None
    return engine if device is None or torch.device(device).type in engine.device else None
