"""The runner of a benchmark: the one that cuts, verifies, repairs, trains, tests and records.

Phases: preparation, proposals, fine-tuning, and then the test set, opened for the first time when
everything else is recorded. Each phase is a list of units; what an earlier process recorded is not
done again, so that the same call after `kill -9` goes on where that one stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

import torch

from randprune.bench.execute import BATCH_KEYS, WORK, execute, opening
from randprune.bench.finish import network_file
from randprune.bench.keys import NetworkKey
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DENSE, SCRATCH, BenchRun, DenseRecord, MethodInfo, Protocol
from randprune.bench.results import Proposal, Training
from randprune.bench.settings import BenchJob, open_job
from randprune.bench.units import (
    Outcome,
    Prepare,
    Prepared,
    Propose,
    Proposed,
    Test,
    TestDense,
    Tested,
    TestedDense,
    Train,
    Trained,
    Unit,
    proposals,
    total_work,
    trainings,
    work_of,
)
from randprune.errors import DataError
from randprune.evaluate.threads import decide, using
from randprune.executors import Executor, Failure, InProcess, OnRay, Processes
from randprune.jobs.identity import describe, numbered, run_key
from randprune.jobs.progress import Progress, Silent, phase
from randprune.jobs.work_folder import WorkFolder
from randprune.memory import memory_errors
from randprune.provenance import portable
from randprune.store import Run, Store, UseOfTestSet

RECIPE_FILE = "bench.toml"

# Keys of a recipe that do not decide any result, besides those of all jobs.
NOT_DECISIVE = ("title", "study")


def run_bench(
    recipe: BenchRecipe,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> BenchRun:
    """Do the benchmark that a recipe describes, or what is left of it; all its records.

    A row that fails is recorded with its error and the others go on: see `BenchRun.failures`.

    Args:
        recipe: with [model] and [data].
        out: instead of the recipe's output folder.
        progress: is told how far it is.
        device: where networks are evaluated and trained; default: the GPU if there is one.

    Raises:
        InvalidInputError: the recipe names no network, images or folder.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        DataError, WeightsError: images or weights that cannot be used.
        StorageError: the folder cannot be written, or is in use.
        MemoryLimitError: memory does not suffice for a batch.
    """
    folder = Path(out or recipe.output.folder)
    recipe = recipe.resolved()
    recipe.check_complete(str(out or recipe.output.folder))
    with using(decide().count), memory_errors(*BATCH_KEYS), Store.open(folder) as store:
        with phase(progress or Silent(), "trace", "Tracing the network"):
            job = open_job(recipe, folder / "work", device)
        key = run_key(recipe, job.session, not_decisive=NOT_DECISIVE, example=False)
        run = store.run(key)
        if not run.finished:
            job.session.work = WorkFolder(folder / "work" / f"run-{run.id}")
            job.session.work.folder.mkdir(parents=True, exist_ok=True)
            with (
                run,
                using(decide(run.threads).count),
                contextlib.closing(_executor(job, device)) as executor,
            ):
                _Runner(job, run, executor, progress or Silent()).work()
            job.session.work.remove()
        return BenchRun.of(run)


class _Runner:
    """One run at work; `recorded`: its proposals and trainings as the records have them now."""

    def __init__(
        self, job: BenchJob, run: Run, executor: Executor[Unit, Outcome], progress: Progress
    ) -> None:
        self.job = job
        self.run = run
        self.executor = executor
        self.progress = progress
        self.recorded: dict[NetworkKey, Proposal | Training] = {
            **{proposal.key: proposal for proposal in run.items(Proposal)},
            **{training.key: training for training in run.items(Training)},
        }

    def work(self) -> None:
        """All phases."""
        recipe = self.job.recipe
        self._describe()
        self._do("prepare", self.job.preparing, [Prepare()])

        asked = list(proposals(recipe))
        self._do("propose", f"{len(asked)} proposals", asked)
        sound = [unit.key for unit in asked if self.recorded[unit.key].status == "ok"]

        every = [training for key in sound for training in trainings(recipe, key)]
        self._do("train", f"{len(every)} {self.job.trainings}", every)
        trained = [unit.key for unit in every if self.recorded[unit.key].status == "ok"]

        # The final evaluation: the test set is opened here, and nowhere else.
        tests: list[Unit] = [Test(key) for key in trained]
        if self.job.tests_untrained:
            tests = [TestDense(), *(Test(key) for key in sound), *tests]
        self._do("test", "Test accuracy", tests)

    def _describe(self) -> None:
        """Record on which network and images the run is, and write the recipe."""
        file = numbered(self.run, RECIPE_FILE)
        describe(self.job.recipe, self.job.session, self.run, file, "randprune bench")
        if self.run.read(UseOfTestSet) is None:
            self.run.write(UseOfTestSet(0, 0))

    # -- one phase -----------------------------------------------------------------------------

    def _do(self, name: str, text: str, units: Sequence[Unit]) -> None:
        """Do those units that are not recorded yet, and record each as it finishes."""
        recipe = self.job.recipe
        left = [unit for unit in units if not self._is_done(unit)]
        work = {unit: work_of(recipe, unit) for unit in left}
        total = total_work(recipe, units)
        before = total - sum(work.values())
        shares: dict[Unit, float] = {}

        def advance(unit: Unit, share: float) -> None:
            shares[unit] = max(share, shares.get(unit, 0.0))
            now = before + int(sum(work[u] * s for u, s in shares.items()))
            running.at(max(running.done, min(now, total)))

        with phase(self.progress, name, text, total=total, done=before) as running:
            for unit, outcome in self.executor.run(left, advance, total=len(units)):
                with self.run.transaction():
                    if isinstance(outcome, Failure):
                        self._record_failure(unit, outcome.error)
                    else:
                        self._record(outcome)
                advance(unit, 1.0)

    def _is_done(self, unit: Unit) -> bool:
        """Whether a unit is recorded, and the network that it left is still there."""
        match unit:
            case Prepare():
                return False  # finds what it kept by itself
            case Propose(key) | Train(key):
                known = self.recorded.get(key)
                if known is None:
                    return False
                return known.status == "failed" or network_file(self.job, key).exists()
            case Test(key):
                return self.recorded[key].test is not None
            case TestDense():
                return self._dense.test is not None
            case _:
                assert_never(unit)

    @property
    def _dense(self) -> DenseRecord:
        return self.run.recorded(DenseRecord)

    # -- records -------------------------------------------------------------------------------

    def _record(self, outcome: Outcome) -> None:
        match outcome:
            case Prepared():
                self.run.write(self.run.read(DenseRecord) or outcome.dense)
                self.run.write(_protocol_of(self.job, outcome.weights_hash))
                for row in outcome.epochs:
                    self.run.record_epoch(row.network, row.epoch, row.metrics)
                self._count(before_final=outcome.opened)
            case Proposed():
                self._keep(outcome.proposal)
                self.run.record_candidates(outcome.candidates)
                self._count_choice(outcome.opened)
            case Trained():
                self._keep(outcome.training)
                self._count_choice(outcome.opened)
            case Tested():
                self._keep(dataclasses.replace(self.recorded[outcome.key], test=outcome.test))
                self._count(final=outcome.opened)
            case TestedDense():
                self.run.write(dataclasses.replace(self._dense, test=outcome.test))
                self._count(final=outcome.opened)
            case _:
                assert_never(outcome)
        for cost in outcome.ledger:
            self.run.add_cost(cost)

    def _record_failure(self, unit: Unit, error: str) -> None:
        error = portable(error)
        match unit:
            case Prepare():
                raise DataError(f"The preparation of the benchmark failed: {error}")
            case Propose(key):
                method = self.job.recipe.method_name(key.row.label)
                self._keep(Proposal(key, method, status="failed", error=error))
                self._count_choice()
            case Train(key):
                self._keep(Training(key, status="failed", error=error))
                self._count_choice()
            case Test(key):
                known = self.recorded[key]
                self._keep(dataclasses.replace(known, status="failed", error=error))
            case TestDense():
                raise DataError(f"The dense network could not be tested: {error}")
            case _:
                assert_never(unit)

    def _keep(self, item: Proposal | Training) -> None:
        self.run.record_item(item)
        self.recorded[item.key] = item

    # -- the test set --------------------------------------------------------------------------

    def _count_choice(self, opened: int = 0) -> None:
        """Count for a proposal or a training.

        One that ends after a final evaluation could have been chosen by it: then the test set was
        open before.
        """
        use = self.run.recorded(UseOfTestSet)
        self._count(before_final=max(0, use.final - use.before_final) + opened)

    def _count(self, *, before_final: int = 0, final: int = 0) -> None:
        """Count how often the test set was opened."""
        use = self.run.recorded(UseOfTestSet)
        self.run.write(UseOfTestSet(use.before_final + before_final, use.final + final))


def _protocol_of(job: BenchJob, hash_of_weights: str) -> Protocol:
    """The rules of a run in its records."""
    recipe, seeds = job.recipe, job.session.seeds
    described = []
    for label, section in recipe.methods.items():
        method = recipe.method(label)
        described.append(
            MethodInfo(
                label=label,
                method=recipe.method_name(label),
                options=section.options,
                criteria=recipe.criteria_of(label),
                epochs=recipe.epochs_of(label),
                words=method.words,
            )
        )
    if recipe.setting == "scratch":
        words = "The dense network at full width, trained like all others: no method of the budget."
        described.append(MethodInfo(DENSE, DENSE, {}, (SCRATCH,), recipe.epochs_of(DENSE), words))
    design = recipe.design
    return Protocol(
        title=recipe.title,
        setting=recipe.setting,
        weights_hash=hash_of_weights,
        methods=tuple(described),
        reference=recipe.reference,
        draw_seeds=tuple(seeds.seed("draw", draw) for draw in range(design.draws)),
        training_seeds=tuple(seeds.seed("training", 0, n) for n in range(design.trainings)),
        recovery=recipe.recovery,
        study=recipe.study,
        rank_by=recipe.proposals.rank_by,
        min_keep=recipe.proposals.min_keep,
        round_to=recipe.proposals.round_to,
        finetune=recipe.trained_by.model_dump(),
        margin=design.margin,
        confidence=design.confidence,
        widen=recipe.widen.model_dump() if recipe.widen else {},
        supernet=recipe.supernet.model_dump(exclude_none=True) if recipe.supernet else {},
        notes=job.notes,
    )


def _executor(job: BenchJob, device: str | None) -> Executor[Unit, Outcome]:
    """Who does the units, as the recipe asks."""
    output, document = job.recipe.output, opening(job, device)
    if output.executor == "ray":
        return OnRay(WORK, document, output.workers, output.address, job.session.work.folder)
    count = workers_of(job.recipe, job.device)
    if count == 0:
        return InProcess(partial(execute, job))
    return Processes(WORK, document, count, job.session.work.folder)


def workers_of(recipe: BenchRecipe, device: str) -> int:
    """How many processes work side by side; 0: none but this one."""
    if recipe.output.workers is not None:
        return recipe.output.workers
    return 1 if device.startswith("cuda") else _cores()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return torch.get_num_threads()
