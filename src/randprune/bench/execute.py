"""Does one unit, wherever it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import assert_never, get_args

from randprune.bench.finish import test, test_dense, train_proposed
from randprune.bench.lab import Lab
from randprune.bench.propose import propose
from randprune.bench.recipe import BenchRecipe
from randprune.bench.settings import make_lab
from randprune.bench.units import Outcome, Prepare, Propose, Test, TestDense, Train, Unit
from randprune.executors import Do, Tell, Wire, Work
from randprune.store.codec import Json


def execute(lab: Lab, unit: Unit, tell: Tell) -> Outcome:
    """What the unit found; raises what its method, or the work itself, raises."""
    before = lab.data.test_opened
    outcome: Outcome
    match unit:
        case Prepare():
            outcome = lab.prepare(tell)
        case Propose(key):
            outcome = propose(lab, key, tell)
        case Train(key):
            outcome = train_proposed(lab, key, tell)
        case Test(key):
            outcome = test(lab, key)
        case TestDense():
            outcome = test_dense(lab)
        case _:
            assert_never(unit)
    return dataclasses.replace(outcome, opened=lab.data.test_opened - before)


def opening(lab: Lab, device: str | None) -> dict[str, Json]:
    """What another process opens the same work with."""
    work = str(lab.work.resolve())
    return {"recipe": lab.recipe.document(), "work": work, "device": device}


def _open(document: Mapping[str, Json]) -> Do[Unit, Outcome]:
    recipe = BenchRecipe.parse(document["recipe"], "the recipe of this run")
    return partial(execute, make_lab(recipe, Path(document["work"]), document["device"]))


WORK: Work[Unit, Outcome] = Work(
    __name__, "WORK", _open, Wire(*get_args(Unit)), Wire(*get_args(Outcome))
)
