"""`rp.search` and `rp.repair`: any network, any structure of data and outputs, no labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import randprune as rp
from randprune.errors import DataError, InvalidInputError
from randprune.lineage import plan_of
from randprune.tasks.outputs import relative_error


@dataclass
class Answer:
    """An output that torch knows nothing of."""

    map: Tensor
    rest: list[dict[str, Tensor]]


class Branches(nn.Module):
    """Feature maps in, an `Answer` out; the second input is optional."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.map = nn.Conv2d(12, 2, 1)
        self.row = nn.Linear(12, 3)

    def forward(self, pixels: Tensor, scale: Tensor | None = None) -> Answer:
        h = torch.relu(self.deep(torch.relu(self.norm(self.stem(pixels)))))
        if scale is not None:
            h = h * scale[:, None, None, None]
        return Answer(self.map(h), [{"row": self.row(h.mean((2, 3)))}])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = Branches().eval()
    with torch.no_grad():  # channels that nearly repeat others: there is something to find
        made.stem.weight[4:] = made.stem.weight[:4] * 1.1
        made.deep.weight[6:] = made.deep.weight[:6] + 0.01 * torch.randn(6, 8, 3, 3)
    return made


def pixels(count: int = 48) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Pictures(Dataset[Any]):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        return {"pixels": pixels()[place], "labels": place, "name": f"{place}.jpg"}


FORMS: dict[str, Any] = {
    "tensor": pixels,
    "array": lambda: pixels().numpy(),
    "inputs and targets": lambda: (pixels(), torch.zeros(48, 2)),
    "batches": lambda: [pixels()[:20], pixels()[20:]],
    "generator": lambda: (part for part in pixels().split(16)),
    "labelled batches": lambda: list(zip(pixels().split(16), torch.arange(48).split(16))),  # noqa: B905
    "dataset": lambda: TensorDataset(pixels()),
    "mappings": Pictures,
    "loader": lambda: DataLoader(Pictures(), batch_size=5, shuffle=True),
    "mapping of tensors": lambda: {"pixels": pixels(), "labels": torch.arange(48)},
}


def found(network: nn.Module, data: Any, **more: Any) -> rp.SearchResult:
    more = {"candidates": 4, "settings": {"search": {"precision": "float32"}}, **more}
    return rp.search(network, data, rp.Budget("macs", 0.5, 0.05), strategy="random", **more)


@pytest.fixture(scope="module")
def reference(network: nn.Module) -> rp.SearchResult:
    return found(network, pixels())


def test_candidates_are_ranked_and_their_networks_made_on_demand(
    network: nn.Module, reference: rp.SearchResult
) -> None:
    distances = [candidate.distance for candidate in reference]
    assert distances == sorted(distances)
    assert len(reference) >= 2
    assert reference.best is reference[0]
    assert len(repr(reference)) < 2000
    assert reference.distance(network) == 0.0
    small = reference.best.network()
    assert reference.distance(small) < 0.5 * reference.distance(reference.best.network("none"))
    quick = reference.best.network("least_squares")
    assert reference.distance(quick) == pytest.approx(reference.best.distance, rel=1e-4)
    plan = plan_of(small)
    assert plan is not None
    assert plan.selection.widths.tolist() == reference.best.widths.tolist()
    assert reference.best.selection.widths.tolist() == reference.best.widths.tolist()
    share = reference.best.costs["macs"] / reference.space.cost("macs").dense
    assert share == pytest.approx(0.5, abs=0.05)


def test_a_search_shows_itself(reference: rp.SearchResult) -> None:
    text, page = repr(reference), reference._repr_html_()
    assert f"{len(reference)} networks at 50% of the macs" in text
    for shown in (*reference.ranked[:10], *reference.controls.values()):
        assert f"{shown.distance:.4g}" in text
        assert f"{shown.distance:.4g}" in page


def test_uniform_widths_are_among_the_candidates_and_the_controls(
    reference: rp.SearchResult,
) -> None:
    uniform = reference.controls["uniform"]
    assert any(np.array_equal(c.widths, uniform.widths) for c in reference)
    assert reference.best.distance <= uniform.distance
    assert set(reference.controls) == {"uniform", "random_channels"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_finds_the_same(
    form: str, network: nn.Module, reference: rp.SearchResult
) -> None:
    again = found(network, FORMS[form]())
    assert [c.widths.tolist() for c in again] == [c.widths.tolist() for c in reference]
    assert [c.distance for c in again] == [c.distance for c in reference]


def test_labels_rank_where_a_task_is_named() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    data = (pixels(), torch.arange(48) % 4)
    result = found(
        network, data, task="classification",
        settings={"search": {"precision": "float32", "rank_by": "loss"}},
    )  # fmt: skip
    losses = [c.loss for c in result]
    assert None not in losses
    assert losses == sorted(losses, key=lambda loss: loss or 0.0)
    assert all(0.0 <= c.value <= 1.0 for c in result)


def test_repair_takes_whatever_chose_the_widths(network: nn.Module) -> None:
    x = pixels()
    space = rp.trace(network, x[:1])
    kept = tuple(np.arange(0, group.width, 2) for group in space.groups)
    selection = rp.Selection(kept, space.fingerprint)
    small = rp.cut(network, space, selection)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    repaired = rp.repair(network, small, x)
    assert repaired is not small
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in before.items())

    def error(other: nn.Module) -> float:
        with torch.no_grad():
            return float(relative_error(other(x), network(x)))

    assert error(repaired) < 0.5 * error(small)
    assert error(rp.repair(network, small, x, "none")) == error(small)
    # What came out remembers the same cut: it can be repaired again, and saved.
    twice = rp.repair(network, repaired, DataLoader(TensorDataset(x), batch_size=7))
    assert error(twice) == pytest.approx(error(repaired), rel=1e-3)


def test_networks_that_cannot_be_repaired_are_named(network: nn.Module) -> None:
    with pytest.raises(InvalidInputError, match=r"Branches does not remember a cut"):
        rp.repair(network, Branches(), pixels())
    space = rp.trace(network, pixels(1))
    small = rp.cut(network, space, space.dense)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    with pytest.raises(InvalidInputError, match=r"cut from a Branches .* than the Sequential"):
        rp.repair(other, small, pixels())


def test_batches_without_what_forward_needs_are_named(network: nn.Module) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.a(left) + right

    with pytest.raises(InvalidInputError, match=r"forward of Pair needs right, which the batch"):
        found(Pair(), pixels())
    with pytest.raises(InvalidInputError, match=r"forward of Pair needs right, which"):
        found(Pair(), {"left": pixels(), "labels": torch.zeros(48)})
    with pytest.raises(DataError, match="is empty"):
        found(network, [])
    with pytest.raises(InvalidInputError, match="Got int instead"):
        found(network, 3)
