"""The one context of all work on a network: what candidates are made of, judged with, recorded in.

A `Session` holds a network with its channel groups, the images, the budget and the limits on
widths; it makes statistics, scores and evaluators when they are first needed, and keeps in its work
folder whatever takes time. Jobs and benchmarks differ in what they do with it, not in what it is.

Another process gets an equal session from the same network, images and settings: what lies in the
work folder is read there, and all randomness comes from `seed(purpose)`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randprune.cost import Budget, FloatArray
from randprune.criteria import Criterion, Random, passes_of, score
from randprune.errors import ArtifactError, InvalidInputError
from randprune.evaluate import Engine, Evaluator
from randprune.evaluate.engine import Precision
from randprune.graph.call import network_inputs
from randprune.graph.program import Inputs
from randprune.jobs.candidate_rules import CandidateRules
from randprune.jobs.ledger import Gathered, Ledger, cost_entry
from randprune.jobs.progress import Phase, Progress, Silent, phase
from randprune.jobs.quality import Judge, kept_outputs, outputs_of, read_outputs
from randprune.jobs.seeds import Seeds
from randprune.jobs.work_folder import WorkFolder, name_of
from randprune.recovery import (
    DenseStatistics,
    Moments,
    Partial,
    Passes,
    collect_moments,
    needs_moments,
    recover,
)
from randprune.recovery.sensitivity import KEEPS, measured_tables, measurements
from randprune.space import IntArray, Selection, Space
from randprune.store import Accuracy, Measured, Result
from randprune.strategies import reachable
from randprune.strategies.feasible import require_reachable
from randprune.strategies.proxy import check_tables, predicted
from randprune.tasks import ACCURACY, Classification, Task
from randprune.zoo.data import Data, in_memory
from randprune.zoo.splits import Samples

BATCH = 128
"""Calibration images a batch, at most."""
TABLE_IMAGES = 64
"""Training images, not of calibration, that each group's table is measured on."""

