"""The runner of a benchmark: the one that cuts, verifies, repairs, trains, tests and records.

Phases: preparation, proposals, fine-tuning, and then the test set, opened for the first time when
everything else is recorded. Each phase is a list of units; what an earlier process recorded is not
done again, so that the same call after `kill -9` goes on where that one stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from randprune.bench.lab import Lab
from randprune.bench.pool import Failure, Pool, make_pool
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import (
    DENSE,
    SCRATCH,
    BenchRun,
    DenseRecord,
    MethodInfo,
    Protocol,
    record_proposal,
    record_training,
)
from randprune.bench.results import Proposal, Training
from randprune.bench.settings import make_lab
from randprune.bench.units import (
    PREPARE,
    TEST_DENSE,
    Outcome,
    Unit,
    proposals,
    test_of,
    trainings,
)
from randprune.errors import DataError, InvalidInputError
from randprune.jobs.progress import Progress, Silent, phase
from randprune.store import (
    BudgetInfo,
    ModelInfo,
    Reproduce,
    Run,
    RunKey,
    SpaceInfo,
    Store,
    UseOfTestSet,
    content_hash,
)
from randprune.zoo.weights import weights_hash

RECIPE_FILE = "bench.toml"

# What does not decide any result, or counts by its content wherever it lies.
_NOT_DECISIVE = ("output", "model", "data", "title", "study")
_DATA_PARTS = (
    "train_fingerprint",
    "test_fingerprint",
    "split_seed",
    "calibration_images",
    "search_images",
)


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
    """
    folder = Path(out or recipe.output.folder)
    check_complete(recipe, str(out or recipe.output.folder))
    with Store.open(folder) as store:
        lab = make_lab(recipe, folder / "work", device)
        with phase(progress or Silent(), "trace", "Tracing the network"):
            lab.check_reachable()
        run = store.run(_key(lab))
        if not run.finished:
            lab.work_in(folder / "work" / f"run-{run.id}")
            with run, contextlib.closing(make_pool(lab, device)) as pool:
                _Runner(lab, run, pool, progress or Silent()).work()
            shutil.rmtree(lab.work, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run of this folder is not finished
                lab.work.parent.rmdir()
        return BenchRun.of(run)


@dataclass(frozen=True, slots=True, eq=False)
class _Runner:
    """One run at work."""

    lab: Lab
    run: Run
    pool: Pool
    progress: Progress

    def work(self) -> None:
        """All phases."""
        recipe = self.lab.recipe
        self._describe()
        with self._phase("prepare", self.lab.preparing, [PREPARE], 0) as done:
            for _, outcome in done:
                if isinstance(outcome, Failure):
                    raise DataError(f"The preparation of the benchmark failed: {outcome.error}")
                self._prepared(outcome)
        asked = list(proposals(recipe))
        self._propose(asked)
        proposed = {p.key: p for p in self._proposals()}
        sound = [unit for unit in asked if proposed[unit.key].status == "ok"]
        every = [training for unit in sound for training in trainings(recipe, unit)]
        self._train(every)
        self._test(sound, every)

    # -- phases --------------------------------------------------------------------------------

    def _propose(self, asked: Sequence[Unit]) -> None:
        known = {p.key: p for p in self._proposals()}
        left = [
            unit
            for unit in asked
            if unit.key not in known
            or (known[unit.key].status == "ok" and not self._has("proposal", unit))
        ]
        text = f"{len(asked)} proposals"
        with self._phase("propose", text, left, _work(asked) - _work(left)) as done:
            for unit, outcome in done:
                if isinstance(outcome, Failure):
                    method = self.lab.recipe.method_name(unit.label)
                    proposal = Proposal(
                        row=unit.row, label=unit.label, method=method, criterion=unit.criterion,
                        draw=unit.draw, status="failed", error=outcome.error,
                    )  # fmt: skip
                    outcome = Outcome(proposal=proposal)
                assert outcome.proposal is not None
                with self.run.transaction():
                    record_proposal(self.run, outcome.proposal)
                    self.run.record_candidates(outcome.candidates)
                    self._book(outcome)

    def _train(self, every: Sequence[Unit]) -> None:
        known = {t.key: t for t in self._trainings()}
        left = [
            unit
            for unit in every
            if unit.key not in known
            or (known[unit.key].status == "ok" and not self._has("trained", unit))
        ]
        text = f"{len(every)} {self.lab.trainings}"
        with self._phase("train", text, left, _work(every) - _work(left)) as done:
            for unit, outcome in done:
                if isinstance(outcome, Failure):
                    training = Training(
                        unit.row, unit.draw, unit.epochs, unit.training, "failed", outcome.error
                    )
                    outcome = Outcome(training=training)
                assert outcome.training is not None
                with self.run.transaction():
                    record_training(self.run, outcome.training)
                    for row in outcome.epochs:
                        self.run.record_epoch(row.network, row.epoch, row.metrics)
                    self._book(outcome)

    def _test(self, proposed: Sequence[Unit], trained: Sequence[Unit]) -> None:
        """The final evaluation: the test set is opened here, and nowhere else."""
        by_key: dict[str, Proposal | Training] = {p.key: p for p in self._proposals()}
        by_key |= {t.key: t for t in self._trainings() if t.status == "ok"}
        untrained = self.lab.tests_untrained
        asked = (*proposed, *trained) if untrained else trained
        every = [test_of(unit) for unit in asked if unit.key in by_key]
        left = [unit for unit in every if by_key[_tested(unit)].test is None]
        dense = self.run.get_typed(DenseRecord, DenseRecord.KEY)
        if untrained:
            every = [TEST_DENSE, *every]
            left = ([TEST_DENSE] if dense.test is None else []) + left
        text = "Test accuracy"
        with self._phase("test", text, left, _work(every) - _work(left)) as done:
            for unit, outcome in done:
                if isinstance(outcome, Failure):
                    self._failed_test(unit, outcome, by_key)
                    continue
                with self.run.transaction():
                    if unit == TEST_DENSE:
                        self.run.write(dataclasses.replace(dense, test=outcome.test))
                    else:
                        found = by_key[_tested(unit)]
                        self._record(dataclasses.replace(found, test=outcome.test))
                    self._book(outcome, final=True)

    def _failed_test(
        self, unit: Unit, failure: Failure, by_key: dict[str, Proposal | Training]
    ) -> None:
        if unit == TEST_DENSE:
            raise DataError(f"The dense network could not be tested: {failure.error}")
        found = by_key[_tested(unit)]
        self._record(dataclasses.replace(found, status="failed", error=failure.error))

    # -- records -------------------------------------------------------------------------------

    def _describe(self) -> None:
        """Record what is compared, on which network and images, and write the recipe."""
        lab, recipe, run = self.lab, self.lab.recipe, self.run
        assert recipe.model is not None
        sizes = lab.data.describe()
        images = {
            part: sizes[f"{part}_images"] for part in ("fit", "calibration", "search", "test")
        }
        file = RECIPE_FILE if run.id == 1 else f"bench-{run.id}.toml"
        with run.transaction():
            run.write(
                ModelInfo(
                    title=recipe.model.spec.rpartition(":")[2],
                    name=recipe.model.spec,
                    weights=Path(recipe.model.weights).name,
                    data=lab.data.name,
                    classes=lab.data.num_classes,
                    input_shape=lab.data.image_shape,
                    images=images,
                )
            )
            run.write(SpaceInfo.from_space(lab.original, lab.reachable()))
            budget = recipe.budget
            run.write(BudgetInfo(budget.metric, budget.ratio, budget.tolerance))
            run.write(Reproduce(f"randprune bench {file}", recipe.to_toml(), file))
            if run.read(UseOfTestSet) is None:
                run.write(UseOfTestSet(0, 0))
        recipe.save(run.store.folder / file)

    def _prepared(self, outcome: Outcome) -> None:
        assert outcome.dense is not None
        with self.run.transaction():
            known = self.run.read(DenseRecord)
            self.run.write(known or outcome.dense)
            self.run.write(protocol_of(self.lab, outcome.weights_hash))
            for row in outcome.epochs:
                self.run.record_epoch(row.network, row.epoch, row.metrics)
            self._book(outcome)

    def _book(self, outcome: Outcome, *, final: bool = False) -> None:
        """Record the costs of a unit, and what it means for the count of test-set openings."""
        for cost in outcome.ledger:
            self.run.add_cost(cost)
        use = self.run.get_typed(UseOfTestSet, UseOfTestSet.KEY)
        if final:
            use = UseOfTestSet(use.before_final, use.final + outcome.opened)
        else:
            # A proposal or training that ends after a final evaluation could have been chosen by
            # it: then the test set was open before.
            use = UseOfTestSet(max(use.before_final, use.final) + outcome.opened, use.final)
        self.run.write(use)

    def _record(self, found: Proposal | Training) -> None:
        if isinstance(found, Proposal):
            record_proposal(self.run, found)
        else:
            record_training(self.run, found)

    def _proposals(self) -> tuple[Proposal, ...]:
        return BenchRun.of(self.run).proposals

    def _trainings(self) -> tuple[Training, ...]:
        return BenchRun.of(self.run).trainings

    def _has(self, kind: str, unit: Unit) -> bool:
        """Whether the network that a recorded unit left is still there."""
        return self.lab.kept.file(self.lab.file(kind, unit.key)).exists()

    @contextmanager
    def _phase(
        self, name: str, text: str, units: Sequence[Unit], done: int
    ) -> Iterator[Iterator[tuple[Unit, Outcome | Failure]]]:
        """Announce a phase of these units; gives what comes of each, as they finish."""
        total = done + _work(units)
        shares: dict[Unit, float] = {}

        def advance(unit: Unit, share: float) -> None:
            shares[unit] = max(share, shares.get(unit, 0.0))
            now = done + int(sum(u.work * s for u, s in shares.items()))
            running.at(max(running.done, min(now, total)))

        def watched() -> Iterator[tuple[Unit, Outcome | Failure]]:
            for unit, outcome in self.pool.run(units, advance):
                yield unit, outcome
                advance(unit, 1.0)

        with phase(self.progress, name, text, total=total, done=done) as running:
            yield watched()


def protocol_of(lab: Lab, hash_of_weights: str) -> Protocol:
    """The rules of a run in its records."""
    recipe = lab.recipe
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
        draw_seeds=tuple(lab.seed("draw", draw) for draw in range(design.draws)),
        training_seeds=tuple(lab.seed("training", 0, n) for n in range(design.trainings)),
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
        notes=lab.notes,
    )


