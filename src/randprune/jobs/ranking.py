"""How candidates are compared: a quality as scores of a candidate, and candidates in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from randprune.errors import DataError
from randprune.jobs.quality import Quality, RankBy
from randprune.store import FINALIST_TOP1, PROXY, SEARCH_TOP1, Candidate

# Keys of Candidate.scores beside the store's own; higher is better, as for all scores.
MINUS_KL = "minus_kl"
MINUS_LOSS = "minus_loss"
FINALIST = "finalist_"

_RANKED: dict[RankBy, str] = {"kl": MINUS_KL, "loss": MINUS_LOSS, "accuracy": SEARCH_TOP1}


def scores_of(quality: Quality, prefix: str = "") -> dict[str, float]:
    """A quality as scores of a candidate; `prefix` FINALIST for those of finalists."""
    return {score_key(rank_by, prefix): score for rank_by, score in quality.scores.items()}


def value_of(candidate: Candidate, rank_by: RankBy, prefix: str = "") -> float:
    """What the candidate is ranked by, higher = better; -inf for a failed one."""
    return candidate.scores.get(score_key(rank_by, prefix), -np.inf)


def score_key(rank_by: RankBy, prefix: str = "") -> str:
    """The key of Candidate.scores that holds what ranks."""
    key = _RANKED[rank_by]
    return FINALIST_TOP1 if prefix and key == SEARCH_TOP1 else prefix + key


def rank(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Positions from the highest value to the lowest, int64; equal values keep their order."""
    return np.argsort(-np.asarray(values, dtype=np.float64), kind="stable").astype(np.int64)


def best_first(candidates: Sequence[Candidate], rank_by: RankBy) -> list[Candidate]:
    """Candidates from best to worst, failed ones left out, equal configurations once.

    Raises:
        DataError: all have failed; gives the first one's error.
    """
    sound = [c for c in candidates if c.status == "ok"]
    if not sound:
        reason = candidates[0].error if candidates else "none was made"
        raise DataError(f"All {len(candidates)} candidates failed, the first with: {reason}")
    ranked = sorted(sound, key=lambda c: (-value_of(c, rank_by), c.index))
    distinct: dict[tuple[int, ...], Candidate] = {}
    for candidate in ranked:
        distinct.setdefault(candidate.widths, candidate)
    return list(distinct.values())


def choose_finalists(
    candidates: Sequence[Candidate], rank_by: RankBy, count: int
) -> list[Candidate]:
    """The `count` candidates that are worth a stronger repair, best first.

    By their evaluation after the quick repair; where the strategy also predicted their quality
    (`PROXY`), in turns by evaluation and by prediction, since a stronger repair changes ranks.

    Raises:
        DataError: all candidates have failed.
    """
    evaluated = best_first(candidates, rank_by)
    predicted = [c for c in evaluated if PROXY in c.scores]
    predicted.sort(key=lambda c: (-c.scores[PROXY], c.index))
    turns = [c for pair in zip(evaluated, predicted, strict=False) for c in pair]
    chosen: dict[int, Candidate] = {}
    for candidate in [*turns, *evaluated]:
        chosen.setdefault(candidate.index, candidate)
    return list(chosen.values())[:count]
