"""Made-up benchmark runs with planted effects: what statistics and reports are tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from randprune.bench.keys import ProposalKey, Row, TrainingKey
from randprune.bench.records import (
    BenchRun,
    DenseRecord,
    MethodInfo,
    Protocol,
)
from randprune.bench.results import PROPOSE, SCORES, Proposal, Spent, Training
from randprune.jobs.candidates import MINUS_KL
from randprune.store import (
    PROXY,
    SEARCH_TOP1,
    Accuracy,
    BudgetInfo,
    Candidate,
    CostEntry,
    GroupInfo,
    ModelInfo,
    RunKey,
    SpaceInfo,
    Store,
    UseOfTestSet,
)

_TEST, _SEARCH = 10_000, 2_000
_GROUPS = (GroupInfo("stem", 16), GroupInfo("stage2", 32), GroupInfo("stage3", 64))
_DENSE_MACS = 40.8e6


def write_bench_run(
    folder: str | Path,
    effects: Mapping[Row, float],
    *,
    epochs: Sequence[int] = (2,),
    draws: int = 3,
    trainings: int = 1,
    candidates: int = 10,
    draw_sd: float = 0.004,
    training_sd: float = 0.002,
    failed: Sequence[Row] = (),
    seed: int = 0,
) -> BenchRun:
    """Write a made-up finished benchmark of ResNet-20 to `folder`, and read it back.

    Test accuracy after training is 0.90 + the row's effect + 0.01 log2(1 + epochs) + a deviation of
    the draw, the same for all rows, + a deviation of each training. Before training it is about 0.4
    lower.

    Args:
        folder: an empty output folder.
        effects: by row, such as {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): -0.01}.
        epochs: fine-tuning lengths of all methods.
        draws, trainings: how many seeds.
        candidates: recorded for rows of random search; other rows have one.
        draw_sd, training_sd: standard deviations of the two kinds of chance, as shares.
        failed: rows that failed at their first draw.
        seed: decides the deviations.
    """
    rng = np.random.default_rng(seed)
    by_draw = rng.normal(0.0, draw_sd, draws)
    labels = dict.fromkeys(row.label for row in effects)
    methods = tuple(
        MethodInfo(
            label=label,
            method=label,
            options={},
            criteria=tuple(row.criterion for row in effects if row.label == label),
            epochs=tuple(epochs),
            words=f"Made-up numbers of {label}.",
        )
        for label in labels
    )
    protocol = Protocol(
        title="Made-up benchmark",
        setting="pretrained",
        weights_hash="0123456789abcdef",
        methods=methods,
        reference=next(iter(effects)),
        draw_seeds=tuple(range(100, 100 + draws)),
        training_seeds=tuple(range(200, 200 + trainings)),
        recovery="least_squares+bn",
        study="f1",
        finetune={"lr": 0.01, "batch_size": 128, "optimizer": "sgd"},
    )
    with Store.open(folder) as store:
        run = store.run(RunKey("bench", {"made": "up", "seed": seed}, seed))
        with run:
            for milestone in (
                protocol,
                ModelInfo("resnet20", "randprune:resnet20", data="npz:cifar10", classes=10,
                          input_shape=(3, 32, 32), images={"fit": 47_000, "calibration": 1_000,
                                                           "search": _SEARCH, "test": _TEST}),
                SpaceInfo("fedcba9876543210", _GROUPS, (), {"macs": _DENSE_MACS, "params": 2.7e5}),
                BudgetInfo("macs", 0.5, 0.005),
                DenseRecord(_DENSE_MACS, 270_000, _accuracy(0.99, _SEARCH),
                            _accuracy(0.926, _TEST)),
                UseOfTestSet(0, 1),
            ):  # fmt: skip
                run.write(milestone)
            run.add_cost(CostEntry("scores", "scores", 0, 1_000, 1_000, 1.2e11, 9.5))
            for row, effect in effects.items():
                for draw in range(draws):
                    level = 0.90 + effect + by_draw[draw]
                    made = _proposal(row, draw, level - 0.4, candidates, rng)
                    if row in failed and draw == 0:
                        made = replace(
                            made,
                            status="failed",
                            error="DataError: planted",
                            test=None,
                            search=None,
                        )
                    with run.transaction():
                        run.record_item(made)
                        run.record_candidates(_candidates(made, rng))
                    if made.status == "failed":
                        continue
                    for length in filter(None, epochs):
                        for training in range(trainings):
                            chance = rng.normal(0.0, training_sd)
                            done = _training(made, length, training, level + chance)
                            run.record_item(done)
    return BenchRun.load(folder)


def _proposal(
    row: Row, draw: int, level: float, candidates: int, rng: np.random.Generator
) -> Proposal:
    count = candidates if row.label == "random_search" else 1
    widths = tuple(int(rng.integers(1, group.width + 1)) for group in _GROUPS)
    before = level + rng.normal(0.0, 0.01)
    macs = 0.5 * _DENSE_MACS
    return Proposal(
        key=ProposalKey(row, draw),
        method=row.label,
        widths=widths,
        selection=f"{draw:016x}",
        chosen=0,
        macs=macs,
        params=135_000,
        ratio=0.5,
        proxy=level - 1.0 + rng.normal(0.0, 0.02),
        search=_accuracy(before + 0.01, _SEARCH),
        minus_kl=-1.0 + before,
        minus_loss=-1.5 + before,
        test=_accuracy(before, _TEST),
        spent={
            SCORES: Spent(0, 1_000, 1_000, 3_000 * _DENSE_MACS, 1.5, "cpu"),
            PROPOSE: Spent(count, count * _SEARCH, 0, count * _SEARCH * macs, 0.4 * count, "cpu"),
        },
    )


def _training(made: Proposal, epochs: int, training: int, level: float) -> Training:
    macs = made.macs or 0.0
    reached = level + 0.01 * float(np.log2(1 + epochs))
    images = 50_000 * epochs
    return Training(
        key=TrainingKey(made.key, epochs, training),
        test=_accuracy(reached, _TEST),
        seed=1000 * made.draw + training,
        spent=Spent(0, images, images, 3 * images * macs, 30.0 * epochs, "cpu"),
        history=tuple(
            {"train_loss": 0.5 / epoch, "seconds": 30.0} for epoch in range(1, epochs + 1)
        ),
    )


def _candidates(made: Proposal, rng: np.random.Generator) -> list[Candidate]:
    best = made.minus_kl or 0.0
    return [
        Candidate(
            index,
            made.widths,
            made.row.label,
            made.row.criterion,
            made.draw,
            costs={"macs": made.macs or 0.0},
            scores={
                SEARCH_TOP1: float(np.clip(0.45 + rng.normal(0.0, 0.05), 0.0, 1.0)),
                MINUS_KL: best if index == 0 else best - abs(float(rng.normal(0.0, 0.2))),
                PROXY: -1.0 - abs(float(rng.normal(0.0, 0.1))),
            },
        )
        for index in range(made.candidates)
    ]


def _accuracy(share: float, images: int) -> Accuracy:
    return Accuracy(round(float(np.clip(share, 0.0, 1.0)) * images), images)