def _key(lab: Lab) -> RunKey:
    """What makes two calls the same benchmark: all that decides a result, by content."""
    recipe = lab.recipe
    document = recipe.document()
    model = document.get("model", {})
    traced = {k: v for k, v in model.items() if k in ("freeze", "allow", "as_graph")}
    decisive = {k: v for k, v in document.items() if k not in _NOT_DECISIVE}
    described = lab.data.describe()
    return RunKey(
        kind="bench",
        recipe={**decisive, "trace": traced},
        seed=recipe.seed,
        fingerprint=lab.original.fingerprint,
        weights_hash=weights_hash(lab.untrained),
        data_fingerprint=content_hash({part: described[part] for part in _DATA_PARTS}),
    )


def check_complete(recipe: BenchRecipe, folder: str) -> None:
    """Raise where a recipe lacks what a run needs: network, weights, images, or a folder."""
    for section, example in (("model", "randprune:resnet20"), ("data", "digits")):
        if getattr(recipe, section) is None:
            raise InvalidInputError(
                f"The recipe has no [{section}] section. Add one, e.g. [{section}] with "
                f'spec = "{example}".'
            )
    if not folder:
        raise InvalidInputError(
            "A benchmark keeps its records in a folder. Give one, as the recipe's output.folder "
            "or the parameter 'out'."
        )
    assert recipe.model is not None
    if recipe.setting == "pretrained" and not recipe.model.weights and recipe.pretrain is None:
        raise InvalidInputError(
            "The recipe's network has no trained weights, so there is nothing to compare. Give "
            "model.weights, or a section [pretrain] that trains it first. To search widths "
            'without trained weights, set setting = "scratch".'
        )


def _work(units: Sequence[Unit]) -> int:
    return sum(unit.work for unit in units)


def _tested(unit: Unit) -> str:
    return unit.key.removeprefix("test/")
