"""`rp.prune` for any task, on data of any structure, with one's own loss, metric and trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import randprune as rp
from randprune.errors import DataError, InvalidInputError, TrainerError
from randprune.report import report_of
from randprune.store import DENSE, UNIFORM, Measured

FAST = {
    "output": {"latency_seconds": 0.0},
    "budget": {"tolerance": 0.05},
    "search": {"precision": "float32"},
    "finalists": {"count": 2},
}


class Maps(nn.Module):
    """Logits of three classes a pixel, as torchvision returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"out": self.out(torch.relu(self.b(torch.relu(self.a(pixels)))))}


class Number(nn.Module):
    """One number a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = Maps()
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x)["out"].mean((2, 3)))


def built(make: Any) -> Any:
    torch.manual_seed(0)
    network = make().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    return network


def pixels(count: int = 60) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def pruned(network: nn.Module, data: Any, **more: Any) -> rp.PruneResult:
    return rp.prune(
        network, data, 0.5, candidates=3, criterion="l1", strategy="random", settings=FAST, **more
    )


def test_unlabelled_inputs_are_enough(tmp_path: Path) -> None:
    network = built(Maps)
    result = pruned(network, pixels(), out=tmp_path)
    assert result.metric.name == "output error"
    assert result.value(DENSE) == 0.0
    assert 0.0 < result.value(stage="repaired") <= result.value(stage="cut")
    assert isinstance(result.network(UNIFORM).test, Measured)
    assert "output error" in result.summary()
    with pytest.raises(InvalidInputError, match=r"metric is output error, not accuracy"):
        result.accuracy()
    report = report_of(tmp_path)
    assert "test output error" in report.headline
    assert "accuracy" not in report.headline
    assert report.summary["metric"] == {
        "task": "outputs", "name": "output error", "unit": "%", "higher_is_better": False,
    }  # fmt: skip
    note = "No targets were used"
    assert any(note in line for line in result.notes)
    again = pruned(network, pixels(), out=tmp_path)
    assert again.summary() == result.summary()
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(
            again.model.state_dict().values(), result.model.state_dict().values(), strict=True
        )
    )


def test_segmentation_is_searched_fine_tuned_and_reported(tmp_path: Path) -> None:
    network = built(Maps)
    with torch.no_grad():
        target = network(pixels())["out"].argmax(1)
    data = {"pixels": pixels(), "labels": target}
    result = pruned(
        network, data, task="segmentation", finetune={"epochs": 2, "controls": True, "lr": 0.001},
        out=tmp_path,
    )  # fmt: skip
    assert result.metric.name == "mean IoU"
    assert result.value(DENSE) == 1.0
    tested = [row.test for row in result.networks]
    assert all(test is not None and 0.0 < test.share <= 1.0 for test in tested)
    assert {row.stage for row in result.networks if row.role == UNIFORM} == {
        "cut", "repaired", "finetuned",
    }  # fmt: skip
    best = max(result.scores("search_top1"))
    assert 0.0 < best <= 1.0
    page = report_of(tmp_path)
    assert "mean IoU" in page.headline
    with pytest.raises(InvalidInputError, match="label_smoothing belongs to the classification"):
        pruned(network, data, task="segmentation", finetune={"epochs": 1, "label_smoothing": 0.1})


def test_classes_of_any_data_are_learned_from(tmp_path: Path) -> None:
    network = nn.Sequential(built(Number).maps.a, nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))
    with torch.no_grad():
        target = network(pixels()).argmax(1)
    data = {"input": pixels(), "labels": target}
    result = pruned(network, data, task="classification", finetune={"epochs": 3, "lr": 0.01})
    assert result.metric.name == "accuracy"
    assert result.value(DENSE) == 1.0
    assert result.value(stage="finetuned") > 1 / 3


def test_ones_own_loss_and_metric_take_the_place_of_a_task() -> None:
    network = built(Number)
    with torch.no_grad():
        target = network(pixels())

    def absolute(outputs: Tensor, batch: Any) -> Tensor:
        return (outputs - batch[1]).abs().mean()

    def worst(outputs: Tensor, batch: Any) -> float:
        return float((outputs - batch[1]).abs().max())

    result = pruned(
        network, (pixels(), target), loss=absolute, metric=worst, higher_is_better=False, finetune=1
    )
    assert (result.metric.name, result.metric.higher_is_better) == ("worst", False)
    assert result.value(DENSE) < 1e-5 < result.value(stage="finetuned")
    regression = pruned(network, (pixels(), target), task="regression")
    assert regression.metric.name == "mean absolute error"


def test_what_a_loss_and_a_metric_give_is_checked() -> None:
    network, target = built(Number), torch.zeros(60, 1)

    def rows(outputs: Tensor, batch: Any) -> Tensor:
        return (outputs - batch[1]).square()

    def never(outputs: Tensor, batch: Any) -> float:
        return float("nan")

    with pytest.raises(DataError, match=r"loss of 'rows' must be a scalar tensor"):
        pruned(network, (pixels(), target), loss=rows)
    with pytest.raises(DataError, match=r"The metric 'never' of the task 'given' is nan"):
        pruned(network, (pixels(), target), metric=never, higher_is_better=True)
    with pytest.raises(DataError, match="The batch has no targets"):
        pruned(network, pixels(), task="regression")


class Trainer:
    """Trains in place for a step; counts its calls and what it drew."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def __call__(self, network: nn.Module) -> None:
        assert network.training
        self.drawn.append(float(torch.rand(())))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        network(pixels())["out"].square().mean().backward()
        optimizer.step()


