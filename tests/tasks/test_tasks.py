"""Every task: its conformance, its numbers against their definitions, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.tasks import (
    Classification,
    Given,
    Metric,
    MultiLabel,
    Outputs,
    Regression,
    Segmentation,
    task_of,
    tasks,
)
from randprune.testing import check_task


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(high: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def absolute(outputs: Any, batch: Any) -> Tensor:
    """A loss of one's own."""
    return (outputs - batch["target"]).abs().mean()


CASES: dict[str, tuple[Any, Any, Any]] = {
    "classification": (Classification(), drawn(6, 4), (drawn(6, 3), whole(4, 6))),
    "classification, Hugging Face": (
        Classification(),
        {"loss": None, "logits": drawn(6, 4)},
        {"pixel_values": drawn(6, 3), "labels": whole(4, 6)},
    ),
    "multi_label": (MultiLabel(), drawn(6, 4), (drawn(6, 3), whole(2, 6, 4))),
    "regression": (Regression("years"), drawn(6, 1), (drawn(6, 3), drawn(6, seed=2))),
    "segmentation": (
        Segmentation(ignore=3),
        {"out": drawn(4, 3, 8, 8), "aux": drawn(4, 3, 8, 8)},
        (drawn(4, 3, 8, 8), whole(4, 4, 8, 8)),
    ),
    "segmentation, coarse": (
        Segmentation(), drawn(4, 3, 4, 4), (drawn(4, 3, 8, 8), whole(3, 4, 1, 8, 8))
    ),
    "outputs": (
        Outputs(), {"a": drawn(4, 3), "b": [drawn(4, 2, 5)], "ids": whole(9, 4)}, drawn(4, 3)
    ),
    "given": (
        task_of(Outputs(), absolute, None, None), drawn(4, 2),
        {"x": drawn(4, 3), "target": drawn(4, 2, seed=3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_conformance(case: str) -> None:
    check_task(*CASES[case])


def test_every_registered_task_is_in_the_list() -> None:
    assert {case.partition(",")[0] for case in CASES} - {"given"} == set(tasks)


def measured(task: Any, outputs: Any, batch: Any) -> float:
    meter = task.meter()
    meter.update(outputs, batch, None)
    return float(meter.result().value)


def test_segmentation_against_its_definition() -> None:
    task, outputs, batch = CASES["segmentation"]
    target, found = batch[1], outputs["out"].argmax(1)
    counts = target != 3
    shares = []
    for label in range(3):
        ours, theirs = (found == label) & counts, (target == label) & counts
        shares.append(float((ours & theirs).sum() / (ours | theirs).sum()))
    assert measured(task, outputs, batch) == pytest.approx(np.mean(shares))
    wanted = F.cross_entropy(outputs["out"], target.masked_fill(~counts, -100))
    torch.testing.assert_close(task.loss(outputs, batch), wanted)


def test_mean_average_precision_against_its_definition() -> None:
    """Precision times the step of recall, at every threshold."""
    task, outputs, batch = CASES["multi_label"]
    wanted = []
    for scores, right in zip(outputs.T.numpy(), batch[1].T.numpy(), strict=True):
        before, area = 0.0, 0.0
        for threshold in sorted(scores.tolist(), reverse=True):
            found = scores >= threshold
            recall = right[found].sum() / right.sum()
            area += (recall - before) * right[found].mean()
            before = recall
        wanted.append(area)
    assert measured(task, outputs, batch) == pytest.approx(np.mean(wanted))


def test_regression_takes_rows_and_columns() -> None:
    task, outputs, batch = CASES["regression"]
    error = (outputs[:, 0] - batch[1]).abs().mean()
    assert measured(task, outputs, batch) == pytest.approx(float(error))
    assert task.metric == Metric("mean absolute error", "years", higher_is_better=False)
    assert task.metric.shown(3.14159) == "3.142 years"


def test_the_relative_error_of_outputs_against_its_definition() -> None:
    task, dense, _ = CASES["outputs"]
    ours = {"a": dense["a"] + 1.0, "b": [dense["b"][0] * 0.0], "ids": dense["ids"]}
    a, b = dense["a"], dense["b"][0]
    errors = [
        a.numel() / (a - a.mean()).square().sum(),
        b.square().sum() / (b - b.mean()).square().sum(),
    ]
    assert float(task.distance(ours, dense)) == pytest.approx(float(sum(errors)) / 2, rel=1e-5)
    constant = {"x": torch.ones(3)}
    assert float(task.distance(constant, constant)) == 0.0


class Accumulating:
    """As torchmetrics has them: states over batches, a direction of its own."""

    higher_is_better = True

    def __init__(self) -> None:
        self.right = self.seen = 99

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, found: Tensor, target: Tensor) -> None:
        self.right += int((found.argmax(1) == target).sum())
        self.seen += len(target)

    def compute(self) -> Tensor:
        return torch.tensor(self.right / self.seen)


def test_a_metric_that_accumulates_is_reset_for_each_network_and_left_alone() -> None:
    mine = Accumulating()
    task = task_of(Classification(), None, mine, None)
    _, outputs, batch = CASES["classification"]
    wanted = measured(Classification(), outputs, batch)
    for _ in range(2):
        assert measured(task, outputs, batch) == pytest.approx(wanted)
    assert mine.right == 99
    assert task.metric == Metric("Accumulating", "", higher_is_better=True)
    assert repr(task) == repr(task_of(Classification(), None, Accumulating(), None))


@pytest.mark.parametrize(
    ("task", "outputs", "batch", "error", "message"),
    [
        (Classification(), drawn(4, 3), (drawn(4, 3), drawn(4)), DataError, "integer class ind"),
        (Classification(), drawn(4, 3), (drawn(4, 3), whole(3, 4) + 1), DataError, r"0\.\.2"),
        (Classification(), drawn(4, 3, 2), (drawn(4), whole(3, 4)), InvalidInputError, r"\(B, K\)"),
        (Classification(), drawn(4, 3), drawn(4, 3), DataError, "batch has no targets: float32"),
        (MultiLabel(), drawn(4, 3), (drawn(4), whole(2, 4)), DataError, "not like the logits"),
        (Regression(), drawn(4, 2), (drawn(4), drawn(4)), DataError, "one number for each"),
        (Segmentation(), drawn(4, 2, 8, 8), (drawn(4), whole(3, 4, 8, 8)), DataError, "'ignore'"),
        (Segmentation(), drawn(4, 2), (drawn(4), whole(2, 4)), DataError, r"\(B, K, H, W\)"),
        (Outputs(), drawn(4, 2), (drawn(4), whole(2, 4)), InvalidInputError, "no loss of its own"),
        (
            Given(Outputs(), lambda outputs, batch: outputs), drawn(4, 2), drawn(4), DataError,
            r"loss of '<lambda>' must be a scalar tensor.* Got shape \(4, 2\)",
        ),
        (
            Given(Outputs(), lambda outputs, batch: 3.0), drawn(4, 2), drawn(4), DataError,
            "Got float instead",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_loss_is_named(
    task: Any, outputs: Any, batch: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        task.loss(outputs, batch)


def test_metrics_that_are_no_numbers_are_named() -> None:
    def half(outputs: Any, batch: Any) -> Any:
        return float("nan")

    with pytest.raises(DataError, match=r"metric 'half' of the task 'given' is nan over 4 samples"):
        measured(task_of(Outputs(), None, half, True), drawn(4, 2), drawn(4))

    def both(outputs: Any, batch: Any) -> Any:
        return "much"

    with pytest.raises(DataError, match=r"The metric 'both' must give a number. Got 'much'"):
        measured(task_of(Outputs(), None, both, True), drawn(4, 2), drawn(4))
    with pytest.raises(InvalidInputError, match=r"metric .half. is better is not"):
        task_of(Outputs(), None, half, None)
    with pytest.raises(InvalidInputError, match="'loss' parameter must be callable"):
        task_of(Outputs(), 3, None, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="'metric' parameter must be callable"):
        task_of(Outputs(), None, 3, True)
    with pytest.raises(InvalidInputError, match="the direction of a metric"):
        task_of(Outputs(), None, None, True)
    with pytest.raises(DataError, match="No place of the targets counts"):
        measured(Segmentation(0), drawn(2, 2, 3, 3), (None, torch.zeros(2, 3, 3).long()))
    with pytest.raises(InvalidInputError, match="not like those of the dense network"):
        Outputs().distance({"a": drawn(3)}, {"b": drawn(3)})
