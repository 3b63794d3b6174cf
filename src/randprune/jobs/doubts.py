"""What makes a result doubtful, in words: a dense network near chance, a control that wins."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from torch import Tensor

from randprune.store import DENSE, SEARCHED, NetworkRow, Stage
from randprune.tasks import ACCURACY, Metric

# What a trained network knows at least, of what is above chance.
_ABOVE_CHANCE = 0.1


def chance(labels: Tensor) -> float:
    """The accuracy of always saying the commonest class, for labels int64 (N,)."""
    return labels.bincount().max().item() / len(labels)


def near_chance(found: float, by_chance: float) -> list[str]:
    """A warning where the dense network hardly knows more than the commonest class.

    Args:
        found: its accuracy on the search images.
        by_chance: see `chance`.
    """
    if found > by_chance + _ABOVE_CHANCE * (1 - by_chance):
        return []
    return [
        f"Warning: the dense network has {_percent(found)} accuracy on the search images; always "
        f"saying the commonest class has {_percent(by_chance)}. Check the weights, the order of "
        "the classes, and size, mean and deviation of the images (--image-size, --mean, --std)."
    ]


def beaten(networks: Iterable[NetworkRow], metric: Metric = ACCURACY) -> list[str]:
    """Warnings where a control is better on the test images than the searched network.

    What is only cut does not count: widths are chosen for how well they can be repaired.
    """
    shares: dict[tuple[Stage, str], list[float]] = {}
    labels: dict[str, str] = {}
    for row in networks:
        if row.test is not None and row.role != DENSE and row.stage != "cut":
            shares.setdefault((row.stage, row.role), []).append(row.test.share)
            labels[row.role] = row.label
    found = []
    for (stage, role), values in shares.items():
        ours = shares.get((stage, SEARCHED))
        if role == SEARCHED or not ours:
            continue
        if metric.score(fmean(values)) > metric.score(fmean(ours)):
            found.append(
                f"Warning: {labels[role]} has {_shown(metric, fmean(values))} test {metric.name} "
                f"({stage}), the searched network {_shown(metric, fmean(ours))}: the search did "
                "not pay here."
            )
    return found


def _shown(metric: Metric, value: float) -> str:
    return _percent(value) if metric.unit == "%" else metric.shown(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"