def test_ones_own_trainer_is_called_once_for_each_network_with_the_same_seed(
    tmp_path: Path,
) -> None:
    trainer = Trainer()
    result = pruned(built(Maps), pixels(), finetune=trainer, out=tmp_path)
    assert len(trainer.drawn) == 3  # searched, uniform, random channels
    assert len(set(trainer.drawn)) == 1
    rows = [row for row in result.networks if row.stage == "finetuned"]
    assert len(rows) == 3
    assert all(row.test is not None for row in rows)
    assert result.value(stage="finetuned") != result.value(stage="repaired")
    # Saved with its cut, as any other.
    again = rp.load(tmp_path / "pruned.safetensors", model=built(Maps))
    x = pixels(2)
    with torch.no_grad():
        torch.testing.assert_close(again(x)["out"], result.model(x)["out"])
    pruned(built(Maps), pixels(), finetune=trainer, out=tmp_path)
    assert len(trainer.drawn) == 3  # a finished job is only read


def raises(network: nn.Module) -> None:
    raise RuntimeError("out of data\nsecond line")


def nothing(network: nn.Module) -> None:
    pass


def other(network: nn.Module) -> nn.Module:
    return Maps()


def text(network: nn.Module) -> Any:
    return "trained"


def endless(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(network.parameters()).fill_(float("inf"))
    return network


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (raises, r"raised RuntimeError: out of data \(network 'best random'\)"),
        (nothing, r"returned nothing and left all weights as they were"),
        (lambda network: network, r"returned a network, but left all weights as they were"),
        (other, r"changed the architecture: a\.bias is \(8,\), it was \(\d,\)"),
        (text, r"returned str; it must return the trained module"),
        (endless, r"left values of a\.weight that are NaN or infinite"),
    ],
)
def test_a_trainer_that_fails_loses_nothing(trainer: Any, message: str, tmp_path: Path) -> None:
    network = built(Maps)
    with pytest.raises(TrainerError, match=message) as caught:
        pruned(network, pixels(), finetune=trainer, out=tmp_path)
    assert set(caught.value.networks) == {"searched", "uniform", "random_channels"}
    assert all(isinstance(found, nn.Module) for found in caught.value.networks.values())
    # The same job with a trainer of that name goes on from the repaired networks.
    calls: list[int] = []

    def mended(given: nn.Module) -> None:
        calls.append(1)
        with torch.no_grad():
            next(given.parameters()).mul_(0.9)

    mended.__name__, mended.__module__ = trainer.__name__, trainer.__module__
    result = pruned(network, pixels(), finetune=mended, out=tmp_path)
    assert len(calls) == 3
    searching = [entry for entry in result.ledger if entry.phase == "search"]
    assert len(searching) == 3  # none again


def test_a_curve_over_budgets_shows_the_metric_of_the_task(tmp_path: Path) -> None:
    found: Any = rp.prune(
        built(Number), (pixels(), pixels().mean((1, 2, 3))[:, None]), [0.7, 0.5], candidates=2,
        task="regression", criterion="l1", strategy="random", settings=FAST, out=tmp_path,
    )  # fmt: skip
    dense = found[0].metric.shown(found[0].value(DENSE))
    for shown in (found.summary(), found._repr_html_()):
        assert "mean absolute error" in shown
        assert dense in shown
        assert "test" not in shown.partition("stage")[0]
    assert found.plot().layout.title.text == "Mean absolute error against MACs"
    report = report_of(tmp_path)
    assert "accuracy" not in report.headline
    (budgets,) = (table for table in report.csv if table.id == "budgets")
    assert "Test mean absolute error" in [column.title for column in budgets.columns]
