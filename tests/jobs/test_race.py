"""Racing: candidates that are clearly behind are stopped, and nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pruning_jobs import SETTINGS, Watch, job

from randprune.jobs.quality import Quality
from randprune.jobs.race import LEAST, Race
from randprune.jobs.ranking import MINUS_KL
from randprune.store import SEARCHED, Candidate
from randprune.tasks import ACCURACY, Quality as Seen

IMAGES, BATCH = 800, 100
RACED: dict[str, Any] = {
    **SETTINGS,
    "search": {**SETTINGS["search"], "race": True, "batch_size": 20},
    "finalists": {**SETTINGS["finalists"], "count": 1},
}


def judged(race: Race, divergences: np.ndarray) -> tuple[dict[str, float], int]:
    """The scores of a candidate whose batches have these divergences, and the images it saw."""
    runner = race.runner()
    for number in range(1, len(divergences) + 1):
        mean = float(divergences[:number].mean())
        quality = Quality(Seen(0.5, number * BATCH, distance=mean), ACCURACY, 0.0)
        if not runner.goes_on(quality.samples, partial(copy.copy, quality)):
            break
    scores = runner.end(quality)
    race.enter(scores)
    return scores, quality.samples


def batches(rng: np.random.Generator, level: float) -> np.ndarray:
    """Divergences of eight batches about a level."""
    return level * np.exp(rng.normal(0.0, 0.1, IMAGES // BATCH))


def test_who_is_clearly_behind_sees_few_images_and_the_best_see_all() -> None:
    rng = np.random.default_rng(0)
    lost, seen, errors = 0, [], []
    for _ in range(50):
        race = Race("kl", IMAGES, 3)
        levels = rng.uniform(0.2, 2.0, 40)
        found = []
        for level in levels:
            divergences = batches(rng, level)
            scores, images = judged(race, divergences)
            found.append((-divergences.mean(), images, scores))
            if images < IMAGES:
                errors.append(np.log(scores[MINUS_KL] / -divergences.mean()))
        seen.append(np.mean([images for _, images, _ in found]))
        best = sorted(found, key=lambda entry: -entry[0])[:3]
        lost += sum(images < IMAGES for _, images, _ in best)
        assert all(images == IMAGES for _, images, _ in found[:LEAST])
    assert lost <= 2, "of 150, at three standard deviations"
    assert np.mean(seen) < 0.6 * IMAGES
    # Who is stopped looked worse than it is, if by little.
    assert 0.0 < np.mean(errors) < 0.03
    assert np.std(errors) < 0.15


def test_it_corrects_for_first_images_that_are_easier() -> None:
    race, rng = Race("kl", IMAGES, 1), np.random.default_rng(1)
    easier = np.array([0.5] * 2 + [1.0] * 6)
    for level in [1.0] * 12:
        _, images = judged(race, batches(rng, level) * easier)
        assert images == IMAGES
    scores, images = judged(race, np.full(8, 5.0) * easier)
    assert images == IMAGES // 8
    assert Candidate(0, (), scores=scores).stopped
    np.testing.assert_allclose(-scores[MINUS_KL], 5.0 * easier.mean(), rtol=0.1)


@pytest.mark.parametrize("divergence", [0.0, -0.1])
def test_a_loss_that_has_no_logarithm_stops_nobody(divergence: float) -> None:
    race = Race("kl", IMAGES, 1)
    for _ in range(12):
        scores, images = judged(race, np.full(8, divergence))
        assert images == IMAGES
        assert not scores


def test_all_images_in_one_batch() -> None:
    race = Race("kl", BATCH, 1)
    for level in (1.0, 2.0) * 6:
        scores, images = judged(race, np.array([level]))
        assert (images, scores) == (BATCH, {})


def outcome(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    return [dataclasses.replace(c, seconds={}) for c in candidates if c.method == SEARCHED]


def test_a_job_finds_the_same_network_for_less_and_goes_on_after_an_end(tmp_path: Path) -> None:
    options = {"finetune": None, "strategy": "random", "candidates": 40}
    plain = job(None, settings={**RACED, "search": {**RACED["search"], "race": False}}, **options)
    raced = job(None, settings=RACED, **options)
    stopped = [c for c in outcome(raced.candidates) if c.stopped]
    assert 0 < len(stopped) <= 40 - LEAST
    assert raced.winner.index == plain.winner.index
    known = {c.index: c.scores[MINUS_KL] for c in outcome(plain.candidates)}
    for candidate in stopped:
        assert candidate.scores[MINUS_KL] < known[raced.winner.index]
        assert abs(np.log(candidate.scores[MINUS_KL] / known[candidate.index])) < 1.0

    def spent(result: Any) -> float:
        return sum(e.macs_spent for e in result.ledger if e.phase == "search")

    assert spent(raced) < spent(plain)
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, Watch("search", 20, KeyboardInterrupt()), settings=RACED, **options)
    again = job(tmp_path, settings=RACED, **options)
    assert outcome(again.candidates) == outcome(raced.candidates)
