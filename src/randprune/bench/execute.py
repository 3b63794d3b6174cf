"""Does one unit, wherever it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import assert_never, get_args

from randprune.bench.finish import ShareOfUnit, test, test_dense, train_proposed
from randprune.bench.propose import propose
from randprune.bench.recipe import BenchRecipe
from randprune.bench.settings import BenchJob, open_job
from randprune.bench.units import (
    Outcome,
    Prepare,
    Prepared,
    Propose,
    Test,
    TestDense,
    Train,
    Unit,
)
from randprune.executors import Do, Tell, Wire, Work
from randprune.jobs.ledger import Gathered
from randprune.memory import memory_errors
from randprune.store.codec import Json

BATCH_KEYS = ("proposals.batch_size", "finetune.batch_size")
"""Keys of a recipe to make smaller where memory does not suffice."""


def execute(job: BenchJob, unit: Unit, tell: Tell) -> Outcome:
    """What the unit found; raises what its method, or the work itself, raises."""
    before = job.session.data.test_opened
    if not isinstance(unit, Prepare) and not job.prepared:
        job.read_prepared()
        job.prepared = True
    # Not the unit's own fault: the run ends with it, and goes on once there is more memory.
    with memory_errors(*BATCH_KEYS):
        outcome = _done(job, unit, tell)
    return dataclasses.replace(outcome, opened=job.session.data.test_opened - before)


def _done(job: BenchJob, unit: Unit, tell: Tell) -> Outcome:
    match unit:
        case Prepare():
            return _prepare(job, tell)
        case Propose(key):
            return propose(job, key, tell)
        case Train(key):
            return train_proposed(job, key, tell)
        case Test(key):
            return test(job, key)
        case TestDense():
            return test_dense(job)
        case _:
            assert_never(unit)


def _prepare(job: BenchJob, tell: Tell) -> Prepared:
    ledger = Gathered()
    with job.session.writing(ledger, ShareOfUnit(tell)):
        found = job.prepare()
    job.prepared = True
    return dataclasses.replace(found, epochs=ledger.epochs, ledger=ledger.costs)


def opening(job: BenchJob, device: str | None) -> dict[str, Json]:
    """What another process opens the same work with."""
    work = str(job.session.work.folder.resolve())
    return {"recipe": job.recipe.document(), "work": work, "device": device}


def _open(document: Mapping[str, Json]) -> Do[Unit, Outcome]:
    recipe = BenchRecipe.parse(document["recipe"], "the recipe of this run").resolved()
    return partial(execute, open_job(recipe, Path(document["work"]), document["device"]))


WORK: Work[Unit, Outcome] = Work(
    __name__, "WORK", _open, Wire(*get_args(Unit)), Wire(*get_args(Outcome))
)
