"""The preparation of trained networks: the dense one, its statistics, and all criteria's scores."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import nn

from randprune.atomic import write_file
from randprune.bench.counting import MacCounter, cost_alone
from randprune.bench.keys import RANDOM_CRITERION
from randprune.bench.once import train_once
from randprune.bench.records import DenseRecord
from randprune.bench.results import Spent
from randprune.bench.units import Prepared
from randprune.criteria import Criterion, criteria, score, score_all
from randprune.errors import StorageError
from randprune.executors import Tell
from randprune.recovery import DenseStatistics, needs_moments
from randprune.store import Accuracy, CostEntry
from randprune.zoo.weights import weights_hash

if TYPE_CHECKING:
    from randprune.bench.settings.pretrained import PretrainedLab

_log = logging.getLogger(__name__)


def prepare(lab: PretrainedLab, tell: Tell) -> Prepared:
    """Make and keep what all other units read; what an earlier process kept is not made again."""
    lab.ledger.clear()
    _pretrain(lab, tell)
    used = sorted({c for label in lab.recipe.methods for c in lab.recipe.criteria_of(label)})
    chosen = {name: criteria.create(name) for name in used if name != RANDOM_CRITERION}
    if needs_moments(lab.recipe.recovery) or any("moments" in c.needs for c in chosen.values()):
        lab.recoveries.moments()
    _score(lab, chosen)
    _ = lab.tables
    judge = lab.exact_judge
    _ = lab.quick_judge
    assert judge.dense_logits is not None
    right = judge.dense_logits.argmax(dim=1) == lab.search.labels
    dense = DenseRecord(
        macs=lab.macs,
        params=int(lab.space.cost("params").dense),
        search=Accuracy(int(right.sum()), len(right)),
    )
    return Prepared(
        weights_hash=weights_hash(lab.base),
        dense=dense,
        ledger=tuple(lab.ledger),
    )


def _pretrain(lab: PretrainedLab, tell: Tell) -> None:
    """Train the dense network, where the recipe gives no trained weights."""
    section, file = lab.recipe.pretrain, lab.kept.file("dense")
    if section is None:
        return
    cost, _ = train_once(
        lab,
        "pretrain",
        lambda: lab.untrained,
        lab.data.full_train,
        section.recipe(section.epochs, lab.seed("pretrain")),
        lab.macs,
        lambda trained: _keep(trained, file),
        tell,
    )
    lab.ledger.append(cost)


def _keep(network: nn.Module, file: Path) -> None:
    write_file(file, safetensors.torch.save(dict(network.state_dict())))


def _score(lab: PretrainedLab, chosen: Mapping[str, Criterion]) -> None:
    """Score all criteria in shared passes, keep the scores, and what each costs by itself."""
    calibration = lab.recoveries.calibration

    def make() -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        with MacCounter() as counter:
            found, failed = _scores(lab, chosen)
        looked_at = [c.needs - {"weights"} for c in chosen.values()]
        lab.ledger.append(
            CostEntry(
                "scores",
                "scores",
                images_forward=len(calibration) if any(looked_at) else 0,
                images_backward=len(calibration)
                if any("gradients" in needs for needs in looked_at)
                else 0,
                macs_spent=counter.macs,
                seconds=time.perf_counter() - start,
                device=lab.device,
            )
        )
        costs = {RANDOM_CRITERION: Spent(device=lab.device)}
        for name in found:
            costs[name] = cost_alone(lab.base, lab.space, chosen[name], calibration, lab.device)
        lab.keep_document("costs", {name: dataclasses.asdict(c) for name, c in costs.items()})
        lab.keep_document("failed", failed)
        return {
            f"{name}/{g:05d}": torch.as_tensor(values)
            for name, all_ in found.items()
            for g, values in enumerate(all_)
        }

    lab.kept.tensors("scores", make)


def _scores(
    lab: PretrainedLab, chosen: Mapping[str, Criterion]
) -> tuple[dict[str, list[torch.Tensor]], dict[str, str]]:
    """Scores by criterion, and the errors of those that failed."""
    calibration, seed = lab.recoveries.calibration, lab.seed("scores")

    def fresh() -> DenseStatistics:
        """The moments are shared by all; a pass that failed must not be."""
        return DenseStatistics(lab.base, lab.space, lab.recoveries.shared.moments)

    try:
        together = score_all(
            lab.base, lab.space, chosen.values(), calibration, seed=seed, shared=fresh()
        )
        return {name: together[criterion.name] for name, criterion in chosen.items()}, {}
    except (StorageError, MemoryError):
        raise
    except Exception as error:
        _log.warning("Scoring together failed (%s): each criterion alone.", error)
    found: dict[str, list[torch.Tensor]] = {}
    failed: dict[str, str] = {}
    for name, criterion in chosen.items():
        try:
            found[name] = score(
                lab.base, lab.space, criterion, calibration, seed=seed, shared=fresh()
            )
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return found, failed
