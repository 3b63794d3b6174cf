"""Ranking: values, ties, repeats, failures, and who becomes a finalist."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from randprune.errors import DataError
from randprune.jobs.quality import Quality
from randprune.jobs.ranking import best_first, choose_finalists, rank, value_of
from randprune.recovery import quick_form
from randprune.store import PROXY, Accuracy, Candidate
from randprune.tasks import ACCURACY, Classification


def made(index: int, minus_kl: float, proxy: float | None = None, width: int = 0) -> Candidate:
    scores = {"minus_kl": minus_kl} | ({} if proxy is None else {PROXY: proxy})
    return Candidate(index, (width or index + 1,), scores=scores)


FAILED = Candidate(9, (1,), status="failed", error="it broke")


def test_quality_against_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(5, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 0, 1])

    def measured(logits: torch.Tensor) -> Quality:
        meter = Classification().meter()
        for part in (slice(2), slice(2, 5)):
            meter.update(logits[part], (None, labels[part]), theirs[part])
        return Quality(meter.result(), ACCURACY, 0.5)

    found = measured(ours)
    p, q = (np.exp(z.double().numpy()) for z in (theirs, ours))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    kl, loss = found.measured.distance, found.measured.loss
    assert kl == pytest.approx(float((p * np.log(p / q)).sum(1).mean()), rel=1e-9)
    assert loss == pytest.approx(float(-np.log(q[np.arange(5), labels]).mean()), rel=1e-9)
    right = int((q.argmax(1) == labels.numpy()).sum())
    assert found.result == found.accuracy == Accuracy(right, 5)
    assert measured(theirs).measured.distance == 0.0
    assert found.scores == {"kl": -kl, "loss": -loss, "accuracy": right / 5}


def test_rank_is_stable() -> None:
    assert rank([1.0, 3.0, 3.0, 2.0]).tolist() == [1, 2, 3, 0]


def test_best_first_drops_failures_and_repeats() -> None:
    candidates = [made(0, -2.0), made(1, -1.0), made(2, -1.0, width=2), FAILED, made(3, -0.5)]
    assert [c.index for c in best_first(candidates, "kl")] == [3, 1, 0]
    assert value_of(FAILED, "kl") == -math.inf
    with pytest.raises(DataError, match=r"All 1 candidates failed, the first with: it broke"):
        best_first([FAILED], "kl")


def test_finalists_without_predictions_are_the_best() -> None:
    candidates = [made(0, -3.0), made(1, -1.0), made(2, -2.0)]
    assert [c.index for c in choose_finalists(candidates, "kl", 2)] == [1, 2]
    assert [c.index for c in choose_finalists(candidates, "kl", 9)] == [1, 2, 0]


def test_finalists_are_taken_in_turns_by_evaluation_and_by_prediction() -> None:
    candidates = [made(0, -4.0, 0.9), made(1, -1.0, 0.1), made(2, -2.0, 0.8), made(3, -3.0, 0.2)]
    # Evaluation: 1 2 3 0. Prediction: 0 2 3 1.
    assert [c.index for c in choose_finalists(candidates, "kl", 3)] == [1, 0, 2]


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("none", "none"),
        ("bn", "bn_closed_form"),
        ("least_squares", "least_squares"),
        ("least_squares+bn", "least_squares"),
        ("sequential+bn", "sequential"),
    ],
)
def test_the_quick_form_of_a_recovery_measures_no_statistics(name: str, quick: str) -> None:
    assert quick_form(name) == quick
