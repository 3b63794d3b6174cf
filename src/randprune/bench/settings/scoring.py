"""All criteria's scores: made in shared passes over the data, each charged as if it were alone."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping

import torch

from randprune.bench.counting import MacCounter, cost_alone
from randprune.bench.keys import RANDOM_CRITERION
from randprune.bench.results import Spent
from randprune.criteria import Criterion, criteria, score, score_all
from randprune.errors import InvalidInputError, StorageError
from randprune.jobs.session import Session
from randprune.recovery import DenseStatistics
from randprune.store import CostEntry

_log = logging.getLogger(__name__)

_DOCUMENT = "scores"
"""What each criterion costs alone, and why some failed."""


def kept_scores(session: Session, criterion: str) -> list[torch.Tensor]:
    """A criterion's scores, one (width,) tensor a group.

    Raises:
        InvalidInputError: the criterion failed; says why.
    """
    failure = session.work.made_document(_DOCUMENT)["failed"].get(criterion)
    if failure is not None:
        raise InvalidInputError(f"The criterion {criterion!r} failed. {failure}")
    return session.scores(criteria.create(criterion), criterion)


def scores_cost(session: Session, criterion: str) -> Spent:
    """What the criterion's scores cost, as if no other criterion shared its passes."""
    return Spent(**session.work.made_document(_DOCUMENT)["costs"][criterion])


def keep_all_scores(session: Session, chosen: Mapping[str, Criterion]) -> None:
    """Score all criteria in shared passes, keep the scores, and what each costs by itself.

    Args:
        session: of the trained dense network.
        chosen: the criteria by their registered names.
    """
    document = session.work.document(_DOCUMENT)
    if document is None:
        start = time.perf_counter()
        with MacCounter() as counter:
            found, failed = _scores(session, chosen)
        seconds = time.perf_counter() - start
        needs = [criterion.needs - {"weights"} for criterion in chosen.values()]
        images, device = len(session.calibration), session.device or "cpu"
        entry = CostEntry(
            "scores",
            "scores",
            images_forward=images if any(needs) else 0,
            images_backward=images if any("gradients" in looked_at for looked_at in needs) else 0,
            macs_spent=counter.macs,
            seconds=seconds,
            device=device,
        )
        costs = {RANDOM_CRITERION: Spent(device=device)}
        for name, values in found.items():
            session.keep_scores(name, values)
            costs[name] = cost_alone(
                session.network, session.space, chosen[name], session.calibration, device
            )
        document = {
            "costs": {name: dataclasses.asdict(spent) for name, spent in costs.items()},
            "failed": failed,
            "entry": dataclasses.asdict(entry),
        }
        session.work.keep_document(_DOCUMENT, document)
    session.ledger.add_cost(CostEntry(**document["entry"]))


def _scores(
    session: Session, chosen: Mapping[str, Criterion]
) -> tuple[dict[str, list[torch.Tensor]], dict[str, str]]:
    """Scores by criterion, and the errors of those that failed."""
    network, space, images = session.network, session.space, session.calibration
    seed = session.seeds.seed("scores")

    def fresh() -> DenseStatistics:
        """The moments are shared by all; a pass that failed must not be."""
        return DenseStatistics(network, space, session.statistics.moments)

    try:
        together = score_all(network, space, chosen.values(), images, seed=seed, shared=fresh())
        return {name: together[criterion.name] for name, criterion in chosen.items()}, {}
    except (StorageError, MemoryError):
        raise
    except Exception as error:
        _log.warning("Scoring together failed (%s): each criterion alone.", error)
    found: dict[str, list[torch.Tensor]] = {}
    failed: dict[str, str] = {}
    for name, criterion in chosen.items():
        try:
            found[name] = score(network, space, criterion, images, seed=seed, shared=fresh())
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return found, failed