_TABLES_SO_FAR = "tables-so-far"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network, its channel groups, and a budget that is a share of its cost."""

    network: nn.Module
    space: Space
    budget: Budget


@dataclass(eq=False)
class Session:
    """What one network's candidates are made of, judged with and recorded in.

    Args:
        subject: what candidates are cut from; its network is never modified. From scratch the
            widened network, with a budget that means the same as the original's.
        original: the network as it was given, which people's ratios refer to and files are loaded
            on; the subject itself where nothing was widened.
        example: the network's inputs of one sample, what the space was traced with: a tensor, or a
            tuple of several inputs.
        data: the samples.
        rules: limits on widths, and how candidates are compared.
        task: what the network is for.
        seeds: where everything random comes from.
        work: what is kept until the work is done. What is known of the network lies here;
            networks that are made for a budget lie in `made`.
        ledger: what is found, and what it costs.
        progress: who is told.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        trained: whether the subject's weights say anything, so that candidates are compared with
            its outputs.
        threads: how many threads engines are chosen for, None: as many as torch uses here.
        part: the part of `work` where networks are kept, of a job with several budgets.
    """

    subject: Subject
    original: Subject
    example: Inputs
    data: Data
    rules: CandidateRules
    seeds: Seeds
    work: WorkFolder
    task: Task = field(default_factory=Classification)
    ledger: Ledger = field(default_factory=Gathered)
    progress: Progress = field(default_factory=Silent)
    device: str | None = None
    trained: bool = True
    threads: int | None = None
    part: str = ""
    _judges: dict[str, Judge] = field(default_factory=dict, repr=False)
    _evaluators: dict[str, Evaluator] = field(default_factory=dict, repr=False)

    @property
    def network(self) -> nn.Module:
        """What candidates are cut from; never modified."""
        return self.subject.network

    @property
    def space(self) -> Space:
        """The channel groups of `network`; widths are theirs."""
        return self.subject.space

    @property
    def budget(self) -> Budget:
        """What a configuration may cost, as a share of `network`'s cost."""
        return self.subject.budget

    @property
    def made(self) -> WorkFolder:
        """Where networks that are made for the budget are kept, their trainings included."""
        return self.work.inside(self.part) if self.part else self.work

    def aim(self, budget: Budget) -> None:
        """Work from now on for this budget; what is known of the network stays known.

        The network is the one that was given: nothing was widened.
        """
        self.subject = self.original = replace(self.subject, budget=budget)

    def use(self, network: nn.Module) -> None:
        """Work from now on with this network, such as the given one after its training.

        It differs from the session's network in its weights alone; what was known of those is
        forgotten.
        """
        given = self.original
        self.subject = self.original = Subject(network, given.space, given.budget)
        self._judges.clear()
        self._evaluators.clear()
        for name in ("statistics", "_tables"):
            self.__dict__.pop(name, None)

    @contextmanager
    def writing(self, ledger: Ledger, progress: Progress) -> Iterator[None]:
        """Within the block, write what is found there, and tell that one."""
        before = self.ledger, self.progress
        self.ledger, self.progress = ledger, progress
        try:
            yield
        finally:
            self.ledger, self.progress = before

    def phase(
        self, name: str, text: str, *, total: int = 1, done: int = 0
    ) -> AbstractContextManager[Phase]:
        """Announce a phase; see `randprune.jobs.progress`."""
        return phase(self.progress, name, text, total=total, done=done)

    # -- images --------------------------------------------------------------------------------

    @cached_property
    def calibration(self) -> Samples:
        """The calibration images, decoded where they fit into memory."""
        return in_memory(self.data.calibration)

    @cached_property
    def search_images(self) -> Samples:
        """The images that finalists are compared on, decoded where they fit into memory."""
        return in_memory(self.data.search)

    @cached_property
    def ranking_images(self) -> Samples:
        """The first of the search images: those that all candidates are compared on."""
        every, limit = self.search_images, self.rules.images
        return every if limit is None or limit >= len(every) else every.subset(np.arange(limit))

    @property
    def batch(self) -> int:
        """Calibration images a batch: at most as many as `rules.batch_size`, if set."""
        return min(BATCH, self.rules.batch_size or BATCH)

    # -- the budget and costs ------------------------------------------------------------------

    @property
    def limits(self) -> tuple[float, int]:
        """On widths: the least share of a group, and what they are multiples of."""
        return self.rules.min_keep, self.step

    @property
    def step(self) -> int:
        """What widths are multiples of; decided when the session was opened."""
        step = self.rules.round_to
        assert isinstance(step, int)
        return step

    def check_reachable(self) -> None:
        """Raise an InfeasibleBudgetError where no configuration meets the budget."""
        whole = self.budget.ratio / self.original.budget.ratio
        require_reachable(self.space, self.budget, *self.limits, whole=whole)

    def reachable(self) -> tuple[float, float]:
        """The lowest and the highest share of the original's cost that configurations have."""
        low, high = reachable(self.space, self.budget.metric, *self.limits)
        share = self.original.budget.ratio / self.budget.ratio
        return low * share, high * share

    def ratio(self, widths: IntArray) -> float:
        """Share of the original's cost, in the budget's metric, at widths (G,)."""
        metric = self.budget.metric
        return float(self.space.cost(metric)(widths)) / self.original.space.cost(metric).dense

    def macs(self, widths: IntArray | None = None) -> float:
        """MACs of one image through `network`, or through one with these widths (G,)."""
        cost = self.space.cost("macs")
        return cost.dense if widths is None else float(cost(widths))

    def spend(
        self,
        phase: str,
        key: str,
        start: float,
        forward: Mapping[float, int] | None = None,
        backward: Mapping[float, int] | None = None,
    ) -> None:
        """Note what a step cost that began at `start`, a `time.perf_counter`."""
        seconds = time.perf_counter() - start
        self.ledger.add_cost(
            cost_entry(
                phase, key, seconds=seconds, device=self.device, forward=forward, backward=backward
            )
        )

    # -- evaluation ----------------------------------------------------------------------------

    def evaluator(self, split: Samples, part: str, precision: Precision) -> Evaluator:
        """The evaluator of a part of the data; its engine is the same in every process.

        The engine is chosen once, by whoever evaluates first, and kept in the work folder: another
        one would rank by numbers that differ in the last bits.
        """
        if (name := f"{part}/{precision}") not in self._evaluators:
            document = self.work.document(f"engine-{precision}")
            self._evaluators[name] = Evaluator(
                split,
                precision=precision,
                device=self.device,
                engine=_engine(document, self.device) if document else None,
                batch_size=self.rules.batch_size,
                choice=self.rules.engine,
            )
            if document is None:
                engine = self._chosen(self._evaluators[name])
                self.work.keep_document(f"engine-{precision}", engine.document)
        return self._evaluators[name]

    def test_evaluator(self, purpose: str) -> Evaluator:
        """Runs networks on the test set, in float32; the first call opens it.

        Args:
            purpose: what the test set is opened for, for its log.
        """
        if "test/float32" not in self._evaluators:
            test = in_memory(self.data.open_test(purpose))
            self.evaluator(test, "test", "float32")
        return self._evaluators["test/float32"]

    def test_judge(self, purpose: str) -> Judge:
        """Measures networks on the test set; where there are no labels, beside the dense one."""
        beside = None if self.task.needs_targets else self.original.network
        return Judge(self.test_evaluator(purpose), self.task, None, beside)

    def _chosen(self, evaluator: Evaluator) -> Engine:
        """The engine for the candidates, chosen with the threads that will run it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            return evaluator.engine_for(self.network)
        finally:
            torch.set_num_threads(before)

    @property
    def quick_judge(self) -> Judge:
        """Compares candidates: on the ranking images, by the engine that the recipe names."""
        images, precision = self.ranking_images, self.rules.precision
        if images is self.search_images and precision == "float32":
            return self.exact_judge
        return self._judge("ranking", images, precision)

    @property
    def exact_judge(self) -> Judge:
        """Measures networks on all search images in float32."""
        return self._judge("search", self.search_images, "float32")

    def _judge(self, part: str, split: Samples, precision: Precision) -> Judge:
        """Measures networks on a split, beside a trained network's outputs."""
        if part not in self._judges:
            evaluator = self.evaluator(split, part, precision)
            dense = self._dense_outputs(evaluator, part) if self.trained else None
            beside = self.network if self.trained and dense is None else None
            self._judges[part] = Judge(evaluator, self.task, dense, beside)
        return self._judges[part]

    def _dense_outputs(self, evaluator: Evaluator, part: str) -> Sequence[Any] | None:
        """Of the dense network, by batch; None where they would take too much memory."""
        if known := self.work.kept_tensors(name := f"dense-{part}"):
            return read_outputs(known)
        start, every = time.perf_counter(), outputs_of(evaluator, self.network)
        if every is None:
            return None
        self.spend("dense", f"dense/{part}", start, {self.macs(): len(evaluator.split)})
        return read_outputs(self.work.keep_tensors(name, kept_outputs(every)))

    def result(self, score: float, samples: int) -> Result:
        """The metric's value behind a score on so many samples, as records hold it."""
        if self.task.metric == ACCURACY:
            return Accuracy(round(score * samples), samples)
        return Measured(self.task.metric.score(score), samples)

    def dense_result(self) -> Result:
        """Of the dense network on the search images, in float32."""
        return self.exact_judge.dense_result(self.network)

    # -- statistics ----------------------------------------------------------------------------

    @cached_property
    def statistics(self) -> DenseStatistics:
        """What criteria and repairs of `network` know of it together."""
        return DenseStatistics(self.network, self.space)

    def moments(self) -> Moments:
        """Second moments of `network` on the calibration images."""
        if self.statistics.moments is None:
            path = self.work.file("moments")
            found: Moments | None = None
            if path.exists():
                try:
                    found = Moments.load(path)
                except ArtifactError:
                    path.unlink(missing_ok=True)
            self.statistics.moments = found or self._collect_moments()
        return self.statistics.moments

    def _collect_moments(self) -> Moments:
        """The moments from one pass, which goes on where an interrupted one has stopped."""
        seed, images = self.seeds.seed("moments"), len(self.calibration)
        key = {"space": self.space.fingerprint, "seed": seed, "images": images, "batch": self.batch}
        partial = Partial(self.work.file("moments-so-far"), key)
        start, done = time.perf_counter() - partial.seconds, partial.head.get("images", 0)
        text = "Collecting statistics"
        with self.phase("calibrate", text, total=images, done=done) as running:
            found = collect_moments(
                self.network,
                self.space,
                self.calibration.batches(self.batch),
                seed=seed,
                partial=partial,
                tell=running.at,
            )
            self.spend("calibrate", "moments", start, {self.macs(): found.images})
            found.save(self.work.file("moments"))
            partial.remove()
        return found

    @property
    def table_passes(self) -> int:
        """Images through the network for the tables; at most, since parts of passes are shared."""
        seen = min(TABLE_IMAGES, len(self.data.fit_indices) + len(self.data.search_indices))
        return seen * (1 + len(KEEPS) * len(self.space))

    def tables(self) -> Sequence[FloatArray]:
        """What each width of each group costs at the network's outputs, (width + 1,) a group."""
        return self._tables

    @cached_property
    def _tables(self) -> Sequence[FloatArray]:
        kept = self.work.tensors("tables", self._measure_tables)
        self.work.file(_TABLES_SO_FAR).unlink(missing_ok=True)
        return check_tables(self.space, [kept[f"{g:05d}"].numpy() for g in range(len(self.space))])

    def _measure_tables(self) -> dict[str, Tensor]:
        self.moments()
        statistics = self.statistics
        inverses, found = statistics.inverses(), statistics.eliminations()
        data = self.data
        # The moments explain the calibration images too well; ranking has its own, where it can.
        unseen = np.concatenate([data.fit_indices, data.search_indices])[:TABLE_IMAGES]
        batch = next(data.full_train.subset(unseen).batches(len(unseen)))
        inputs = network_inputs(self.network, batch)
        key = {"space": self.space.fingerprint, "images": unseen.tolist(), "of": "errors"}
        partial = Partial(self.work.file(_TABLES_SO_FAR), key)
        start, text = time.perf_counter() - partial.seconds, "Measuring widths of single groups"
        with self.phase("tables", text, total=measurements(self.space)) as running:
            tables = measured_tables(
                self.network, self.space, inverses, found, inputs, partial=partial, tell=running.at
            )
            self.spend("calibrate", "tables", start, {self.macs(): self.table_passes})
        return _numbered([torch.from_numpy(table) for table in tables])

    def predicted(self, widths: IntArray) -> FloatArray:
        """Predicted quality of configurations (N, G) from the tables, higher = better, (N,)."""
        return predicted(self._tables, widths)

    # -- scores --------------------------------------------------------------------------------

    def scores(self, criterion: Criterion, name: str = "") -> list[Tensor]:
        """A criterion's scores, one (width,) tensor a group, higher = keep.

        They are kept under `name`, by default the criterion's own.
        """
        kept = self.work.tensors(
            name_of("scores", name or criterion.name), lambda: _numbered(self._score(criterion))
        )
        return [kept[f"{g:05d}"] for g in range(len(self.space))]

    def kept_scores(self, name: str) -> list[Tensor] | None:
        """What `scores` has kept under a name, here or in another process; None: nothing."""
        kept = self.work.kept_tensors(name_of("scores", name))
        return None if kept is None else [kept[f"{g:05d}"] for g in range(len(self.space))]

    def random_scores(self, *purpose: str | int) -> list[Tensor]:
        """Scores that say nothing, drawn for one purpose."""
        return score(self.network, self.space, Random(), seed=self.seeds.seed(*purpose))

    def keep_scores(self, name: str, found: Sequence[Tensor]) -> None:
        """Keep a criterion's scores that were made together with others', for `scores`."""
        self.work.keep_tensors(name_of("scores", name), _numbered(found))

    def _score(self, criterion: Criterion) -> list[Tensor]:
        if "moments" in criterion.needs:
            self.moments()
        start = time.perf_counter()
        seed = self.seeds.seed("criterion")
        found = score(
            self.network,
            self.space,
            criterion,
            self.calibration,
            seed=seed,
            batch_size=self.batch,
            shared=self.statistics,
        )
        looks = criterion.needs - {"weights", "moments"}
        seen = passes_of(criterion, len(self.calibration)) if looks else Passes()
        forward, backward = ({self.macs(): count} for count in (seen.forward, seen.backward))
        self.spend("calibrate", f"scores/{criterion.name}", start, forward, backward)
        return found

    # -- repair --------------------------------------------------------------------------------

    def repaired(self, small: nn.Module, selection: Selection, recovery: str) -> nn.Module:
        """`small` itself, which keeps `selection` of `network`, after a recovery of this name."""
        if needs_moments(recovery):
            self.moments()
        return recover(
            small,
            self.network,
            self.space,
            selection,
            recovery,
            self.calibration,
            batch_size=self.batch,
            shared=self.statistics,
        )


def _numbered(values: Sequence[Tensor]) -> dict[str, Tensor]:
    """One tensor a group, as they are kept."""
    return {f"{g:05d}": torch.as_tensor(found) for g, found in enumerate(values)}


def _engine(document: Mapping[str, Any], device: str | None) -> Engine | None:
    """The engine that was kept, None where this machine has no such device."""
    try:
        engine = Engine(**document)
        torch.empty(0, device=engine.device)
    except (InvalidInputError, RuntimeError, AssertionError, TypeError):
        return None
    return engine if device is None or torch.device(device).type in engine.device else None
