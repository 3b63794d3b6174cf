"""The first unit of a benchmark: the dense network, its statistics, and all criteria's scores."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from randprune.atomic import write_file
from randprune.bench.lab import Lab
from randprune.bench.meter import spent_of
from randprune.bench.recipe import RANDOM_CRITERION
from randprune.bench.records import DenseRecord, Spent
from randprune.bench.units import Outcome, Tell
from randprune.criteria import Criterion, criteria, score_all
from randprune.pipeline.ledger import entry
from randprune.recovery import needs_moments
from randprune.store import Accuracy, CostEntry
from randprune.training import TrainProgress, train
from randprune.training.state import Checkpoint
from randprune.zoo.weights import weights_hash


def prepare(lab: Lab, tell: Tell) -> Outcome:
    """Make and keep what all other units read; what an earlier process kept is not made again."""
    lab.ledger.clear()
    _pretrain(lab, tell)
    used = sorted({c for label in lab.recipe.methods for c in lab.recipe.criteria_of(label)})
    chosen = {name: criteria.create(name) for name in used if name != RANDOM_CRITERION}
    shared: dict[str, Any] = {}
    if needs_moments(lab.recipe.recovery) or any("moments" in c.needs for c in chosen.values()):
        shared["moments"] = lab.recoveries.moments()
    _score(lab, chosen, shared)
    _ = lab.tables
    judge = lab.exact_judge
    _ = lab.quick_judge
    right = judge.dense_logits.argmax(dim=1) == lab.search.labels
    dense = DenseRecord(
        macs=lab.macs,
        params=int(lab.space.cost("params").dense),
        search=Accuracy(int(right.sum()), len(right)),
    )
    return Outcome(
        weights_hash=weights_hash(lab.model),
        dense=dense,
        ledger=tuple(lab.ledger),
    )


def _pretrain(lab: Lab, tell: Tell) -> None:
    """Train the dense network, where the recipe gives no trained weights."""
    section = lab.recipe.pretrain
    file = lab.kept.file("dense")
    if section is None or file.exists():
        return
    recipe = section.recipe(section.epochs, lab.seed("pretrain"))

    def progress(now: TrainProgress) -> None:
        tell((now.epoch - 1 + now.step / now.steps) / now.epochs)

    result = train(
        lab.untrained,
        lab.data.full_train,
        recipe,
        checkpoint=Checkpoint(lab.work / "pretrain", every_steps=250),
        progress=progress,
        device=lab.device,
    )
    lab.ledger.append(
        entry(
            "pretrain",
            "pretrain",
            seconds=result.seconds,
            device=lab.device,
            forward={lab.macs: result.images_forward},
            backward={lab.macs: result.images_backward},
        )
    )
    write_file(file, safetensors.torch.save(dict(result.model.state_dict())))


def _score(lab: Lab, chosen: Mapping[str, Criterion], shared: dict[str, Any]) -> None:
    """Score all criteria in shared passes, keep the scores, and what each costs by itself."""
    calibration = lab.recoveries.calibration

    def make() -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        found = score_all(
            lab.model,
            lab.space,
            chosen.values(),
            calibration,
            seed=lab.seed("scores"),
            shared=shared,
        )
        seconds = time.perf_counter() - start
        costs = {name: _cost(lab, criterion, 0.0) for name, criterion in chosen.items()}
        most = max(costs.values(), key=lambda cost: cost.macs_spent, default=None)
        if most is not None:
            whole = dataclasses.replace(most, phase="scores", key="scores", seconds=seconds)
            lab.ledger.append(whole)
        documents = {name: dataclasses.asdict(spent_of(cost)) for name, cost in costs.items()}
        lab.keep_document("costs", {RANDOM_CRITERION: dataclasses.asdict(Spent()), **documents})
        return {
            f"{name}/{g:05d}": torch.as_tensor(values)
            for name, criterion in chosen.items()
            for g, values in enumerate(found[criterion.name])
        }

    lab.kept.tensors("scores", make)


def _cost(lab: Lab, criterion: Criterion, seconds: float) -> CostEntry:
    """What one criterion's scores cost, by what it says that it looks at."""
    images = len(lab.recoveries.calibration) if criterion.needs - {"weights"} else 0
    backward = {lab.macs: images} if "gradients" in criterion.needs else {}
    forward = {lab.macs: images}
    return entry("scores", criterion.name, seconds=seconds, device=lab.device, forward=forward,
                 backward=backward)  # fmt: skip
