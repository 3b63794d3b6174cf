"""Does one unit, wherever it runs."""

from __future__ import annotations

import dataclasses

from randprune.bench.finish import test, train_proposed
from randprune.bench.lab import Lab
from randprune.bench.propose import propose
from randprune.bench.units import Outcome, Tell, Unit


def execute(lab: Lab, unit: Unit, tell: Tell) -> Outcome:
    """What the unit found; raises what its method, or the work itself, raises."""
    before = lab.data.test_opened
    if unit.kind == "prepare":
        outcome = lab.prepare(tell)
    elif unit.kind == "propose":
        outcome = propose(lab, unit, tell)
    elif unit.kind == "train":
        outcome = train_proposed(lab, unit, tell)
    else:
        outcome = test(lab, unit)
    return dataclasses.replace(outcome, opened=lab.data.test_opened - before)
