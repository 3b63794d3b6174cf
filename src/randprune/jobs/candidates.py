"""One candidate: from a row of widths to a record of what the network is worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from randprune.errors import DataError, RandpruneError, StorageError
from randprune.jobs.judge import Judge, Quality, RankBy
from randprune.space import IntArray, Selection, Space
from randprune.store import FINALIST_TOP1, PROXY, SEARCH_TOP1, Candidate, content_hash
from randprune.surgery import cut, select

# Keys of Candidate.scores beside the store's own; higher is better, as for all scores.
MINUS_KL = "minus_kl"
MINUS_LOSS = "minus_loss"
FINALIST = "finalist_"

_RANKED: dict[RankBy, str] = {"kl": MINUS_KL, "loss": MINUS_LOSS, "accuracy": SEARCH_TOP1}

Repair = Callable[[nn.Module, Selection], nn.Module]
"""Edits or replaces the cut network; returns the repaired one."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A candidate's network, repaired, with what it took.

    Attributes:
        seconds: by phase: "select" (with the cut) and "recover".
    """

    selection: Selection
    network: nn.Module
    seconds: Mapping[str, float] = field(default_factory=dict)


def make_candidate(
    model: nn.Module, space: Space, scores: Sequence[Tensor], widths: IntArray, repair: Repair
) -> Made:
    """The network of one configuration: channels chosen by `scores`, cut, repaired.

    Args:
        model: the dense network; not modified.
        space: its channel groups.
        scores: one (width,) tensor a group, higher = keep.
        widths: the configuration, int64 (G,).
        repair: what is done to the cut network.
    """
    start = time.perf_counter()
    selection = select(space, scores, widths)
    small = cut(model, space, selection)
    chosen = time.perf_counter()
    network = repair(small, selection)
    done = time.perf_counter()
    return Made(selection, network, {"select": chosen - start, "recover": done - chosen})


def evaluate_candidate(
    space: Space,
    judge: Judge,
    make: Callable[[], Made],
    widths: IntArray,
    *,
    index: int,
    method: str,
) -> Candidate:
    """The record of one candidate; one that cannot be made or evaluated is recorded as failed."""
    costs = {name: float(cost(widths)) for name, cost in space.costs.items()}
    try:
        made = make()
        quality = judge.quality(made.network, f"candidate {method}/{index}")
    except (StorageError, MemoryError):
        raise
    except (RandpruneError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        return Candidate(
            index=index,
            widths=tuple(widths.tolist()),
            method=method,
            costs=costs,
            status="failed",
            error=f"{type(error).__name__}: {error}",
        )
    return Candidate(
        index=index,
        widths=tuple(widths.tolist()),
        method=method,
        costs=costs,
        scores=scores_of(quality),
        seconds={**made.seconds, "evaluate": quality.seconds},
        selection=selection_hash(made.selection),
    )


def scores_of(quality: Quality, prefix: str = "") -> dict[str, float]:
    """A quality as scores of a candidate; `prefix` FINALIST for those of finalists."""
    top1 = FINALIST_TOP1 if prefix else SEARCH_TOP1
    scores = {top1: quality.accuracy.share, prefix + MINUS_LOSS: -quality.loss}
    return scores if quality.kl is None else {**scores, prefix + MINUS_KL: -quality.kl}


def value_of(candidate: Candidate, rank_by: RankBy, prefix: str = "") -> float:
    """What the candidate is ranked by, higher = better; -inf for a failed one."""
    key = _RANKED[rank_by]
    key = FINALIST_TOP1 if prefix and key == SEARCH_TOP1 else prefix + key
    return candidate.scores.get(key, -np.inf)


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


def selection_hash(selection: Selection) -> str:
    """Hash of the kept channels, to compare across runs."""
    return content_hash([kept.tolist() for kept in selection])
